"""Do seeds agree? Correlation of their rankings, reliability of their mean, overlap of their sets.

Every pair of seeds is compared on the heads that both have. It knows nothing of why seeds differ:
seeds that share draws agree for no good reason, and a broken run can agree with itself.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from levelhead.diagnosis.by_seed import SeedScores
from levelhead.metrics.reliability import spearman_brown
from levelhead.records import Head, Interval
from levelhead.scores import PPL, ScoreTable, bias_metric, column, head_count
from levelhead.selection.rules import protected_heads, select_heads

FEWEST_HEADS = 3
"""Two rankings of fewer heads have no correlation to speak of."""
RESAMPLES = 1000
AT_ONCE = 2_000_000
"""Numbers held at once per array of the bootstrap."""
CHANCE_QUANTILE = 0.99
"""What pure noise reaches in one table of a hundred counts as chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far the rankings of independent seeds agree; correlations are of ranks, -1 to 1."""

    seeds: int
    spearman: float
    """Mean over pairs of seeds."""
    range: tuple[float, float]
    """Smallest and largest of the pairs."""
    interval: Interval
    """Of `spearman`: bootstrap over heads."""
    chance: float
    """What the mean over pairs stays below in 99% of tables of pure noise."""
    reliability: float
    """Expected correlation of the mean over these seeds with that of as many new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Pruned heads that two seeds have in common, as a share of the heads pruned."""

    share: float
    chance: float
    """What two sets drawn at random from the unprotected heads would have in common."""
    range: tuple[float, float]


def agreement(scores: SeedScores, rng: np.random.Generator) -> Agreement | None:
    """Agreement of the rankings by z_bias; None without two seeds that rank common heads.

    The generator is for the bootstrap only.
    """
    frame = pd.DataFrame(scores.bias.T)
    pairwise = frame.corr(method="spearman", min_periods=FEWEST_HEADS).to_numpy()
    upper = np.triu_indices(len(scores.seeds), 1)
    pairs = pairwise[upper]
    known = np.isfinite(pairs)
    if not known.any():
        return None
    mean = float(pairs[known].mean())
    present = np.isfinite(scores.bias).astype(float)
    common = (present @ present.T)[upper][known]
    count = len(scores.seeds)
    return Agreement(
        seeds=count,
        spearman=mean,
        range=(float(pairs[known].min()), float(pairs[known].max())),
        interval=_interval(frame, mean, rng),
        chance=chance_spearman(float(common.mean()), len(common)),
        reliability=spearman_brown(mean, count),
    )


def chance_spearman(heads: float, pairs: int) -> float:
    """What the mean correlation of `pairs` pairs of unrelated rankings reaches in 1 of 100 tables.

    A rank correlation of unrelated rankings has mean 0 and variance 1 / (n - 1), and those of the
    pairs of one table are uncorrelated.
    """
    z = float(stats.norm.ppf(CHANCE_QUANTILE))
    return min(1.0, z / float(np.sqrt(max(heads - 1, 1) * pairs)))


def _interval(frame: pd.DataFrame, mean: float, rng: np.random.Generator) -> Interval:
    """Bootstrap over heads, with the ranks of all heads kept, shifted onto the exact mean."""
    ranks = frame.rank().to_numpy().T
    present = np.isfinite(ranks)
    centred = np.where(present, ranks - np.nanmean(ranks, axis=1, keepdims=True), 0.0)
    heads = ranks.shape[1]
    at_once = _mean_correlation(centred, present, np.ones((1, heads)))[0]
    batch = max(1, AT_ONCE // ranks.size)
    resampled = [
        _mean_correlation(centred, present, rng.multinomial(heads, np.full(heads, 1 / heads), size))
        for size in (min(batch, RESAMPLES - done) for done in range(0, RESAMPLES, batch))
    ]
    low, high = np.nanquantile(np.concatenate(resampled), [0.025, 0.975]) + (mean - at_once)
    return Interval(float(np.clip(low, -1, mean)), float(np.clip(high, mean, 1)))


def _mean_correlation(
    ranks: Float[np.ndarray, "seeds heads"],
    present: Bool[np.ndarray, "seeds heads"],
    weights: Float[np.ndarray, "resamples heads"],
) -> Float[np.ndarray, " resamples"]:
    """Weighted Pearson correlation of each pair over its common heads, averaged; NaN if none."""
    there, weight = present.astype(float), weights[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        count = (there * weight) @ there.T
        mean = (ranks * weight) @ there.T / count
        square = (ranks**2 * weight) @ there.T / count - mean**2
        product = (ranks * weight) @ ranks.T / count - mean * mean.swapaxes(1, 2)
        every = product / np.sqrt(square * square.swapaxes(1, 2))
    first, second = np.triu_indices(len(ranks), 1)
    found = np.clip(every[:, first, second], -1, 1)
    known = np.isfinite(found)
    total: Float[np.ndarray, " resamples"] = np.where(known, found, 0.0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)


def set_overlap(scores: SeedScores, gamma: float, alpha: float) -> Overlap | None:
    """Overlap of the sets that FASP would prune by each seed's own bias and perplexity.

    Where seeds lack different heads, both choose among the heads they have in common: a head
    that one of them never scored is no disagreement. N of gamma N and alpha N is the number of
    those heads. None: no pair has enough heads to prune one.

    Raises:
        SelectionError: gamma and alpha that cannot be satisfied together.
    """
    present = np.isfinite(scores.bias)

    @functools.cache  # where no head lacks a seed, each seed chooses once
    def pruned(seed: int, common: bytes) -> tuple[set[Head], Bool[np.ndarray, " common"]]:
        return _pruned(scores, seed, np.frombuffer(common, dtype=bool), gamma, alpha)

    found = []
    for a, b in itertools.combinations(range(len(scores.seeds)), 2):
        common = present[a] & present[b]
        count = head_count(alpha, int(common.sum()))
        if count == 0:
            continue
        first, free = pruned(a, common.tobytes())
        second, also_free = pruned(b, common.tobytes())
        chance = count * (free & also_free).sum() / (free.sum() * also_free.sum())
        found.append((len(first & second) / count, float(chance)))
    if not found:
        return None
    shares = [share for share, _ in found]
    return Overlap(
        share=float(np.mean(shares)),
        chance=float(np.mean([chance for _, chance in found])),
        range=(min(shares), max(shares)),
    )


def _pruned(
    scores: SeedScores, seed: int, common: Bool[np.ndarray, " heads"], gamma: float, alpha: float
) -> tuple[set[Head], Bool[np.ndarray, " common"]]:
    """(heads pruned, heads that are not protected) among the common ones.

    They stand in one row of heads: selection depends on their order only, so that a table with
    gaps needs no layout.
    """
    columns = {
        column(PPL, "without"): scores.ppl[seed, common][None],
        column(bias_metric(scores.axis), "without"): scores.bias[seed, common][None],
    }
    table = ScoreTable.build(columns, 1, int(common.sum()))
    chosen = select_heads(table, axis=scores.axis, gamma=gamma, alpha=alpha)
    return set(chosen.heads), ~protected_heads(table, gamma)[0]
