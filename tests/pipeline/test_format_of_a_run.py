"""A run's number format is chosen once, kept in its folder, and never flips."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import levelhead
from levelhead.config import RunConfig
from levelhead.errors import RunFolderError
from levelhead.models.number_format import Calibration, decided
from levelhead.runs import RunFolder
from levelhead.stages import number_format


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Calibration]]:
    """What the next calibrations come to; another one is an error."""
    coming: list[Calibration] = []
    monkeypatch.setattr(number_format, "calibrated", lambda config: coming.pop(0))
    yield coming
    assert not coming, "fewer calibrations than expected"


def test_the_choice_is_recorded_and_kept(
    answers: list[Calibration], inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    model, out = str(inputs / "model"), tmp_path / "run"
    faster = decided(4.0, ((64, 64),))
    answers.append(faster)
    levelhead.score(model, out=out, **options)
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert config["calibration"] == faster.to_json()
    assert json.loads((out / "details.json").read_text())["dtype"] == "bfloat16"
    assert RunFolder.open(out).calibration == faster.to_json()
    before = (out / "scores.csv").stat().st_mtime_ns
    levelhead.run(model, out=out, **options)  # `answers` is empty: nothing is timed again
    assert (out / "scores.csv").stat().st_mtime_ns == before, "not scored again"
    assert (out / "evaluation.json").exists()
    with pytest.raises(RunFolderError, match=r"differs in: dtype"):
        levelhead.score(model, out=out, **options, dtype="float32")


def test_no_choice_where_a_format_is_named_or_needed(
    answers: list[Calibration], inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    model = str(inputs / "model")
    for name, given in (
        ("named", {"dtype": "float32"}),
        ("differences of single heads", {"estimator": "finite"}),
    ):
        levelhead.score(model, out=tmp_path / name, **options, **given)
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["dtype"] == "float32", name
        assert "calibration" not in config


def test_an_older_folder_stays_as_it_was(
    answers: list[Calibration], inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    """Its config.json says auto, which was float32 on a CPU."""
    model, out = str(inputs / "model"), tmp_path / "run"
    RunFolder.create(out, RunConfig.of(model, **options))
    levelhead.score(model, out=out, **options)
    assert json.loads((out / "config.json").read_text())["dtype"] == "auto"
    assert json.loads((out / "details.json").read_text())["dtype"] == "float32"


def test_a_damaged_calibration_is_an_error(
    inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    RunFolder.create(out, RunConfig.of(str(inputs / "model"), **options))
    config = json.loads((out / "config.json").read_text()) | {"calibration": [1]}
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunFolderError, match="calibration is not an object"):
        RunFolder.open(out)
