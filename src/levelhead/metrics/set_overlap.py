"""Do two rankings choose the same heads? The share two sets of one size have in common.

Pure functions of sets; knows nothing of what ranked the heads or why they were chosen.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from levelhead.records import Estimate, Interval

Chosen = Bool[np.ndarray, "*more heads"]


def overlap(first: Chosen, second: Chosen) -> Float[np.ndarray, "*more"]:
    """Heads that are in both sets, as a share of the larger; 0 where both are empty."""
    most = np.maximum(np.maximum(first.sum(-1), second.sum(-1)), 1)
    out: Float[np.ndarray, "*more"] = (first & second).sum(-1) / most
    return out


def overlap_estimate(
    first: Bool[np.ndarray, " heads"],
    second: Bool[np.ndarray, " heads"],
    redrawn_first: Bool[np.ndarray, "draws heads"],
    redrawn_second: Bool[np.ndarray, "draws heads"],
    *,
    level: float = 0.95,
) -> Estimate:
    """The overlap of two sets, with the spread it has where the data are drawn anew.

    A set chosen from resampled data holds more noise than the set itself, so that resampled
    overlaps lie lower; their spread is moved onto the value, and cut at 0 and 1.

    Args:
        first: the heads one ranking chooses, of all heads.
        second: those the other chooses.
        redrawn_first: the same from data drawn anew.
        redrawn_second: from the same draws.
        level: share of draws inside the interval.
    """
    value = float(overlap(first, second))
    spread = overlap(redrawn_first, redrawn_second)
    ends = value + np.quantile(spread, [(1 - level) / 2, (1 + level) / 2]) - spread.mean()
    low, high = (float(end) for end in np.clip(ends, 0, 1))
    return Estimate(
        value=value, interval=Interval(min(low, value), max(high, value), level),
        stderr=float(spread.std(ddof=1)),
    )  # fmt: skip
