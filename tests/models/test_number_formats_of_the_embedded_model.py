"""bfloat16 scores the heads of the embedded model as float32 does: closer than a second seed.

Both formats read the same texts. Left to themselves they write other ones, since rounding flips
draws, and then differ as two seeds do: that says nothing of the format.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

import levelhead
from levelhead.config import RunConfig
from levelhead.data.embedded import fetch_embedded_model
from levelhead.progress import silent
from levelhead.runs import RunFolder
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.scoring import PPL_ESTIMATORS
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.perplexity_effects import text_windows
from levelhead.scoring.problem import SampledTexts, sample_texts
from levelhead.scoring.token_gradient import token_gradient
from levelhead.selection import select_heads
from levelhead.selection.rules import protected_heads
from levelhead.session import Session

pytestmark = pytest.mark.slow
AXIS = "gender_and_sex"
TOKENS = 2048


def _session(dtype: str, seed: int) -> Session:
    return Session(
        RunConfig(dtype=dtype, seed=seed, max_prompts=60, new_tokens=16, text_tokens=TOKENS)
    )


def _texts(seed: int) -> SampledTexts:
    return sample_texts(_session("float32", seed).problem(AXIS, "validation"), silent, "")


def _scored(dtype: str, seed: int, base: SampledTexts) -> ScoreTable:
    session = _session(dtype, seed)
    problem, model = session.problem(AXIS, "validation"), session.base.model
    bias = axis_effects(problem, base, token_gradient(problem, base, silent)).effect
    windows = text_windows(session.text_ids("validation"), model, TOKENS)
    ppl = PPL_ESTIMATORS["curvature"](model, windows, silent, seed, 0.3).effect
    return ScoreTable.of_effects({PPL: ppl, bias_metric(AXIS): bias})


@pytest.fixture(scope="module")
def tables() -> tuple[ScoreTable, ScoreTable, ScoreTable]:
    """float32; another seed; bfloat16 on the first one's texts."""
    fetch_embedded_model()
    first = _texts(0)
    return (
        _scored("float32", 0, first),
        _scored("float32", 1, _texts(1)),
        _scored("bfloat16", 0, first),
    )


@pytest.mark.parametrize("metric", [PPL, bias_metric(AXIS)])
def test_the_format_moves_effects_less_than_the_seed(tables, metric: str) -> None:
    first, seed, form = (table.effect(metric).ravel() for table in tables)
    of_format, of_seed = spearmanr(first, form).statistic, spearmanr(first, seed).statistic
    assert of_format > max(0.9, of_seed - 0.02)
    assert abs(spearmanr(first, np.roll(form, 97)).statistic) < 0.3, "control: other heads'"


@pytest.mark.parametrize(("gamma", "alpha"), [(0.3, 0.1), (0.7, 0.05)])
def test_the_format_changes_sets_no_more_than_the_seed(tables, gamma: float, alpha: float) -> None:
    first, seed, form = (
        set(select_heads(table, axis=AXIS, gamma=gamma, alpha=alpha).heads) for table in tables
    )
    assert len(first & form) >= len(first & seed)
    assert len(first & form) / len(first) > 0.6
    kept = [protected_heads(table, gamma) for table in tables]
    assert (kept[0] & kept[2]).sum() / kept[0].sum() > 0.9


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
