"""Distributions of a measured sum |gap| under a supposed truth: what test inversion is made of.

Supposed are gaps theta u, sum |u_s| = 1; measured would be sum |theta u_s + E_s|, with E
multivariate t from the template contributions. Which direction u is right is not known, so that
ends of intervals are taken at several (`concentrated`, `spread`) and the widest is kept. Knows
nothing of what the intervals are of.
"""

import numpy as np
from jaxtyping import Float

GRID = 41
_STEPS = 14
"""Bisections of a median: to 1/16,000 of the measured value."""

Gaps = Float[np.ndarray, "*more subgroups"]
Noise = Float[np.ndarray, "draws subgroups"]


def noise_of(
    contributions: Float[np.ndarray, "clusters k"], rng: np.random.Generator, draws: int
) -> Float[np.ndarray, "draws k"]:
    """Multivariate t with the covariance of the sums of contributions, clusters - 1 df."""
    clusters = len(contributions)
    normal = rng.standard_normal((draws, clusters)) * np.sqrt(clusters / (clusters - 1))
    scale = np.sqrt(rng.chisquare(clusters - 1, (draws, 1)) / (clusters - 1))
    out: Float[np.ndarray, "draws k"] = (normal / scale) @ contributions
    return out


def direction(gap: Float[np.ndarray, "subgroups"]) -> Float[np.ndarray, "subgroups"]:
    """Gaps scaled to sum |u| = 1; all 0 where there is none."""
    total = np.abs(gap).sum()
    return gap / total if total > 0 else np.zeros_like(gap)


def concentrated(
    gap: Float[np.ndarray, "subgroups"], stderr: Float[np.ndarray, "subgroups"]
) -> Float[np.ndarray, "subgroups"]:
    """The gaps less a standard error each, in quadrature; the clearest alone if none is left.

    Where gaps are in few subgroups, noise adds most to the sum.
    """
    smaller = np.sign(gap) * np.sqrt(np.maximum(gap**2 - stderr**2, 0))
    if not smaller.any():
        ratio = np.divide(np.abs(gap), stderr, out=np.zeros_like(gap), where=stderr > 0)
        smaller = np.where(np.arange(len(gap)) == np.argmax(ratio), gap, 0.0)
    return direction(smaller)


def spread(
    gap: Float[np.ndarray, "subgroups"], stderr: Float[np.ndarray, "subgroups"]
) -> Float[np.ndarray, "subgroups"]:
    """The gaps and a standard error each, in quadrature: noise adds least to such a sum."""
    return direction(np.sign(gap) * np.hypot(gap, stderr))


def measured_of(
    theta: Float[np.ndarray, "*more"], u: Gaps, noise: Noise
) -> Float[np.ndarray, "*more draws"]:
    """What would be measured if the gaps were theta times the direction u."""
    out: Float[np.ndarray, "*more draws"] = np.zeros((*np.shape(theta), len(noise)))
    for subgroup, error in enumerate(noise.T):  # one at a time: a whole array of all is slow
        gap = (theta * u[..., subgroup])[..., None] + error
        out += np.abs(gap, out=gap)
    return out


def sums(gaps: Gaps) -> Float[np.ndarray, "*more"]:
    """Sum |gap| over subgroups."""
    # A product is several times faster than a sum over an axis of a few subgroups.
    out: Float[np.ndarray, "*more"] = np.abs(gaps) @ np.ones(gaps.shape[-1])
    return out


def quantile(values: Float[np.ndarray, "draws"], q: float) -> float:
    """The q-quantile as a number."""
    return float(np.quantile(values, q))


def crossing(
    measured: float,
    grid: Float[np.ndarray, "grid"],
    drawn: Float[np.ndarray, "grid draws"],
    q: float,
) -> float:
    """Where on the grid the q-quantile of what would be measured is what was measured.

    Args:
        drawn: what would be measured, sorted along draws.
    """
    curve = np.maximum.accumulate(_of_sorted(drawn, q))
    return float(np.interp(measured, curve, grid))


def median_unbiased(
    measured: float, u: Float[np.ndarray, "directions subgroups"], noise: Noise
) -> tuple[Float[np.ndarray, "directions"], Float[np.ndarray, "directions"]]:
    """The bias of which `measured` would be the median, and the variance measured there.

    One per direction. What would be measured grows with theta (Anderson's theorem), and noise only
    adds, so that bisection between 0 and `measured` finds it.
    """
    low, high = np.zeros(len(u)), np.full(len(u), measured)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = _of_sorted(np.sort(measured_of(middle, u, noise)), 0.5) > measured
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    value = (low + high) / 2
    return value, measured_of(value, u, noise).var(axis=-1)


def _of_sorted(values: Float[np.ndarray, "*more draws"], q: float) -> Float[np.ndarray, "*more"]:
    """The q-quantile of values that are sorted along the last axis, as `numpy.quantile` has it."""
    place = q * (values.shape[-1] - 1)
    low = int(place)
    high = min(low + 1, values.shape[-1] - 1)
    out: Float[np.ndarray, "*more"] = values[..., low] + (place - low) * (
        values[..., high] - values[..., low]
    )
    return out
