"""bfloat16 scores the heads of the embedded model as float32 does: no further off than a seed."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

import levelhead
from levelhead.data.embedded import fetch_embedded_model
from levelhead.runs import RunFolder
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.selection import select_heads

pytestmark = pytest.mark.slow
AXIS = "gender_and_sex"
SLACK = 0.1
"""At so small a budget an agreement moves by as much from one machine to the next."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], ScoreTable]:
    fetch_embedded_model()
    folder = tmp_path_factory.mktemp("runs")
    return {
        (dtype, seed): levelhead.score(
            out=folder / f"{dtype}{seed}",
            dtype=dtype,
            seed=seed,
            max_prompts=60,
            new_tokens=16,
            text_tokens=4096,
            max_samples=1,
        )
        for dtype, seed in (("float32", 0), ("float32", 1), ("bfloat16", 0))
    }


@pytest.mark.parametrize("metric", [PPL, bias_metric(AXIS)])
def test_the_format_moves_effects_no_more_than_the_seed(tables, metric: str) -> None:
    first, seed, form = (tables[key].effect(metric).ravel() for key in tables)
    of_format, of_seed = spearmanr(first, form).statistic, spearmanr(first, seed).statistic
    assert of_format > of_seed - SLACK
    assert of_format > 0.5
    assert abs(spearmanr(first, np.roll(form, 97)).statistic) < 0.3, "control: other heads'"


@pytest.mark.parametrize(("gamma", "alpha"), [(0.3, 0.1), (0.7, 0.05)])
def test_the_format_changes_sets_no_more_than_the_seed(tables, gamma: float, alpha: float) -> None:
    first, seed, form = (
        set(select_heads(table, axis=AXIS, gamma=gamma, alpha=alpha).heads)
        for table in tables.values()
    )
    assert len(first & form) / len(first) > len(first & seed) / len(first) - 2 * SLACK
    assert len(first & form) / len(first) > 1.5 * alpha / (1 - gamma), "more than by chance"


def test_a_run_says_which_format_it_had(tmp_path: Path) -> None:
    """Whatever this machine chooses: it is written down, and the same command goes on with it."""
    fetch_embedded_model()
    options = {"max_prompts": 10, "new_tokens": 4, "text_tokens": 512, "max_samples": 1}
    out = tmp_path / "run"
    levelhead.score(out=out, **options)
    folder = RunFolder.open(out)
    assert folder.calibration is not None
    assert folder.config.dtype == folder.calibration["dtype"]
    assert folder.config.dtype in ("float32", "bfloat16")
    levelhead.score(out=out, **options)
