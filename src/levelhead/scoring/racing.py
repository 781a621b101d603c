"""The heads with the largest mean effect over all windows of a text, without measuring all of them.

A race: every head is measured on a few windows; heads that are clearly among the `count` largest,
or clearly not, leave; the others go on, window by window, until all are placed or the text ends.
The target is the set that measuring every head on every window would give: the windows are the
whole population, drawn in random order without replacement, and only those not yet seen are
uncertain (finite-population correction). At the last window nothing is.

What makes it short is a screen that is known beforehand for every head and window: `linear`, a
prediction of the effect, and `fisher`, a measure of how far to trust it.

1. Regression estimate (survey sampling). What a head's effects on the seen windows tell about the
   others is what they are more than slope * linear there. The slope is the heads' common one,
   shrunk less the more a head has been seen.
2. Paired. A window that is hard for all heads is hard for the heads at the boundary: each head's
   residuals are taken less their mean in the heads nearest to rank `count`.
3. Variances from few windows are moderated (Smyth 2004, limma-trend): each is averaged with what
   heads of such spread in the screen have, by the weight (degrees of freedom d0) with which heads
   follow that prediction; never below the head's own. The distance from the boundary is then t
   distributed with d0 + n - 1 degrees of freedom, and fewer where the residuals of all heads have
   heavy tails: as many as have the excess kurtosis of what is still uncertain.
4. The boundary is not known either: it lies between the count-th and the next estimate, and its
   spread comes from drawing all heads' errors.

Error probability. p is the probability that a head is on the other side of the boundary than its
estimate, under a flat prior (there are heads all around the boundary, so it is nearly true). Heads
leave while the sum of p over all that ever left is below a bound that grows to `SPENT`. That sum is
the expected number of heads that left on the wrong side, whenever they left, since a posterior does
not care why one looked. It is not a Bonferroni bound over heads, windows and pairs: that one
spends the same on heads that could never be wrong, and takes half as long again. `ERROR`, what is
promised for the set, is larger than `SPENT`, for what the model of variances and tails misses. In
simulations after SmolLM2-135M's effects another set than the exhaustive one came out in 1 to 3% of
runs with tails from normal to t with 5 degrees of freedom, in 5% with 3 degrees, and it differed by
one head (tests/scoring/test_racing.py). On that model's own effects (16 windows of 256 tokens) it
did in 1 of 150 orders of the windows, at 52% of the exhaustive work. What no such method can see:
a head whose whole effect sits in one window that nothing foretells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special, stats

ERROR = 0.05
"""Probability, at most, that the set is not exactly that of the exhaustive evaluation."""
SPENT = 0.01
"""Heads expected on the wrong side, as far as the model of their errors is right."""
FIRST = 3
"""Windows that every head is measured on."""
SLOPE_WEIGHT = 3.0
"""The common slope counts as much as this many windows of a head's own."""
NEIGHBOURS = 40
"""Heads nearest to the boundary, whose mean residual is taken from the others'."""
DRAWS = 200

Values = Float[np.ndarray, "windows heads"]
Column = Float[np.ndarray, " heads"]
Evaluate = Callable[[Int[np.ndarray, " some"], int], Float[np.ndarray, " some"]]
"""evaluate(heads, window) -> their effects in that window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """The set, and what is known of every head."""

    top: Bool[np.ndarray, " heads"]
    """The `count` largest; fewer where heads tie at the boundary (those are out)."""
    values: Values
    """Effects, measured where `seen`, else predicted; their means over windows rank as the set."""
    seen: Bool[np.ndarray, "windows heads"]
    stderr: Column
    """Of the mean over windows, as an estimate for text of this kind: windows and unseen ones."""
    expected_errors: float
    """Heads expected on the wrong side: 0 where all were measured everywhere."""


@dataclass(slots=True)
class _Fit:
    """Estimates of the heads still racing, from the windows they have seen."""

    slope: Column
    distance: Column
    """From the boundary; positive: above."""
    variance: Column
    """Of a window's residual."""
    wrong: Column
    """Probability of being on the other side."""


def race_top(
    evaluate: Evaluate,
    linear: Values,
    fisher: Values,
    count: int,
    rng: np.random.Generator,
    spent: float = SPENT,
) -> Race:
    """Find the `count` heads with the largest mean effect over all windows.

    Args:
        evaluate: measures heads in a window; called once for each window, in random order.
        linear: predicted effect, up to a constant per head; need not be good.
        fisher: larger spread, larger error of the prediction; need not be good.
        count: 0 to the number of heads.
        rng: order of the windows, and draws of the boundary.
        spent: bound on the expected number of heads on the wrong side.
    """
    num_windows, num_heads = linear.shape
    order = rng.permutation(num_windows)
    centred = linear - linear.mean(0)
    scale = np.log(np.stack([_floored(linear.var(0)), _floored(fisher.var(0))], axis=1))
    values = np.full(linear.shape, np.nan)
    slope, variance = np.ones(num_heads), np.zeros(num_heads)
    top = np.zeros(num_heads, dtype=bool)
    racing, left, wrong = np.arange(num_heads), count, 0.0
    for n, window in enumerate(order, 1):
        values[window, racing] = evaluate(racing, int(window))
        if n == num_windows:
            top[racing] = _largest(values[:, racing].mean(0), left)
            break
        if n < FIRST:
            continue
        if 0 < left < len(racing):
            seen, columns = order[:n], racing[None]
            fit = _fit(
                values[seen[:, None], columns],
                centred[seen[:, None], columns],
                linear[:, racing].var(0, ddof=1),
                scale[racing],
                left,
                num_windows,
                rng,
            )
            slope[racing], variance[racing] = fit.slope, fit.variance
            # Early decisions save most: the square root lets them have more of it.
            bound = spent * np.sqrt((n - FIRST + 1) / max(num_windows - FIRST, 1))
            placed = _placed(fit.wrong, bound - wrong)
            wrong += float(fit.wrong[placed].sum())
            above = placed & (fit.distance > 0)
            top[racing[above]] = True
            left -= int(above.sum())
            racing = racing[~placed]
        if left in (0, len(racing)):  # the others' places follow
            top[racing] = left > 0
            break
    seen_at = ~np.isnan(values)
    filled = _filled(values, seen_at, slope * centred)
    shift = _separating(filled.mean(0), top)
    return Race(
        top=top,
        values=filled + shift,
        seen=seen_at,
        stderr=_stderr(filled, seen_at, variance),
        expected_errors=wrong,
    )


def _fit(
    effects: Float[np.ndarray, "seen racing"],
    centred: Float[np.ndarray, "seen racing"],
    spread: Float[np.ndarray, " racing"],
    scale: Float[np.ndarray, "racing 2"],
    count: int,
    num_windows: int,
    rng: np.random.Generator,
) -> _Fit:
    """Where each head stands; `centred` and `spread` are of `linear`, over all windows."""
    n, racing = effects.shape
    spread = _floored(spread)
    own = (centred - centred.mean(0)) * (effects - effects.mean(0))
    own_product = own.sum(0) / spread
    own_square = ((centred - centred.mean(0)) ** 2).sum(0) / spread
    common = own_product.sum() / max(float(own_square.sum()), 1e-300)
    slope = (own_product + SLOPE_WEIGHT * common) / (own_square + SLOPE_WEIGHT)

    residual = effects - slope * centred
    rank = np.argsort(-residual.mean(0), kind="stable")
    near = rank[max(0, count - NEIGHBOURS // 2) : count + NEIGHBOURS // 2]
    paired = residual - residual[:, near].mean(1, keepdims=True)
    mean = paired.mean(0)
    used = own_square / (own_square + SLOPE_WEIGHT)  # degrees of freedom that the slope took
    raw = ((paired - mean) ** 2).sum(0) / (n - 1 - np.minimum(used, (n - 1) / 2))
    prior, freedom = _prior_variance(raw, n - 1, scale)
    variance = np.maximum(raw, (freedom * prior + (n - 1) * raw) / (freedom + n - 1))

    stderr = np.sqrt(variance * (1 / n - 1 / num_windows))
    drawn = np.sort(mean + stderr * rng.standard_normal((DRAWS, racing)), axis=1)[:, ::-1]
    boundary = _boundary(np.sort(mean)[::-1], count)
    error_there = np.mean((_boundary(drawn, count) - boundary) ** 2)
    z = np.abs(mean - boundary) / np.sqrt(stderr**2 + error_there)
    tails = _freedom_of_tails(paired, num_windows - n)
    return _Fit(
        slope=slope,
        distance=mean - boundary,
        variance=variance,
        wrong=stats.t.sf(z, min(freedom + n - 1, tails)),
    )


def _prior_variance(
    raw: Float[np.ndarray, " racing"], freedom: int, scale: Float[np.ndarray, "racing 2"]
) -> tuple[Float[np.ndarray, " racing"], float]:
    """(variance expected of a head with such a screen, degrees of freedom that it counts as).

    log variance is regressed on the logs of the screen's two variances over heads, with a ridge
    towards their geometric mean; what is scattered beyond chi-square gives the freedom.
    """
    half = freedom / 2
    y = np.log(_floored(raw)) - (special.digamma(half) - np.log(half))
    x = np.column_stack([np.ones(len(raw)), scale - scale.mean(0)])
    ridge = np.diag([0.0, 1.0, 1.0])
    fitted = x @ np.linalg.solve(x.T @ x + ridge, x.T @ y + ridge @ [0.0, 0.5, 0.5])
    scatter = float(((y - fitted) ** 2).sum()) / max(len(raw) - 3, 1)
    excess = scatter - float(special.polygamma(1, half))
    candidates = np.linspace(1.0, 30.0, 291)
    expected = special.polygamma(1, candidates / 2)  # falls with the degrees of freedom
    found = float(np.interp(-excess, -expected, candidates))
    return np.exp(fitted), found


def _freedom_of_tails(paired: Float[np.ndarray, "seen racing"], unseen: int) -> float:
    """Degrees of freedom of the t distribution with the kurtosis of (unseen mean - seen mean).

    The kurtosis is that of all heads' deviations, each in units of its own spread, less what
    normal ones have in samples of this size.
    """
    seen = len(paired)
    units = (paired - paired.mean(0)) / np.sqrt(_floored(paired.var(0, ddof=1)))
    excess = float(np.mean(units**4)) - 3 * (seen - 1) ** 3 / (seen**2 * (seen + 1))
    weight = (1 / seen**3 + 1 / unseen**3) / (1 / seen + 1 / unseen) ** 2
    return 4 + 6 / max(excess * weight, 1e-3)


def _boundary(sorted_down: Float[np.ndarray, "... racing"], count: int) -> np.ndarray:
    """Midway between the count-th largest and the next."""
    out: np.ndarray = sorted_down[..., count - 1 : count + 1].mean(-1)
    return out


def _placed(wrong: Float[np.ndarray, " racing"], budget: float) -> Bool[np.ndarray, " racing"]:
    """The surest heads, as many as their summed probability of error allows."""
    order = np.argsort(wrong, kind="stable")
    out = np.zeros(len(wrong), dtype=bool)
    out[order[np.cumsum(wrong[order]) <= budget]] = True
    return out


def _largest(mean: Float[np.ndarray, " some"], count: int) -> Bool[np.ndarray, " some"]:
    """The `count` largest; none that equals the next (the rule by which heads are protected)."""
    if count >= len(mean):
        return np.ones(len(mean), dtype=bool)
    out: Bool[np.ndarray, " some"] = mean > np.sort(mean)[::-1][count]
    return out


def _filled(values: Values, seen: Bool[np.ndarray, "windows heads"], predicted: Values) -> Values:
    """Values with the unseen ones predicted: screen, what the window is for the last heads, offset.

    The last heads are those seen most; the mean of every head is then on the footing of theirs.
    """
    residual = values - predicted
    last = seen.sum(0) == seen.sum(0).max()
    known = seen[:, last].any(1)
    common = np.zeros(len(values))
    common[known] = residual[known][:, last].mean(1)
    common[~known] = common[known].mean()
    offset = np.nanmean(residual - common[:, None], axis=0)
    return np.where(seen, values, predicted + common[:, None] + offset)


def _separating(mean: Column, top: Bool[np.ndarray, " heads"]) -> Column:
    """What to add so that exactly the heads of the set have the largest means.

    0 but for heads whose estimate, all windows counted, is on the other side of where they left.
    """
    if top.all() or not top.any():
        return np.zeros_like(mean)
    inside, outside = mean[top].min(), mean[~top].max()
    if inside > outside:
        return np.zeros_like(mean)
    boundary = _boundary(np.sort(mean)[::-1], int(top.sum()))
    gap = 1e-6 * max(float(np.ptp(mean)), 1e-12)
    moved = np.where(top, np.maximum(mean, boundary + gap), np.minimum(mean, boundary - gap))
    out: Column = moved - mean
    return out


def _stderr(filled: Values, seen: Bool[np.ndarray, "windows heads"], variance: Column) -> Column:
    """Spread between windows, and for the unseen ones that of what was not predicted."""
    num_windows, n = len(filled), seen.sum(0)
    missing = 1 - n / num_windows
    text = filled.var(0, ddof=1) + missing * variance  # predictions vary less than effects do
    out: Column = np.sqrt(text / num_windows + missing * variance / n)
    return out


def _floored(x: np.ndarray) -> np.ndarray:
    """Positive, so that logs and ratios exist: heads without any effect have variance 0."""
    out: np.ndarray = np.maximum(x, max(1e-12 * float(np.median(x)), 1e-300))
    return out
