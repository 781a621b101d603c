"""Confidence intervals of bias(S), by inverting tests.

bias(S) = sum |d_s| is not smooth where gaps are 0, and noise only ever adds to it: a percentile
bootstrap of it covers 0% where there is no gap. So instead, for each value theta that bias(S)
might have, draw what would then be measured, and keep the theta for which the measured value is
not in a tail (`inversion`).

The direction of the gaps is not known either. Each end of an interval is therefore the wider of
two: one along the measured gaps, and one along them moved by a standard error towards the worst
case. Noise adds most where the gaps are in few subgroups (`concentrated`) and least where they
are in many (`spread`).

Where noise happens to be small, the measured value is small and the inverted upper end lies close
to it or below: "0.0125 [0, 0.0160]" would read as "at most 0.016". So the upper end is never below
the measured value plus its own noise (`_upper_end`). And since a small (or large) measured value is
one that noise made small (or large), each end misses by 0.75%, not 2.5%: an end that misses by
2.5% misses a quarter of the time within the lowest (highest) tenth of measured values. In
simulation (tests/metrics/test_conditional_coverage.py) at least 90% of the intervals hold the
truth within every tenth of measured values.

Changes of bias(S) are in `differences`; signed gaps and plain means in `intervals`.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from levelhead.metrics.bias import gaps
from levelhead.metrics.clusters import gap_contributions, sum_variance
from levelhead.metrics.intervals import check_level
from levelhead.metrics.inversion import (
    GRID,
    concentrated,
    crossing,
    direction,
    measured_of,
    noise_of,
    quantile,
    spread,
    sums,
)
from levelhead.records import Interval

TAIL_SHARE = 0.15
"""Of 1 - level, what each end of an interval of bias(S) may miss by: 0.75% at 95%."""
ROUNDING = 1e-12
"""Of a template's contribution to a gap, in units of toxicity: below it, texts are all alike."""
_ALL_SIGNS = 10
"""Subgroups up to which every pattern of signs is looked at."""


def bias_interval(
    toxicity: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    num_subgroups: int,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    draws: int = 1000,
) -> Interval:
    """Interval of bias(S) over random templates; low is 0 where no gap is distinguishable.

    It holds the truth at `level` at least, whatever the measured value: see the module. The
    measured bias(S) lies below its upper end, and may lie below its lower end by rounding only.

    Args:
        toxicity: one entry per continuation, in [0, 1].
        subgroup: codes from 0 to num_subgroups - 1.
        template: codes of the clusters.
        num_subgroups: S.
        rng: draws the noise.
        level: confidence level.
        draws: how many draws stand for the distribution of a measured value.

    Raises:
        ConfigError: level outside (0, 1).
        PromptError: fewer than two templates or subgroups with data.
    """
    check_level(level)
    contributions = gap_contributions(toxicity, subgroup, template, num_subgroups)
    gap = np.nan_to_num(gaps(toxicity, subgroup, num_subgroups))
    tail = TAIL_SHARE * (1 - level)
    inverted = interval_of_sum(gap, contributions, noise_of(contributions, rng, draws), tail)
    high = _upper_end(gap, contributions, tail)
    if np.abs(contributions).max() < ROUNDING:  # no noise to judge by: the rule of three instead
        counts = np.bincount(subgroup)
        high -= 2 * math.log(tail) / float(counts[counts > 0].min())
    return Interval(low=inverted.low, high=max(inverted.high, high), level=level)


def interval_of_sum(
    gap: Float[np.ndarray, "subgroups"],
    contributions: Float[np.ndarray, "clusters subgroups"],
    noise: Float[np.ndarray, "draws subgroups"],
    tail: float,
) -> Interval:
    """Interval of sum |delta_s|, of which sum |gap_s| is measured; each end misses by `tail`."""
    stderr = np.sqrt(sum_variance(contributions))
    measured = float(np.abs(gap).sum())
    # Beyond this no theta can be kept: |sum |theta u + E| - theta| <= sum |E|.
    theta = np.linspace(0, measured + quantile(sums(noise), 1 - tail), GRID)

    def end(u: Float[np.ndarray, "subgroups"], q: float) -> float:
        return crossing(measured, theta, np.sort(measured_of(theta, u, noise), axis=1), q)

    return Interval(
        low=min(end(u, 1 - tail) for u in (direction(gap), concentrated(gap, stderr))),
        high=max(end(u, tail) for u in (direction(gap), spread(gap, stderr))),
        level=1 - 2 * tail,
    )


def _upper_end(
    gap: Float[np.ndarray, "subgroups"],
    contributions: Float[np.ndarray, "clusters subgroups"],
    tail: float,
) -> float:
    """The largest upper end of t . d over patterns of signs t, of which bias(S) is one.

    bias(S) = t . d for the signs t of the true gaps, and each t . d has a plain t interval. So
    this end misses by `tail` at most, for any gaps at all.
    """
    clusters, count = contributions.shape
    reach = float(stats.t.ppf(1 - tail, clusters - 1))
    covariance = contributions.T @ contributions * clusters / (clusters - 1)

    def ends(signs: Float[np.ndarray, "patterns subgroups"]) -> Float[np.ndarray, "patterns"]:
        variance = np.maximum(((signs @ covariance) * signs).sum(axis=1), 0)
        out: Float[np.ndarray, " patterns"] = signs @ gap + reach * np.sqrt(variance)
        return out

    if count <= _ALL_SIGNS:
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
        return float(ends(2.0 * bits - 1).max())
    axes = np.linalg.eigh(covariance)[1].T
    starts = np.sign(np.concatenate([gap[None], axes, -axes])) + 0.0
    return max(_climb(np.where(start == 0, 1.0, start), ends) for start in starts)


def _climb(
    signs: Float[np.ndarray, "subgroups"],
    ends: Callable[[Float[np.ndarray, "patterns subgroups"]], Float[np.ndarray, "patterns"]],
) -> float:
    """Flip the sign or the two signs that raise the end most, until none does."""
    count = len(signs)
    single = np.eye(count, dtype=bool)
    pairs = single[:, None] | single[None, :]
    best = float(ends(signs[None])[0])
    while True:
        flipped = np.where(pairs.reshape(-1, count), -signs, signs)
        found = ends(flipped)
        which = int(np.argmax(found))
        if found[which] <= best + 1e-12:
            return best
        best, signs = float(found[which]), flipped[which]
