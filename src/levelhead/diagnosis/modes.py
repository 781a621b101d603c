"""Was it one run? Mean toxicity along the heads of a seed that falls in two modes, or drifts.

Removing one of hundreds of heads moves the mean toxicity of an axis little, so over heads it has
one mode with perhaps a few outliers. Two well separated modes mean that two procedures were
mixed (another batch, precision or prompt list), as in the published table of GPT-Neo-1.3B: 0.14
or 0.53, switching in runs of head ids. These functions see numbers in the order of head ids; they
know neither which mode is right nor what changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from levelhead.diagnosis.by_seed import SeedScores
from levelhead.records import Head

FEWEST_HEADS = 20
"""With fewer, a gap in the values is nothing unusual."""
SMALLEST_MODE = 0.1
"""A mode has at least this share of the heads (and five of them); fewer are outliers."""
STRAYS = 0.02
"""Share of heads on either side of the gap that may stand in it."""
SEPARATION = 4.0
"""Least width of the gap, in standard deviations of the wider mode."""
DRIFT = 0.5
"""Least lag-1 rank correlation: what changes slowly has at least the variance of what does not."""
DRIFT_OF_DIFFERENCE = 1 / 3
"""The same for the difference of two seeds, which has the noise of both."""
DRIFT_Z = 4.0
"""And at least so many standard errors above what a random order gives."""
NORMAL_80 = 2 * float(stats.norm.ppf(0.9))
"""Width of the middle 80% of a normal distribution, in standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """Two modes of one seed's mean toxicity, each at its median."""

    low: float
    high: float
    heads_low: int
    heads_high: int
    switches: int
    """How often the mode changes from a head to the next."""
    switches_by_chance: float
    """How often it would in a random order of heads."""
    first_switch: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Mean toxicity of one seed that moves slowly along head ids, as no other seed's does."""

    correlation: float
    """Lag-1 rank correlation along head ids."""
    before: float
    after: float
    """Medians before and after the clearest change."""
    change: Head
    """The first head after it."""


def modes(values: Float[np.ndarray, " heads"], heads: list[Head]) -> Modes | None:
    """Two well separated modes of the values, which stand in the order of heads; None: one.

    The values are split at their widest gap, measured in units of the wider side's spread (its
    middle 80%, so that outliers within a side do not hide the gap). The gap leaves out 2% of the
    heads on either side, so that some stray heads do not fill it. A width needs no shape: clean
    seeds were simulated as normal, uniform, exponential, log-normal and t with 3 degrees of
    freedom, with layers that differ and with 3% outliers, 4,000 of each. With 20 heads at most
    0.2% of them gave a false alarm, with 72 or more none did. Halves of ONE normal distribution
    pass Ashman's D > 2. Two normal modes are found from about 8 of their standard deviations on;
    GPT-Neo-1.3B's are 70 apart.
    """
    n = len(values)
    fewest = max(5, int(np.ceil(SMALLEST_MODE * n)))
    if n < FEWEST_HEADS:
        return None
    ordered = np.sort(values)
    strays = int(STRAYS * n)
    split = np.arange(fewest, n - fewest + 1)  # heads on the lower side
    gap = ordered[split + strays] - ordered[split - 1 - strays]
    spread = np.maximum(_spread(ordered, 0 * split, split), _spread(ordered, split, 0 * split + n))
    separation = gap / np.maximum(spread, _resolution(values))
    best = int(np.argmax(separation))
    if separation[best] < SEPARATION:
        return None
    low, high = ordered[: split[best]], ordered[split[best] :]
    is_high = values >= (np.median(low) + np.median(high)) / 2
    switch = np.flatnonzero(np.diff(is_high)) + 1
    in_high = int(is_high.sum())
    return Modes(
        low=float(np.median(low)),
        high=float(np.median(high)),
        heads_low=n - in_high,
        heads_high=in_high,
        switches=len(switch),
        switches_by_chance=2 * in_high * (n - in_high) / n,
        first_switch=heads[switch[0]],
    )


def in_high_mode(scores: SeedScores, found: dict[int, Modes]) -> Bool[np.ndarray, "seeds heads"]:
    """Which heads stand in the high mode of their seed, where some seed has two modes.

    A seed's heads are divided half way between its two modes; a seed with one mode, half way
    between the modes of the others. A head that lacks a seed stands in neither.

    Args:
        scores: the seeds.
        found: by seed, what `modes` found; not empty.
    """
    middle = {seed: (m.low + m.high) / 2 for seed, m in found.items()}
    others = float(np.mean(list(middle.values())))
    cut = np.array([middle.get(seed, others) for seed in scores.seeds])
    high: Bool[np.ndarray, "seeds heads"] = scores.mean_toxicity >= cut[:, None]
    return high


def _spread(
    ordered: Float[np.ndarray, " n"],
    start: np.ndarray[tuple[int], np.dtype[np.int64]],
    stop: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> Float[np.ndarray, " splits"]:
    """Standard deviation of each ordered[start:stop], from its middle 80%."""
    places = np.arange(len(ordered))
    low, high = (np.interp(start + q * (stop - start - 1), places, ordered) for q in (0.1, 0.9))
    spread: Float[np.ndarray, " splits"] = (high - low) / NORMAL_80
    return spread


def _resolution(values: Float[np.ndarray, " heads"]) -> float:
    """The last decimal place in use: values rounded to 0.11 and 0.12 are not two modes."""
    for digits in range(16):
        if np.allclose(values, np.round(values, digits), rtol=0, atol=1e-12):
            return float(10.0**-digits)
    return 1e-16


def drift(scores: SeedScores) -> dict[int, Drift]:
    """Seeds whose mean toxicity moves slowly along head ids.

    Layers differ, so neighbours may resemble each other in a clean run too; but layers are the
    same in every seed. So it is drift only where the lag-1 rank correlation is large both in the
    seed itself and in its difference from EVERY other seed. With one seed, structure and drift
    cannot be told apart; the same drift in all seeds is not seen. Large: what moves slowly has at
    least the variance of what does not (a correlation of 0.5, of 1/3 for differences), and it is
    4 standard errors above a random order, where its variance is 1 / n.
    """
    found = {}
    for i, seed in enumerate(scores.seeds):
        own = scores.mean_toxicity[i]
        others = np.delete(scores.mean_toxicity, i, axis=0)
        series = [s[np.isfinite(s)] for s in (own, *(own - others))]
        if min(map(len, series)) < FEWEST_HEADS:
            continue
        correlations = [_lag_1(s) for s in series]
        least = [DRIFT, *[DRIFT_OF_DIFFERENCE] * len(others)]
        if all(
            value >= max(limit, DRIFT_Z / np.sqrt(len(s)))
            for value, limit, s in zip(correlations, least, series, strict=True)
        ):
            found[seed] = _change(own, scores.heads, correlations[0])
    return found


def _lag_1(values: Float[np.ndarray, " heads"]) -> float:
    """Correlation of the ranks of neighbours; 0 where all values are one."""
    if np.ptp(values) == 0:
        return 0.0
    ranks = stats.rankdata(values)
    ranks -= ranks.mean()
    return float((ranks[1:] * ranks[:-1]).sum() / (ranks**2).sum())


def _change(own: Float[np.ndarray, " heads"], heads: tuple[Head, ...], correlation: float) -> Drift:
    """Where the cumulative sum of ranks turns: the change point of a single step."""
    there = np.flatnonzero(np.isfinite(own))
    values = own[there]
    ranks = stats.rankdata(values)
    place = int(np.argmax(np.abs(np.cumsum(ranks - ranks.mean())[:-1]))) + 1
    return Drift(
        correlation=correlation,
        before=float(np.median(values[:place])),
        after=float(np.median(values[place:])),
        change=heads[there[place]],
    )
