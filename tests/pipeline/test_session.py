"""What a session refuses before any work, and what it says of its power."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from levelhead.cli.options import announce
from levelhead.config import RunConfig
from levelhead.data.identity_words import FUNCTION_WORDS, NEUTRAL
from levelhead.errors import ConfigError, PromptError, ScorerError, TextError
from levelhead.evaluation.divergence import FEWEST_WINDOWS, check_text, text_windows
from levelhead.metrics.power import STORED, axis_error, detectable_difference
from levelhead.scoring.design import design_of
from levelhead.session import Session
from levelhead.toxicity import Masked, registry


@pytest.fixture
def session(inputs: Path, options: dict[str, Any]) -> Session:
    return Session(RunConfig(model=str(inputs / "model"), **options))


def changed(session: Session, **options: Any) -> Session:
    """The same model with other options."""
    found = Session(replace(session.config, **options))
    found.base = session.base
    return found


def test_the_scorer_reads_no_identity_words_unless_asked_to(session: Session) -> None:
    assert isinstance(session.scorer, Masked)
    assert session.scorer.name == "masked:profanity-check"
    assert session.scorer.inner is session.plain_scorer
    plain = changed(session, unmasked=True)
    assert plain.scorer is plain.plain_scorer
    twice = changed(session, toxicity="masked:profanity-check")
    assert twice.scorer.identity == session.scorer.identity
    assert twice.plain_scorer.name == "profanity-check"


def test_the_plan_names_what_prompts_end_without(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(session.plan())
    assert "every text in" not in capsys.readouterr().err
    tokenizer: Any = session.tokenizer
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    announce(session.plan())
    assert "ends every text in </s>; prompts are without" in capsys.readouterr().err
    told = changed(session, chat_template=True)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    announce(told.plan())
    assert "every text in" not in capsys.readouterr().err


def test_an_axis_is_spelled_as_prompt_files_are_read() -> None:
    """A letter and its accent, as some keyboards and file systems give them."""
    accent = unicodedata.normalize("NFD", "genré")
    assert RunConfig(axis=(accent,)).axis == ("genré",)
    with pytest.raises(ConfigError, match="named twice"):
        RunConfig(axis=(accent, "genré"))


def test_masked_and_unmasked_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"--unmasked lets .* --scorer masked:sentiment"):
        RunConfig(toxicity="masked:sentiment", unmasked=True)
    with pytest.raises(ConfigError, match="give one of the two"):
        RunConfig(toxicity="over-0.5:masked:sentiment", unmasked=True)


def test_a_list_that_masks_most_of_the_prompts_is_refused(session: Session, tmp_path: Path) -> None:
    every = {word for p in session.prompts for word in p.text.lower().split()}
    path = tmp_path / "terms.txt"
    path.write_text("\n".join(sorted(every - FUNCTION_WORDS - set(NEUTRAL))))
    with pytest.raises(PromptError, match=r"\d\d% of the words of these prompts \(most often '"):
        _ = changed(session, identity_terms=str(path)).terms
    path.write_text("think\nfriend\nlive\nlove\n")
    terms = changed(session, identity_terms=str(path)).terms.every
    assert {"think", "love", "women"} <= set(terms)
    path.write_text("# nothing\n")
    with pytest.raises(PromptError, match="holds no identity words"):
        _ = changed(session, identity_terms=str(path)).terms


def test_a_scorer_that_tells_nothing_apart_is_refused_before_work(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Constant:
        name, identity, cost = "constant", "constant:1", "cheap"

        def __call__(self, texts: Any) -> list[float]:
            return [0.5] * len(texts)

    monkeypatch.setitem(registry.SCORERS, "constant", lambda device: Constant())
    monkeypatch.setattr("levelhead.session.load_base", lambda *a, **k: pytest.fail("loaded"))
    for wrong in ({"toxicity": "constant"}, {"second_toxicity": "constant"}):
        with pytest.raises(ScorerError, match="gives one value"):
            Session(replace(session.config, **wrong)).plan()


def test_a_text_of_too_few_windows_is_refused(session: Session) -> None:
    for split in ("validation", "test"):
        check_text(session, split)  # the control
    ids = session.text_ids("test")
    window = text_windows(session, session.base.model, len(ids))[0]
    session._texts[str(session.config.text), "test"] = replace(
        session.text("test"), text=session.tokenizer.decode(ids[: window.stop - 2])
    )
    fewer = len(text_windows(session, session.base.model, len(session.text_ids("test"))))
    assert fewer < FEWEST_WINDOWS
    with pytest.raises(TextError, match=rf"the test part .* {fewer} window .*--text-tokens"):
        check_text(session, "test")


def test_what_can_be_told_falls_with_the_budget(session: Session) -> None:
    """By axis, from stored components; more texts tell smaller differences."""
    found = session.detectable()
    assert list(found) == ["gender"]
    design = design_of(session.problem("gender", "test"))
    expected = detectable_difference(STORED["profanity-check"], design, error=axis_error(1))
    assert found["gender"] == pytest.approx(expected)
    more = changed(session, samples=16).detectable()["gender"]
    assert more == pytest.approx(found["gender"] / 2, rel=0.05)  # four times the texts
    assert session.plan().detectable == found
