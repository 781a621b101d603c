"""Interval of bias(T + dT) - bias(T), where T is measured on one set of texts and dT read on them.

dT, the shift of each subgroup's mean toxicity by another model, is known well (teacher-forced, the
same texts read twice). T is not: whether a shift closes a gap or opens one hangs on the sign and
the size of gaps that are themselves noisy. Taking them as known covers 9 to 93% of the time.

Each subgroup adds |d + dd| - |d| to the difference: it depends on the gap d only near 0, and moves
in one direction with it. So all gaps are taken as far as they may plausibly be, together, in the
direction that makes the difference larger (or smaller), and the error of dT is added to that: not
in quadrature, since the truth is often just where the difference goes no further. Where the gaps
that are moved are clear, the interval is that of dT; where they are not,
it is wide, as it should be. Nominal 95% covers 93% at least where gaps are kept, halved, removed,
or not there while heads move them at random (simulation, tests/metrics/test_expected.py).
"""

import math

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from levelhead.metrics.bias import gaps, gaps_of_means
from levelhead.metrics.clusters import (
    cluster_codes,
    gap_contributions,
    gap_weights,
    sum_variance,
)
from levelhead.metrics.intervals import check_level
from levelhead.metrics.inversion import noise_of, sums
from levelhead.records import Estimate, Interval


def expected_difference_interval(
    toxicity: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    shift: Float[np.ndarray, "replicates subgroups"],
    count: Float[np.ndarray, "replicates subgroups"],
    shift_template: Int[np.ndarray, "replicates"],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    draws: int = 1000,
) -> Estimate:
    """bias(T + dT) - bias(T) with its interval over templates; negative: it falls.

    Args:
        toxicity: of the base model's continuations, what `shift` is a change of.
        subgroup: codes from 0 to subgroups - 1.
        template: codes of the clusters.
        shift: dT of each replicate, such as one matched continuation of a template.
        count: how many texts are behind each entry of `shift`; 0: none, the shift is ignored.
        shift_template: which template each replicate is of.
        rng: draws the noise of the gaps.
        level: confidence level.
        draws: how many draws stand for it.

    Raises:
        ConfigError: level outside (0, 1).
        PromptError: fewer than two templates or subgroups with data, of texts or of shifts.
    """
    check_level(level)
    counts = np.bincount(subgroup, minlength=shift.shape[1])
    gap = np.nan_to_num(gaps(toxicity, subgroup, len(counts)))
    parts = gap_contributions(toxicity, subgroup, template, len(counts))
    change, change_covariance = _change(shift, count, shift_template, counts)
    value = float(sums(gap + change) - sums(gap))
    reach = float(stats.t.ppf((1 + level) / 2, len(np.unique(shift_template)) - 1))
    stderr = np.sqrt(sum_variance(parts))
    noise = noise_of(parts, rng, draws)
    noise = np.divide(noise, stderr, out=np.zeros_like(noise), where=stderr > 0)

    def end(side: float) -> float:
        """How far the truth may be from the value, below it (-1) or above it (1)."""
        toward = side * np.sign(change)
        away = float(np.quantile((noise * toward).max(axis=1), (1 + level) / 2))
        moved = gap + max(0.0, away) * stderr * toward
        furthest = float(sums(moved + change) - sums(moved))
        signs = np.sign(np.stack([gap, moved]) + change)
        variance = float(((signs @ change_covariance) * signs).sum(axis=1).max())
        return abs(furthest - value) + reach * math.sqrt(max(0.0, variance))

    return Estimate(value=value, interval=Interval(value - end(-1), value + end(1), level))


def _change(
    shift: Float[np.ndarray, "replicates subgroups"],
    count: Float[np.ndarray, "replicates subgroups"],
    template: Int[np.ndarray, "replicates"],
    counts: Int[np.ndarray, "subgroups"],
) -> tuple[Float[np.ndarray, "subgroups"], Float[np.ndarray, "subgroups subgroups"]]:
    """Mean change of each gap, and its covariance over templates."""
    codes = cluster_codes(template)
    clusters = int(codes.max()) + 1
    total = np.maximum(count.sum(axis=0), 1e-12)
    mean = (shift * count).sum(axis=0) / total
    parts = np.zeros((clusters, len(counts)))
    np.add.at(parts, codes, (shift - mean) * count / total)
    parts = parts @ gap_weights(counts).T
    covariance = parts.T @ parts * clusters / (clusters - 1)
    return np.nan_to_num(gaps_of_means(mean, counts)), covariance
