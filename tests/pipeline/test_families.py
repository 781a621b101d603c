"""Every family goes through the whole pipeline; what a family cannot is said before long work."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import levelhead
from levelhead.errors import ModelError
from levelhead.models.removed_heads import removed_heads
from levelhead.testing import (
    TINY_FAMILIES,
    TINY_VARIANTS,
    WHOLE_LAYER_FAMILIES,
    save_tiny_checkpoint,
)

QUICK = ("bloom", "gpt_oss")
PARAMETERS = [
    pytest.param(family, marks=() if family in QUICK else pytest.mark.slow)
    for family in (*TINY_FAMILIES, *TINY_VARIANTS)
]


@pytest.mark.parametrize("family", PARAMETERS)
def test_every_family_is_scored_and_pruned(
    family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = save_tiny_checkpoint(tmp_path / "model", family)
    out = tmp_path / "run"
    options = {**options, "samples": 1, "max_samples": 1}
    table = levelhead.score(str(model), out=out, **options)
    for metric in ("bias:gender", "ppl", "magnitude", "mask_gradient"):
        effect = table.effect(metric) if metric in ("bias:gender", "ppl") else table.grid(metric)
        assert effect.shape == (3, 6)
        assert np.isfinite(effect).all()
        assert effect.std() > 0, metric
    levelhead.select(out, alpha=0.2, gamma=0.2, allow_unreliable=True)
    pruned = levelhead.prune(out)
    assert sum(map(len, removed_heads(pruned).values())) == 3


@pytest.mark.parametrize("family", WHOLE_LAYER_FAMILIES)
def test_a_run_that_could_not_prune_does_not_start(
    family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = save_tiny_checkpoint(tmp_path / "model", family)
    with pytest.raises(ModelError, match=r"normalises the queries.* \(levelhead score\)"):
        levelhead.run(str(model), out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    levelhead.score(str(model), out=tmp_path / "run", **{**options, "samples": 1, "max_samples": 1})
    assert (tmp_path / "run" / "scores.csv").exists()
