"""Names of files that a system does not take, or that are written in capitals."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pipeline.test_cli import levelhead

from levelhead.data.gguf_files import is_gguf
from levelhead.errors import CheckpointError, ModelError
from levelhead.models.checkpoint import load, save_pruned
from levelhead.models.loading import check_base
from levelhead.models.surgery import prune_heads
from levelhead.testing import save_tiny_checkpoint, tiny_model

LONG = "n" * 300
"""Longer than any file system takes."""


@pytest.mark.parametrize(
    "command",
    [
        ("run", "{model}", "--out", "{long}"),
        ("prune", "{model}", "--heads", "{heads}", "--out", "{long}"),
        ("verify", "{long}", "--base", "{model}"),
        ("select", "{long}"),
        ("report", "{long}/run"),
    ],
)
def test_a_name_that_is_too_long_is_told(command: tuple[str, ...], tmp_path: Path) -> None:
    model = save_tiny_checkpoint(tmp_path / "model", "llama")
    heads = tmp_path / "heads.json"
    heads.write_text('{"heads": [[0, 1]]}')
    names = {"model": model, "heads": heads, "long": tmp_path / LONG}
    code, said = levelhead(*(part.format(**names) for part in command))
    assert code == 2
    assert "too long" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads.json", "model"]


@pytest.mark.parametrize("letter", ["n", "\u6027"])
def test_the_longest_name_that_a_system_takes_is_taken(letter: str, tmp_path: Path) -> None:
    """The temporary folder beside it has a longer name, were it made of this one."""
    model = tiny_model("llama")
    prune_heads(model, {0: [1]})
    name = letter * (255 // len(letter.encode()))
    load(save_pruned(model, tmp_path / name))
    with pytest.raises(CheckpointError, match="the name is too long"):
        save_pruned(model, tmp_path / (name + letter))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_relative_path_says_from_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that names its model so, gone on from another folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    save_tiny_checkpoint(tmp_path / "home" / "model", "llama")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    check_base("model")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=f"looked for from {tmp_path / 'elsewhere'}"):
        check_base("model")


@pytest.mark.parametrize("name", ["x.gguf", "X.GGUF", "Model.Gguf"])
def test_gguf_files_are_known_whatever_the_case(name: str, tmp_path: Path) -> None:
    assert is_gguf(name)
    code, said = levelhead("run", str(tmp_path / name), "--out", str(tmp_path / "run"))
    assert code == 2
    assert "no such file" in said
    assert "MODEL is a GGUF file" in said
