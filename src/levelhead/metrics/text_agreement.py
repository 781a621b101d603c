"""Do two scorers say the same of the same texts? Their order, and which side of a threshold.

Pure functions of scores in [0, 1]; texts of one template hang together, which the interval of the
correlation ignores: it is about these texts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from levelhead.metrics.attenuation import FEWEST_HEADS, rank_correlation

THRESHOLD = 0.5


def cohens_kappa(a: Bool[np.ndarray, " n"], b: Bool[np.ndarray, " n"]) -> float | None:
    """Agreement of two yes-or-no judgements beyond chance (Cohen, 1960): 1 full, 0 as by chance.

    None where chance alone makes both agree always: neither ever says yes, or neither ever no.
    """
    yes_a, yes_b = float(np.mean(a)), float(np.mean(b))
    chance = yes_a * yes_b + (1 - yes_a) * (1 - yes_b)
    if math.isclose(chance, 1):
        return None
    return (float(np.mean(a == b)) - chance) / (1 - chance)


def text_agreement(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """{"spearman": {"value", "ci95"} or None, "kappa": at 0.5, or None} of two scorers."""
    found = rank_correlation(a, b) if len(a) >= FEWEST_HEADS else None
    return {
        "spearman": None if found is None else found.to_json(),
        "kappa": cohens_kappa(a > THRESHOLD, b > THRESHOLD),
    }
