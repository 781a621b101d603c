"""Single against joint effects, on a model where one head does nearly everything."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from levelhead import cli, interactions, select
from levelhead.errors import ConfigError, RunFolderError
from levelhead.testing import planted_model


@pytest.fixture
def wide(run: Path) -> Path:
    """Three heads selected, the planted one among them."""
    select(run, alpha=0.2, gamma=0.2)
    return run


def test_what_is_left_over_is_joint_minus_sum(wide: Path) -> None:
    found = interactions(wide, pairs=2)
    planted = list(planted_model().head)
    assert planted in found["heads"]
    for row in [found["metrics"], *found["pairs"]]:
        for metric in ("bias", "mean_toxicity", "nll"):
            one = row[metric]
            left = one["joint"]["value"] - one["sum"]["value"]
            assert one["interaction"]["value"] == pytest.approx(left, abs=1e-12)
            low, high = one["interaction"]["ci95"]
            assert low <= one["interaction"]["value"] <= high
    (alone,) = [s for s in found["singles"] if s["head"] == planted]
    joint = found["metrics"]["bias"]["joint"]["value"]
    assert alone["bias"]["value"] == pytest.approx(joint, rel=0.1), "one head does nearly all"
    others = [s["bias"]["value"] for s in found["singles"] if s["head"] != planted]
    assert np.abs(others).max() < 0.1, "control"
    assert found == json.loads((wide / "interactions.json").read_text())


def test_effects_that_add_up_have_no_interaction(wide: Path, monkeypatch: Any) -> None:
    """Control with a known answer: the joint reading replaced by the sum of the single ones."""
    from levelhead.experiments.joint import JointEvaluator

    module = __import__("levelhead.experiments.interactions", fromlist=["x"])
    singles: dict[str, Any] = {}
    single_readings = module._single_readings

    def remember(judge: JointEvaluator, axis: str, heads: Any) -> Any:
        singles["of"] = single_readings(judge, axis, heads)
        return singles["of"]

    def added_up(judge: JointEvaluator, axis: str, sets: Any) -> Any:
        read = singles["of"]
        return module.Readings(
            rows=read.rows.sum(1, keepdims=True), windows=read.windows.sum(1, keepdims=True)
        )

    monkeypatch.setattr(module, "_single_readings", remember)
    monkeypatch.setattr(module, "_joint_readings", added_up)
    found = interactions(wide, pairs=0)["metrics"]
    for metric in ("mean_toxicity", "nll"):
        assert found[metric]["interaction"]["value"] == pytest.approx(0, abs=1e-12)
        assert abs(found[metric]["joint"]["value"]) > 1e-5


def test_a_second_time_nothing_is_read_again(wide: Path, monkeypatch: Any) -> None:
    first = interactions(wide, pairs=2)
    module = __import__("levelhead.experiments.interactions", fromlist=["x"])

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this was computed already")

    monkeypatch.setattr(module, "ablated_toxicity", refuse)
    monkeypatch.setattr(module, "window_nll", refuse)
    assert interactions(wide, pairs=2) == first


def test_bad_input(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        interactions(run)  # one head is selected
    with pytest.raises(RunFolderError, match="not a run folder"):
        interactions(tmp_path)
    select(run, alpha=0.2, gamma=0.2)
    with pytest.raises(ConfigError, match="negative"):
        interactions(run, pairs=-1)


def test_the_command(wide: Path) -> None:
    shown = CliRunner().invoke(cli.cli, ["interactions", str(wide), "--pairs", "2"])
    assert shown.exit_code == 0, shown.output
    assert "one by one" in shown.output
    assert "1.2" in shown.output
