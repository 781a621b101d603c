"""Do two rankings of heads agree? Spearman correlation with an interval, corrected for noise.

Two noisy rankings correlate less than what they measure does. Spearman (1904): the correlation of
what is measured is r / sqrt(reliability_a reliability_b). Exact for linear correlation, close for
ranks: in simulation within 0.04 where reliabilities are above 0.6; with a few large effects
among many small ones and reliabilities near 0.3, up to a tenth too small.

Heads of one model are the units: intervals say what other heads of the same kind would give, and
take errors of different heads as independent. Two ways to correct:

- `corrected_correlation`, from the reliabilities. It assumes that the ERRORS of the two effects
  are uncorrelated. Effects from the same prompts and continuations have errors in common; what
  these add to the correlation is divided up too, so that the result is too large (in size).
- `cross_half_correlation`, from halves of one run that were made ALIKE: half 1 of both effects
  holds the same templates. It correlates half 1 of one with half 2 of the other, which share
  nothing, so errors in common do no harm. Halves of a run's axes or of perplexity are not made
  alike (each draws its own), and then this gains nothing: on average over random halves the
  errors in common are in the cross pairs as they are in the whole. Measures of the same prompts
  (same axis and seed) are halved alike.

It knows neither how effects nor how halves were made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from levelhead.errors import ConfigError
from levelhead.metrics.reliability import spearman_brown
from levelhead.records import Estimate, Interval

FEWEST_HEADS = 10
"""Rankings of fewer heads have no interval worth stating."""
MIN_TO_CORRECT = 0.3
"""Below this reliability nothing is corrected: it is itself known to about 0.1 only, and the
correction would multiply noise by more than three."""

Effects = Float[np.ndarray, "*heads"]
Halves = Float[np.ndarray, "splits 2 *heads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """A correlation freed of the noise of both rankings, -1 to 1."""

    estimate: Estimate
    """Clipped to [-1, 1], as are the ends of its interval."""
    raw: float
    """The value before clipping; far beyond 1: the reliabilities are too low or errors shared."""

    def to_json(self) -> dict[str, Any]:
        """{"value", "ci95", "raw"}."""
        return {**self.estimate.to_json(), "raw": self.raw}


def rank_correlation(a: Effects, b: Effects) -> Estimate | None:
    """Spearman correlation of two effects over heads, -1 to 1, with a 95% interval.

    Fisher's z with the standard error that the heads themselves show (the influence of each head
    on the correlation, ranks included), t quantile. Covers 93 to 96% in simulation at 72 to 270
    heads, for normal and for heavy-tailed dependence; the formula of Bonett and Wright (2000)
    falls to 87% with the latter.

    Args:
        a: effects of one kind, a number per head, in any shape.
        b: effects of the other kind on the same heads.

    Returns:
        None where an effect is the same for every head: it ranks nothing.

    Raises:
        ConfigError: arrays of different shapes, fewer than `FEWEST_HEADS` heads.
    """
    first, second = _checked(a, b)
    if not (np.ptp(first) and np.ptp(second)):
        return None
    return _fisher(*_spearman(first, second))


def corrected_correlation(
    found: Estimate,
    reliability_a: float | None,
    reliability_b: float | None,
    *,
    heads: int,
    parts: int = 2,
    least: float = MIN_TO_CORRECT,
) -> Corrected | None:
    """A rank correlation divided by sqrt(reliability_a reliability_b), for uncorrelated errors.

    The interval's ends are divided too, and widened by the error of the reliabilities (Zou 2007),
    each of which rests on as many heads. It covers 92 to 100% in simulation.

    Args:
        found: `rank_correlation` of the two effects.
        reliability_a: of the first effect, stepped up to the whole (Spearman and Brown), at most 1.
        reliability_b: of the second.
        heads: how many heads were ranked.
        parts: how many replicates the reliabilities come from (halves: 2).
        least: smallest reliability that is corrected for.

    Returns:
        None where a reliability is unknown or below `least`.
    """
    if reliability_a is None or reliability_b is None:
        return None
    if not min(reliability_a, reliability_b) >= least:
        return None
    errors = [_relative_error(r, heads, parts) for r in (reliability_a, reliability_b)]
    return _divided(found, reliability_a * reliability_b, errors, heads)


def cross_half_correlation(
    a: Halves, b: Halves, *, least: float = MIN_TO_CORRECT
) -> Corrected | None:
    """Correlation of what two effects measure, from halves that were made alike.

        mean of r(a1, b2), r(a2, b1)  /  sqrt(r(a1, a2) r(b1, b2)),   each averaged over splits

    The interval is as that of `corrected_correlation`; it covers 92 to 100% in simulation.

    Args:
        a: effects from both halves of each split; half 1 of split i holds the same data (such as
            templates) as half 1 of split i of `b`, and half 2 none of it.
        b: the other effect.
        least: smallest reliability of the whole that is corrected for.

    Returns:
        None where a half ranks nothing or a reliability is below `least`.

    Raises:
        ConfigError: arrays of different shapes, fewer than `FEWEST_HEADS` heads.
    """
    if a.shape != b.shape or a.ndim < 3 or a.shape[1] != 2:
        raise ConfigError(f"halves of shapes {a.shape} and {b.shape}: expected [splits, 2, ...]")
    first, second = a.reshape(*a.shape[:2], -1), b.reshape(*b.shape[:2], -1)
    _checked(first[0, 0], second[0, 0])
    if not np.ptp(np.stack([first, second]), axis=-1).all():
        return None
    cross = [_spearman(x[i], y[1 - i]) for x, y in zip(first, second, strict=True) for i in (0, 1)]
    both = [[_spearman(x[0], x[1]) for x in halves] for halves in (first, second)]
    (top, slope), *own = [
        (float(np.mean([r for r, _ in found])), np.mean([i for _, i in found], axis=0))
        for found in (cross, *both)
    ]
    if not min(spearman_brown(r, 2) for r, _ in own) >= least:
        return None
    between = _fisher(top, slope)
    errors = [_stderr(influence) / r for r, influence in own]
    return _divided(between, own[0][0] * own[1][0], errors, first.shape[-1])


def difference_of(a: Estimate, b: Estimate) -> Estimate:
    """a - b for two correlations over different heads, with a 95% interval (Zou 2007).

    For the same heads twice it is too wide where the correlations rise and fall together.
    """
    value = a.value - b.value
    below = math.hypot(a.value - a.interval.low, b.interval.high - b.value)
    above = math.hypot(a.interval.high - a.value, b.value - b.interval.low)
    return Estimate(value=value, interval=Interval(value - below, value + above))


def half_reliability(halves: Halves) -> float:
    """Reliability of the whole from halves of it: their mean correlation, stepped up.

    0 counts where a half ranks nothing.
    """
    rows = halves.reshape(len(halves), 2, -1)
    found = [_spearman(x, y)[0] if np.ptp(x) and np.ptp(y) else 0.0 for x, y in rows]
    return spearman_brown(float(np.mean(found)), 2)


def _checked(a: Effects, b: Effects) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    if a.shape != b.shape:
        raise ConfigError(f"effects of {a.shape} and {b.shape} heads: not of the same heads")
    if a.size < FEWEST_HEADS:
        raise ConfigError(f"{a.size} heads are too few to correlate; {FEWEST_HEADS} are needed")
    return a.reshape(-1).astype(float), b.reshape(-1).astype(float)


def _spearman(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, " n"]]:
    """(correlation of mid-ranks, influence of every head on it: mean 0)."""
    count = len(a)
    u, v = ((stats.rankdata(x) - (count + 1) / 2) / count for x in (a, b))
    product, square_u, square_v = (float((x * y).mean()) for x, y in ((u, v), (u, u), (v, v)))
    size = math.sqrt(square_u * square_v)
    value = float(np.clip(product / size, -1, 1))
    # A head counts by its own ranks, and by moving the ranks of the heads above it.
    of_product = u * v + _sum_above(u, v) + _sum_above(v, u) - 3 * product
    of_u = u * u + 2 * _sum_above(u, u) - 3 * square_u
    of_v = v * v + 2 * _sum_above(v, v) - 3 * square_v
    return value, of_product / size - value / 2 * (of_u / square_u + of_v / square_v)


def _sum_above(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """For each i, sum of y_j / n over the j with x_j > x_i, those with x_j = x_i half."""
    order = np.argsort(x)
    ordered = x[order]
    total = np.concatenate([[0.0], np.cumsum(y[order])])
    before = total[np.searchsorted(ordered, x, side="left")]
    upto = total[np.searchsorted(ordered, x, side="right")]
    out: Float[np.ndarray, " n"] = (total[-1] - (before + upto) / 2) / len(x)
    return out


def _stderr(influence: Float[np.ndarray, " n"]) -> float:
    return float(influence.std(ddof=1)) / math.sqrt(len(influence))


def _quantile(heads: int) -> float:
    return float(stats.t.ppf(0.975, heads - 2))


def _relative_error(reliability: float, heads: int, parts: int) -> float:
    """Standard error of a reliability as a share of it, for replicates over as many heads.

    Bonett and Wright's error of the correlation of two replicates, carried through Spearman and
    Brown's formula.
    """
    between = reliability / (parts - (parts - 1) * reliability)
    error = (1 - between**2) * math.sqrt((1 + between**2 / 2) / max(1, heads - 3))
    slope = parts / (1 + (parts - 1) * between) ** 2
    return slope * error / reliability


def _fisher(value: float, influence: Float[np.ndarray, " n"]) -> Estimate:
    """A t interval on Fisher's scale, by the influence of every head."""
    stderr = _stderr(influence)
    if abs(value) >= 1 - 1e-12:
        return Estimate(value=value, stderr=0.0, interval=Interval(value, value))
    reach = _quantile(len(influence)) * stderr / (1 - value**2)
    low, high = (math.tanh(math.atanh(value) + side * reach) for side in (-1, 1))
    return Estimate(value=value, stderr=stderr, interval=Interval(low, high))


def _divided(found: Estimate, product: float, errors: Sequence[float], heads: int) -> Corrected:
    """A correlation over sqrt(product), its interval widened by relative errors of the factors.

    The method of variance estimates recovery (Zou 2007): squared distances to the ends add up.
    """
    scale = 1 / math.sqrt(product)
    value = found.value * scale
    more = _quantile(heads) * abs(value) * math.hypot(*errors) / 2
    low = value - math.hypot((found.value - found.interval.low) * scale, more)
    high = value + math.hypot((found.interval.high - found.value) * scale, more)
    inside, *ends = (float(np.clip(x, -1, 1)) for x in (value, low, high))
    return Corrected(estimate=Estimate(value=inside, interval=Interval(*ends)), raw=value)
