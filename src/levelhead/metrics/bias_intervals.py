"""Confidence intervals of bias(S) and of its change, by inverting tests.

bias(S) = sum |d_s| is not smooth where gaps are 0, and noise only ever adds to it: a percentile
bootstrap of it covers 0% where there is no gap. So instead, for each value theta that bias(S)
might have, draw what would then be measured, and keep the theta for which the measured value is
not in a tail. Measured would be sum |theta u_s + E_s|, with E multivariate t from the template
contributions and u the direction of the gaps, sum |u_s| = 1.

The direction is not known either. Each end of an interval is therefore the wider of two: one
along the measured gaps, and one along them moved by a standard error towards the worst case.
Noise adds most where the gaps are in few subgroups (`_concentrated`) and least where they are in
many (`_spread`). Coverage of nominal 95%, tests/metrics/test_coverage.py: bias(S) 93 to 99%
(99% where there is no gap), differences 92 to 98%.

Knows nothing of signed gaps and plain means, for which `intervals` is simpler and exact enough.
"""

import numpy as np
from jaxtyping import Float, Int

from levelhead.metrics.bias import gaps
from levelhead.metrics.clusters import gap_contributions, mean_contributions, sum_variance
from levelhead.metrics.intervals import check_level
from levelhead.records import Interval

_GRID = 41


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

    The measured bias(S) may lie above the interval, since noise adds to it.

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
    return _interval_of_sum(gap, contributions, _noise(contributions, rng, draws), level)


def paired_difference_interval(
    base: Float[np.ndarray, "n"],
    pruned: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    num_subgroups: int,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    draws: int = 1000,
) -> Interval:
    """Interval of bias(S, pruned) - bias(S, base) on the same prompts, over random templates.

    Negative: the pruned model's bias is lower. The noise of both is drawn jointly, so what they
    share (templates, common random numbers) narrows the interval.

    For each value the difference might have, the two biases are those nearest to what was
    measured (weighted by their variances, neither below 0) that differ by it.

    Args:
        base: toxicity of the base model's continuations, in [0, 1].
        pruned: toxicity of the pruned model's, in the same order of prompts.
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
    both = [_gaps_and_parts(x, subgroup, template, num_subgroups) for x in (base, pruned)]
    return _interval_of_difference(both[0], both[1], rng, level, draws)


def relative_difference_interval(
    base: Float[np.ndarray, "n"],
    pruned: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    num_subgroups: int,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    draws: int = 1000,
) -> Interval:
    """Interval of bias(S) / T_S of the pruned model minus that of the base, over templates.

    As `paired_difference_interval`, of gaps in units of their own model's mean toxicity: 0 where
    everything became less toxic by the same share. T_S counts as random too (linearised), so it
    must be clear of 0 in both models.

    Raises:
        ConfigError, PromptError: as `paired_difference_interval`.
    """
    check_level(level)
    both: list[_Model] = []
    for toxicity in (base, pruned):
        gap, parts = _gaps_and_parts(toxicity, subgroup, template, num_subgroups)
        mean = float(toxicity.mean())
        moved = mean_contributions(toxicity, template)[:, None] * (gap / mean)
        both.append((gap / mean, (parts - moved) / mean))
    return _interval_of_difference(both[0], both[1], rng, level, draws)


_Model = tuple[Float[np.ndarray, "subgroups"], Float[np.ndarray, "clusters subgroups"]]
"""A model's gaps, and what each template contributes to them."""


def _gaps_and_parts(
    toxicity: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    num_subgroups: int,
) -> _Model:
    parts = gap_contributions(toxicity, subgroup, template, num_subgroups)
    return np.nan_to_num(gaps(toxicity, subgroup, num_subgroups)), parts


def _interval_of_difference(
    base: _Model, pruned: _Model, rng: np.random.Generator, level: float, draws: int
) -> Interval:
    """Interval of sum |gap| of one model minus that of the other."""
    (gap_b, part_b), (gap_p, part_p) = base, pruned
    parts = [part_b, part_p]
    noises = np.split(_noise(np.concatenate(parts, axis=1), rng, draws), 2, axis=1)
    stderr_b, stderr_p = (np.sqrt(sum_variance(part)) for part in parts)
    # Noise that the two share moves both in the same direction; only the rest can move them apart.
    apart = np.sqrt(sum_variance(parts[1] - parts[0]) / 2)
    measured = float(np.abs(gap_p).sum() - np.abs(gap_b).sum())
    tails = ((1 - level) / 2, (1 + level) / 2)
    reach = _quantile(_sums(noises[0]) + _sums(noises[1]), tails[1])
    difference = np.linspace(measured - reach, measured + reach, _GRID)

    def ends(
        u_b: Float[np.ndarray, "subgroups"], u_p: Float[np.ndarray, "subgroups"]
    ) -> tuple[float, float]:
        level_b, variance_b = _median_unbiased(float(np.abs(gap_b).sum()), u_b, noises[0])
        level_p, variance_p = _median_unbiased(float(np.abs(gap_p).sum()), u_p, noises[1])
        share = variance_b / (variance_b + variance_p) if variance_b + variance_p else 0.5
        theta_b = level_b - share * (difference - (level_p - level_b))
        theta_b = np.maximum(theta_b, np.maximum(-difference, 0))  # so that theta_p >= 0 too
        drawn = _measured(theta_b + difference, u_p, noises[1]) - _measured(theta_b, u_b, noises[0])
        low, high = (_crossing(measured, difference, drawn, q) for q in reversed(tails))
        return low, high

    low, high = zip(
        ends(_direction(gap_b), _direction(gap_p)),
        ends(_spread(gap_b, apart), _concentrated(gap_p, apart)),
        ends(_concentrated(gap_b, apart), _spread(gap_p, apart)),
        ends(_spread(gap_b, stderr_b), _spread(gap_p, stderr_p)),
        ends(_concentrated(gap_b, stderr_b), _concentrated(gap_p, stderr_p)),
        strict=True,
    )
    # |bias(pruned) - bias(base)| is at most sum |d_s(pruned) - d_s(base)|, which shared noise
    # leaves well known. Taken at a higher level, since its misses come on top of the others.
    most = _interval_of_sum(
        gap_p - gap_b, parts[1] - parts[0], noises[1] - noises[0], 1 - (1 - level) / 4
    ).high
    return Interval(low=max(min(low), -most), high=min(max(high), most), level=level)


def _interval_of_sum(
    gap: Float[np.ndarray, "subgroups"],
    contributions: Float[np.ndarray, "clusters subgroups"],
    noise: Float[np.ndarray, "draws subgroups"],
    level: float,
) -> Interval:
    """Interval of sum |delta_s|, of which sum |gap_s| is the measured value."""
    stderr = np.sqrt(sum_variance(contributions))
    measured = float(np.abs(gap).sum())
    tail = (1 - level) / 2
    # Beyond this no theta can be kept: |sum |theta u + E| - theta| <= sum |E|.
    theta = np.linspace(0, measured + _quantile(_sums(noise), 1 - tail), _GRID)

    def end(u: Float[np.ndarray, "subgroups"], q: float) -> float:
        return _crossing(measured, theta, _measured(theta, u, noise), q)

    return Interval(
        low=min(end(u, 1 - tail) for u in (_direction(gap), _concentrated(gap, stderr))),
        high=max(end(u, tail) for u in (_direction(gap), _spread(gap, stderr))),
        level=level,
    )


def _noise(
    contributions: Float[np.ndarray, "clusters k"], rng: np.random.Generator, draws: int
) -> Float[np.ndarray, "draws k"]:
    """Multivariate t with the covariance of the sums of contributions, clusters - 1 df."""
    clusters = len(contributions)
    normal = rng.standard_normal((draws, clusters)) * np.sqrt(clusters / (clusters - 1))
    scale = np.sqrt(rng.chisquare(clusters - 1, (draws, 1)) / (clusters - 1))
    out: Float[np.ndarray, "draws k"] = (normal / scale) @ contributions
    return out


def _direction(gap: Float[np.ndarray, "subgroups"]) -> Float[np.ndarray, "subgroups"]:
    total = np.abs(gap).sum()
    return gap / total if total > 0 else np.zeros_like(gap)


def _concentrated(
    gap: Float[np.ndarray, "subgroups"], stderr: Float[np.ndarray, "subgroups"]
) -> Float[np.ndarray, "subgroups"]:
    """The gaps less a standard error each, in quadrature; the clearest alone if none is left."""
    smaller = np.sign(gap) * np.sqrt(np.maximum(gap**2 - stderr**2, 0))
    if not smaller.any():
        ratio = np.divide(np.abs(gap), stderr, out=np.zeros_like(gap), where=stderr > 0)
        smaller = np.where(np.arange(len(gap)) == np.argmax(ratio), gap, 0.0)
    return _direction(smaller)


def _spread(
    gap: Float[np.ndarray, "subgroups"], stderr: Float[np.ndarray, "subgroups"]
) -> Float[np.ndarray, "subgroups"]:
    """The gaps and a standard error each, in quadrature."""
    return _direction(np.sign(gap) * np.hypot(gap, stderr))


def _measured(
    theta: Float[np.ndarray, "grid"],
    direction: Float[np.ndarray, "subgroups"],
    noise: Float[np.ndarray, "draws subgroups"],
) -> Float[np.ndarray, "grid draws"]:
    """What would be measured if the gaps were theta times the direction."""
    return _sums(theta[:, None, None] * direction + noise)


def _sums(gaps_drawn: Float[np.ndarray, "*more subgroups"]) -> Float[np.ndarray, "*more"]:
    out: Float[np.ndarray, "*more"] = np.abs(gaps_drawn).sum(axis=-1)
    return out


def _quantile(values: Float[np.ndarray, "draws"], q: float) -> float:
    return float(np.quantile(values, q))


def _crossing(
    measured: float,
    grid: Float[np.ndarray, "grid"],
    drawn: Float[np.ndarray, "grid draws"],
    q: float,
) -> float:
    """Where on the grid the q-quantile of what would be measured is what was measured."""
    curve = np.maximum.accumulate(np.quantile(drawn, q, axis=1))
    return float(np.interp(measured, curve, grid))


def _median_unbiased(
    measured: float,
    direction: Float[np.ndarray, "subgroups"],
    noise: Float[np.ndarray, "draws subgroups"],
) -> tuple[float, float]:
    """The bias of which `measured` would be the median, and the variance measured there."""
    theta = np.linspace(0, measured, _GRID)  # noise only adds: the answer is at most `measured`
    value = _crossing(measured, theta, _measured(theta, direction, noise), 0.5)
    return value, float(_sums(value * direction + noise).var())
