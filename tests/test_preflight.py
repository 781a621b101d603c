"""Everything that keeps a run from starting is told at once, and nothing is done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from levelhead.errors import MissingExtraError, PreflightError, TextError, missing_extra
from levelhead.models.load_failures import no_such_folder
from levelhead.network import is_offline, offline
from levelhead.preflight import after, check_all


def wrong(error: Exception) -> Any:
    def check() -> None:
        raise error

    return check


def test_one_thing_is_told_as_it_is_and_several_in_a_list() -> None:
    text = TextError("no such text: 'moby.txt'")
    check_all([("model", lambda: 1), ("text", lambda: None)])
    with pytest.raises(TextError, match=r"^no such text: 'moby\.txt'$"):
        check_all([("model", lambda: 1), ("text", wrong(text))])
    one, other = missing_extra("WikiText-2", "datasets"), missing_extra("This scorer", "sentiment")
    looked: list[str] = []
    with pytest.raises(PreflightError) as caught:
        check_all([
            ("toxicity scorer", wrong(other)), ("text", wrong(one)), ("prompts", wrong(text)),
            ("last", lambda: looked.append("last")),
        ])  # fmt: skip
    assert looked == ["last"], "what comes after is looked at all the same"
    assert caught.value.errors == (other, one, text)
    assert caught.value.exit_code == 2
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("3 things")
    assert [line[:5] for line in lines[1:4]] == ["  1. ", "  2. ", "  3. "]
    assert "pip install 'levelhead[sentiment]'" in lines[1]
    assert lines[4] == "All extras at once: pip install 'levelhead[sentiment,datasets]'"


def test_what_a_check_needs_is_told_by_itself() -> None:
    text = TextError("no prompts")
    needs = after(wrong(text), wrong(MissingExtraError("never told")))
    check_all([("terms", needs)])
    with pytest.raises(MissingExtraError, match="never told"):
        check_all([("terms", after(lambda: 1, wrong(MissingExtraError("never told"))))])


def test_a_bug_is_not_taken_for_a_missing_thing() -> None:
    with pytest.raises(ZeroDivisionError):
        check_all([("model", wrong(ZeroDivisionError("a bug"))), ("text", lambda: 1)])


def test_a_mistyped_folder_names_the_one_that_may_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert no_such_folder("my-modle") == "no such folder: my-modle (did you mean my-model?)"
    assert f"did you mean {tmp_path / 'my-model'}" in no_such_folder(f"{tmp_path}/my-modle")
    assert no_such_folder("gpt2") == "no such folder: gpt2"
    assert no_such_folder("/no/where") == "no such folder: /no/where"


def test_offline_holds_within_the_block_and_for_the_libraries_of_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not is_offline()
    with offline():
        assert is_offline()
        assert constants.is_offline_mode()
    assert not is_offline()
    assert not constants.is_offline_mode()
    assert "HF_HUB_OFFLINE" not in os.environ
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with offline():
        assert is_offline()
    assert os.environ["HF_HUB_OFFLINE"] == "0"
