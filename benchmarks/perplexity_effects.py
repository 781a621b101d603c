"""Which estimator of z_ppl predicts exact ablation on held-out text, for equal CPU time?

Truth: exact ablation of every head on test text. Against it: `curvature` on 16,384 tokens of
validation text, and `exact` on as much validation text as takes about the same CPU time.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy import stats

from levelhead.config import RunConfig
from levelhead.progress import silent
from levelhead.scoring import PPL_ESTIMATORS
from levelhead.scoring.perplexity_effects import PerplexityEffects, text_windows
from levelhead.session import Session

GAMMA = 0.3
WINDOW = 256
"""Tokens per window, the same for all, so that all see heads that look as far back."""


def measure(quick: bool) -> dict[str, Any]:
    """Spearman and protected heads in common with the truth, and CPU seconds, of each."""
    session = Session(RunConfig())
    tokens = {"truth": 1024, "exact": 512, "curvature": 16_384}
    if quick:
        tokens = {"truth": 512, "exact": 512, "curvature": 4096}
    truth, truth_seconds = _timed(session, "exact", "test", tokens["truth"])
    found: dict[str, Any] = {
        "truth": {"tokens": tokens["truth"], "cpu_seconds": truth_seconds},
        "heads": truth.effect.size,
        "protected": int(GAMMA * truth.effect.size),
        "protected_by_chance": GAMMA * int(GAMMA * truth.effect.size),
    }
    for name in ("curvature", "exact"):
        effects, seconds = _timed(session, name, "validation", tokens[name])
        found[name] = {
            "tokens": tokens[name],
            "cpu_seconds": seconds,
            "spearman_with_truth": _spearman(effects.effect, truth.effect),
            "protected_in_common": len(_protected(effects.effect) & _protected(truth.effect)),
            **_halves(effects),
            "diagnostics": effects.diagnostics,
        }
    return found


def _timed(session: Session, name: str, split: Any, tokens: int) -> tuple[PerplexityEffects, float]:
    model = session.base.model
    windows = text_windows(session.text_ids(split), model, tokens, WINDOW)
    start = time.process_time()
    effects = PPL_ESTIMATORS[name](model, windows, silent, 0, GAMMA)
    return effects, time.process_time() - start


def _halves(effects: PerplexityEffects) -> dict[str, float]:
    """Agreement between the halves of the windows, each ranked on its own."""
    even, odd = effects.nll_change[::2].mean(0), effects.nll_change[1::2].mean(0)
    return {
        "split_half_spearman": _spearman(even, odd),
        "split_half_protected_in_common": len(_protected(-even) & _protected(-odd)),
    }


def _protected(effect: np.ndarray) -> set[int]:
    count = int(GAMMA * effect.size)
    return set(np.argsort(effect, axis=None, kind="stable")[:count].tolist())


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(stats.spearmanr(a.ravel(), b.ravel()).statistic)
