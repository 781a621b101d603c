"""Do seeds agree? Correlation of their rankings, and the reliability of their mean.

Every pair of seeds is compared on the heads that both have. It knows nothing of why seeds differ:
seeds that share draws agree for no good reason, and a broken run can agree with itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from levelhead.diagnosis.by_seed import SeedScores
from levelhead.diagnosis.repetition import correlation_estimate, pair_means, reliability_estimate
from levelhead.records import Estimate

CHANCE_QUANTILE = 0.99
"""What pure noise reaches in one table of a hundred counts as chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far the rankings of independent seeds agree; correlations are of ranks, -1 to 1.

    A reliability is the expected correlation of the mean over these seeds with that of as many
    new ones, -1 to 1, and the share of the variance of that mean which is no noise.
    """

    seeds: int
    heads: float
    """How many two seeds have in common, mean over pairs."""
    spearman: Estimate
    """Of bias, mean over pairs of seeds."""
    range: tuple[float, float]
    """Smallest and largest of the pairs."""
    chance: float
    """What the mean over pairs stays below in 99% of tables of pure noise."""
    reliability: Estimate
    """Of the ranking by z_bias."""
    toxicity: Estimate | None
    """Of the ranking by mean toxicity; None: it is the same for every head."""
    without_toxicity: Estimate
    """Of what is left of the ranks of bias after a regression on the ranks of the own seed's mean
    toxicity."""
    without_toxicity_corrected: Estimate
    """The same for a mean toxicity without noise."""


def agreement(scores: SeedScores) -> Agreement | None:
    """Agreement of the rankings by z_bias; None without two seeds that rank common heads."""
    means = pair_means(scores)
    if means is None:
        return None
    count = len(scores.seeds)
    heads = means.heads
    return Agreement(
        seeds=count,
        heads=heads,
        spearman=correlation_estimate(means.bias, count, heads),
        range=(min(means.bias_pairs), max(means.bias_pairs)),
        chance=chance_spearman(heads, len(means.bias_pairs)),
        reliability=reliability_estimate(means.bias, count, heads),
        toxicity=None
        if means.toxicity is None
        else reliability_estimate(means.toxicity, count, heads),
        without_toxicity=reliability_estimate(means.own_residual, count, heads),
        without_toxicity_corrected=reliability_estimate(means.corrected_residual, count, heads),
    )


def chance_spearman(heads: float, pairs: int) -> float:
    """What the mean correlation of `pairs` pairs of unrelated rankings reaches in 1 of 100 tables.

    A rank correlation of unrelated rankings has mean 0 and variance 1 / (n - 1), and those of the
    pairs of one table are uncorrelated.
    """
    z = float(stats.norm.ppf(CHANCE_QUANTILE))
    return min(1.0, z / float(np.sqrt(max(heads - 1, 1) * pairs)))
