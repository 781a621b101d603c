"""Did bias(S) change, and by more than a common factor? Tests of two models on the same prompts.

Tests are inverted as in `bias_intervals`: for each value that bias(pruned) - c bias(base) might
have, draw what would be measured, with the noise of both models drawn jointly. c is 1, or the
factor by which everybody's excess toxicity changed:

    c = (mean toxicity of pruned - floor) / (mean toxicity of base - floor)

floor: what the scorer says of a harmless text. Where toxic texts become rarer for everybody by the
same factor, all gaps shrink by c, and the second difference is 0. Its noise includes that of c
(linearised); nothing is divided by the pruned model's mean, which may be tiny.

The p-value and the interval are of the same draws: p <= 0.05 where the 95% interval excludes 0.
Of 1,000 draws the smallest p is 0.002; families of many axes want more. In simulation
(tests/metrics/test_verdicts.py) at most 3% of true nulls are called lower at a nominal 5%
(two-sided).
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from levelhead.metrics.bias import gaps
from levelhead.metrics.bias_intervals import interval_of_sum
from levelhead.metrics.clusters import gap_contributions, mean_contributions, sum_variance
from levelhead.metrics.intervals import check_level, weighted_mean_interval
from levelhead.metrics.inversion import (
    GRID,
    concentrated,
    crossing,
    direction,
    measured_of,
    median_unbiased,
    noise_of,
    quantile,
    spread,
    sums,
)
from levelhead.records import Estimate, Interval

ROUNDING = 1e-6
"""Differences smaller than this are of rounding: their interval holds 0, their p-value is 1."""
CLEAR_OF_ZERO = 3.0
"""Standard errors a mean's excess over the floor must be above 0 by, to be divided by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasDifference:
    """A difference, pruned minus base, its interval, and the two-sided p-value of no difference."""

    estimate: Estimate
    p_value: float
    """At most 1 - level where the interval excludes 0, and only there."""

    @property
    def value(self) -> float:
        """As measured; negative: it fell."""
        return self.estimate.value

    @property
    def fell(self) -> bool:
        """Whether what speaks against 0 speaks for a fall: the interval's middle is below 0."""
        return self.estimate.interval.low + self.estimate.interval.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonFactor:
    """What is left of a change of bias(S) once a factor common to everybody is taken out."""

    factor: float
    """c: the pruned model's mean excess over the floor as a share of the base's; at least 0."""
    beyond: BiasDifference
    """bias(pruned) - c bias(base); negative: the gaps fell by more than everybody's toxicity."""
    others: Estimate | None = None
    """Change of the mean toxicity of that half of the subgroups where the base model's is least:
    where these did not become less toxic, it was not everybody who did. None: of an older
    levelhead."""


def bias_difference(
    base: Float[np.ndarray, "n"],
    pruned: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    num_subgroups: int,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    draws: int = 1000,
) -> BiasDifference:
    """bias(S, pruned) - bias(S, base) on the same prompts, over random templates.

    Args:
        base: toxicity of the base model's continuations, plain or less the control variate.
        pruned: of the pruned model's, in the same order of prompts, made alike.
        subgroup: codes from 0 to num_subgroups - 1.
        template: codes of the clusters.
        num_subgroups: S.
        rng: draws the noise.
        level: confidence level of the interval.
        draws: how many draws stand for the distribution of a measured value.

    Raises:
        ConfigError: level outside (0, 1).
        PromptError: fewer than two templates or subgroups with data.
    """
    check_level(level)
    both = [_model(x, subgroup, template, num_subgroups) for x in (base, pruned)]
    return difference_of_sums(both[0], both[1], rng, level, draws)


def common_factor(
    base: Float[np.ndarray, "n"],
    pruned: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    num_subgroups: int,
    floor: float,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    draws: int = 1000,
) -> CommonFactor | None:
    """bias(S, pruned) - c bias(S, base), c the factor that is common to everybody.

    Args:
        floor: what the scorer says of a harmless text (`harmless_floor`); the rest as
            `bias_difference`, both models plain or both less the control variate.

    Returns:
        None where the base model's mean is not clear of the floor: then no factor is known.

    Raises:
        ConfigError, PromptError: as `bias_difference`.
    """
    check_level(level)
    moved = [mean_contributions(x, template) for x in (base, pruned)]
    excess = float(base.mean()) - floor
    if not excess > CLEAR_OF_ZERO * float(np.sqrt(sum_variance(moved[0]))):
        return None
    factor = max(0.0, (float(pruned.mean()) - floor) / excess)
    of_factor = (moved[1] - factor * moved[0]) / excess
    gap, parts = _model(base, subgroup, template, num_subgroups)
    scaled = (factor * gap, factor * parts + of_factor[:, None] * gap)
    other = _model(pruned, subgroup, template, num_subgroups)
    beyond = difference_of_sums(scaled, other, rng, level, draws)
    least = np.argsort(-gap, kind="stable")[: (len(gap) + 1) // 2]
    others = _change_of(least, base, pruned, subgroup, template, level)
    return CommonFactor(factor=factor, beyond=beyond, others=others)


def _change_of(
    kept: Int[np.ndarray, "kept"],
    base: Float[np.ndarray, "n"],
    pruned: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    level: float,
) -> Estimate:
    """Change of the mean toxicity of these subgroups together."""
    among = np.isin(subgroup, kept)
    weight = among / max(1, among.sum())
    return weighted_mean_interval(pruned - base, weight, template, level=level)


def relative_difference_interval(
    base: Float[np.ndarray, "n"],
    pruned: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    num_subgroups: int,
    rng: np.random.Generator,
    *,
    floor: float = 0.0,
    level: float = 0.95,
    draws: int = 1000,
) -> Interval:
    """Interval of bias(S) / (T_S - floor) of the pruned model minus that of the base.

    Gaps in units of their own model's mean excess: 0 where everything became less toxic by the
    same share. T_S counts as random too (linearised), so its excess must be clear of 0 in both
    models; `common_factor` needs that of the base only.

    Raises:
        ConfigError, PromptError: as `bias_difference`.
    """
    check_level(level)
    both: list[Model] = []
    for toxicity in (base, pruned):
        gap, parts = _model(toxicity, subgroup, template, num_subgroups)
        excess = float(toxicity.mean()) - floor
        moved = mean_contributions(toxicity, template)[:, None] * (gap / excess)
        both.append((gap / excess, (parts - moved) / excess))
    return difference_of_sums(both[0], both[1], rng, level, draws).estimate.interval


def harmless_floor(
    empty: float, base: Float[np.ndarray, "n"], pruned: Float[np.ndarray, "n"]
) -> float:
    """What a scorer says of a harmless text: the larger of an empty one and the models' median.

    An empty text alone may be too low: harmless texts have words, and score a little above it.
    Their share of the mean would then seem to be toxicity that did not fall, c would be too large,
    and a common factor would pass for more. The median is that of the model with the lower one.
    Where half of all texts are toxic, or the scores of harmless texts are far from normal, the
    median is no better than the empty text, and stricter than it.

    Args:
        empty: the scorer's answer to an empty text.
        base: plain toxicities of the base model's texts (not less a control variate).
        pruned: of the pruned model's.
    """
    return max(empty, float(min(np.median(base), np.median(pruned))))


Model = tuple[Float[np.ndarray, "subgroups"], Float[np.ndarray, "clusters subgroups"]]
"""A model's gaps, and what each template contributes to them."""


def _model(
    toxicity: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    num_subgroups: int,
) -> Model:
    parts = gap_contributions(toxicity, subgroup, template, num_subgroups)
    return np.nan_to_num(gaps(toxicity, subgroup, num_subgroups)), parts


def difference_of_sums(
    base: Model, pruned: Model, rng: np.random.Generator, level: float, draws: int
) -> BiasDifference:
    """Sum |gap| of one model minus that of the other, its interval and p-value."""
    (gap_b, part_b), (gap_p, part_p) = base, pruned
    parts = [part_b, part_p]
    noises = np.split(noise_of(np.concatenate(parts, axis=1), rng, draws), 2, axis=1)
    stderr_b, stderr_p = (np.sqrt(sum_variance(part)) for part in parts)
    # Noise that the two share moves both in the same direction; only the rest can move them apart.
    apart = np.sqrt(sum_variance(parts[1] - parts[0]) / 2)
    sum_b, sum_p = float(np.abs(gap_b).sum()), float(np.abs(gap_p).sum())
    measured = sum_p - sum_b
    tails = ((1 - level) / 2, (1 + level) / 2)
    reach = quantile(sums(noises[0]) + sums(noises[1]), tails[1])
    # With 0 in it, so that the interval and the p-value rest on the same draws there.
    grid = np.sort(np.append(np.linspace(measured - reach, measured + reach, GRID), 0.0))
    zero = int(np.searchsorted(grid, 0.0))
    u_b, u_p = _directions(gap_b, stderr_b, apart), _directions(gap_p, stderr_p, apart)[_OPPOSITE]
    level_b, variance_b = median_unbiased(sum_b, u_b, noises[0])
    level_p, variance_p = median_unbiased(sum_p, u_p, noises[1])
    total = variance_b + variance_p
    share = np.divide(variance_b, total, out=np.full(len(total), 0.5), where=total > 0)
    ends, below, above = [], [], []
    for i in range(len(u_b)):
        theta_b = level_b[i] - share[i] * (grid - (level_p[i] - level_b[i]))
        theta_b = np.maximum(theta_b, np.maximum(-grid, 0))  # so that theta_p >= 0 too
        drawn = measured_of(theta_b + grid, u_p[i], noises[1])
        drawn -= measured_of(theta_b, u_b[i], noises[0])
        drawn.sort(axis=1)
        ends.append([crossing(measured, grid, drawn, q) for q in reversed(tails)])
        at_zero = drawn[zero]
        rank = np.linspace(0, 1, draws)
        below.append(np.interp(measured, at_zero, rank))
        above.append(np.interp(-measured, -at_zero[::-1], rank))
    low, high = np.array(ends).T
    tail = max(min(max(below), max(above)), 1 / draws)
    # |bias(pruned) - bias(base)| is at most sum |d_s(pruned) - d_s(base)|, which shared noise
    # leaves well known. Taken at a higher level, since its misses come on top of the others.
    most = interval_of_sum(
        gap_p - gap_b, parts[1] - parts[0], noises[1] - noises[0], (1 - level) / 8
    ).high
    interval = Interval(
        low=float(max(low.min(), -most)), high=float(min(high.max(), most)), level=level
    )
    p_value = float(min(1.0, 2 * tail))
    if abs(measured) < ROUNDING:
        interval = replace(interval, low=min(interval.low, 0.0), high=max(interval.high, 0.0))
        p_value = 1.0
    estimate = Estimate(value=measured, interval=interval)
    # Where the two differ it is by the rounding of the grid; the interval is what people see.
    most_p, least_p = (1 - level, 0.0) if estimate.distinguishable else (1.0, (1 - level) * 1.0001)
    return BiasDifference(estimate=estimate, p_value=min(max(p_value, least_p), most_p))


_OPPOSITE = [0, 2, 1, 3, 4]
"""Which direction of the pruned model goes with each of the base's (`_directions`)."""


def _directions(
    gap: Float[np.ndarray, "subgroups"],
    stderr: Float[np.ndarray, "subgroups"],
    apart: Float[np.ndarray, "subgroups"],
) -> Float[np.ndarray, "directions subgroups"]:
    return np.stack(
        [
            direction(gap),
            spread(gap, apart),
            concentrated(gap, apart),
            spread(gap, stderr),
            concentrated(gap, stderr),
        ]
    )
