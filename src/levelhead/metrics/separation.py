"""How well a score separates two kinds of texts: the area under the ROC curve, with its interval.

Pure functions of two lists of scores; one entry per independent text. Knows no scorers.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy import stats

from levelhead.metrics.intervals import check_level
from levelhead.records import Estimate, Interval

_HALVINGS = 60


def auc(
    high: Float[np.ndarray, "m"], low: Float[np.ndarray, "n"], *, level: float = 0.95
) -> Estimate:
    """How often a text of the first kind scores above one of the second, ties by halves.

    0.5: they cannot be told apart; 1: every one above every other. The interval inverts a score
    test with the variance of Hanley and McNeil (1982), as Newcombe recommends (2006, method 5):
    it is not empty where the separation is perfect.

    Args:
        high: scores of the kind that should score high.
        low: scores of the other.
        level: confidence level, over texts of both kinds.

    Raises:
        ConfigError: level outside (0, 1).
        ValueError: no text of one kind.
    """
    check_level(level)
    if not (len(high) and len(low)):
        raise ValueError("the area under the curve needs a text of each kind")
    above = (high[:, None] > low).mean() + (high[:, None] == low).mean() / 2
    value = float(above)
    z = float(stats.norm.ppf((1 + level) / 2))
    ends = (
        _end(value, 0.0, z, len(high), len(low)),
        _end(value, 1.0, z, len(high), len(low)),
    )
    return Estimate(value=value, interval=Interval(*ends, level))


def _end(value: float, far: float, z: float, m: int, n: int) -> float:
    """The true area between `value` and `far` that is z standard errors from `value`."""
    near = value
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        if abs(value - middle) <= z * _stderr(middle, m, n):
            near = middle
        else:
            far = middle
    return near


def _stderr(area: float, m: int, n: int) -> float:
    """Of an estimated area, at a true one; both kinds counted by their mean (Newcombe's N*)."""
    more = (m + n) / 2 - 1
    spread = (1 - area) / (2 - area) + area / (1 + area)
    return math.sqrt(area * (1 - area) * (1 + more * spread) / (m * n))


def mean_difference(
    high: Float[np.ndarray, "m"], low: Float[np.ndarray, "n"], *, level: float = 0.95
) -> Estimate:
    """Mean of the first kind minus mean of the second, with Welch's t interval.

    Raises:
        ConfigError: level outside (0, 1).
        ValueError: fewer than two texts of one kind.
    """
    check_level(level)
    if min(len(high), len(low)) < 2:
        raise ValueError("a difference of means needs two texts of each kind")
    value = float(high.mean() - low.mean())
    parts = [float(x.var(ddof=1)) / len(x) for x in (high, low)]
    variance = sum(parts)
    stderr = math.sqrt(variance)
    half = 0.0
    if variance > 0:
        sizes = (len(high), len(low))
        freedom = variance**2 / sum(p**2 / (k - 1) for p, k in zip(parts, sizes, strict=True))
        half = float(stats.t.ppf((1 + level) / 2, freedom)) * stderr
    return Estimate(
        value=value, stderr=stderr, interval=Interval(value - half, value + half, level)
    )
