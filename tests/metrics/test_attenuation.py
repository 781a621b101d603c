"""Correlations of head rankings against simulated truth, with the uncorrected value as control."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from levelhead.errors import ConfigError
from levelhead.metrics.attenuation import (
    MIN_TO_CORRECT,
    corrected_correlation,
    cross_half_correlation,
    difference_of,
    half_reliability,
    rank_correlation,
)
from levelhead.records import Estimate, Interval

TEMPLATES = 24
SPLITS = 6


def true_effects(
    kind: str, heads: int, correlation: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """True effects of one model's heads on two metrics."""
    cov = [[1, correlation], [correlation, 1]]
    pairs = rng.multivariate_normal([0, 0], cov, heads)
    if kind == "heavy":  # a few heads do much more than the others, to both
        pairs *= np.sqrt(rng.exponential(1, heads))[:, None]
    if kind == "t2":
        pairs /= np.sqrt(rng.chisquare(2, heads) / 2)[:, None]
    return pairs[:, 0], pairs[:, 1]


def true_spearman(kind: str, correlation: float) -> float:
    a, b = true_effects(kind, 300_000, correlation, np.random.default_rng(9))
    return float(stats.spearmanr(a, b).statistic)


def measured(
    truth: np.ndarray,
    noise: float,
    rng: np.random.Generator,
    common: np.ndarray | None = None,
    drawn: list[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(effects, their halves) from a score per template; `common` is half of each one's error."""
    error = rng.normal(size=(TEMPLATES, len(truth)))
    if common is not None:
        error = math.sqrt(0.5) * (error + common)
    scores = truth + noise * math.sqrt(TEMPLATES) * error
    drawn = drawn or orders(rng)
    halves = [[scores[order[i::2]].mean(0) for i in (0, 1)] for order in drawn]
    return scores.mean(0), np.array(halves)


def orders(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.permutation(TEMPLATES) for _ in range(SPLITS)]


def inside(estimate: Estimate, value: float) -> bool:
    return estimate.interval.low <= value <= estimate.interval.high


@pytest.mark.parametrize("heads", [72, 144])
@pytest.mark.parametrize(("kind", "correlation"), [("normal", 0.4), ("t2", 0.0), ("t2", 0.8)])
def test_the_interval_covers_the_true_correlation(
    kind: str, correlation: float, heads: int
) -> None:
    rng = np.random.default_rng(1)
    truth, runs = true_spearman(kind, correlation), 500
    covered = by_formula = 0
    for _ in range(runs):
        found = rank_correlation(*true_effects(kind, heads, correlation, rng))
        assert found is not None
        covered += inside(found, truth)
        z = math.atanh(found.value)
        reach = 1.96 * math.sqrt((1 + found.value**2 / 2) / (heads - 3))  # Bonett and Wright
        by_formula += math.tanh(z - reach) <= truth <= math.tanh(z + reach)
    assert 0.92 <= covered / runs <= 0.98
    if kind == "t2":  # control: the usual formula is for normal pairs
        assert by_formula < covered - 0.01 * runs


@pytest.mark.parametrize("kind", ["normal", "heavy"])
@pytest.mark.parametrize("noise", [0.5, 0.75])
def test_the_corrected_value_is_the_true_one_and_the_raw_one_too_small(
    kind: str, noise: float
) -> None:
    rng = np.random.default_rng(2)
    truth, heads = true_spearman(kind, 0.6), 270
    raw, corrected, crossed, covered = [], [], [], 0
    for _ in range(80):
        a, b = true_effects(kind, heads, 0.6, rng)
        (first, first_halves), (second, second_halves) = (measured(x, noise, rng) for x in (a, b))
        found = rank_correlation(first, second)
        assert found is not None
        freed = corrected_correlation(
            found, half_reliability(first_halves), half_reliability(second_halves), heads=heads
        )
        cross = cross_half_correlation(first_halves, second_halves)
        assert freed is not None
        assert cross is not None
        raw.append(found.value)
        corrected.append(freed.raw)
        crossed.append(cross.raw)
        covered += inside(freed.estimate, truth)
    assert np.mean(corrected) == pytest.approx(truth, abs=0.03)
    assert np.mean(crossed) == pytest.approx(truth, abs=0.06)
    assert np.mean(raw) < (0.85 if noise < 0.6 else 0.75) * truth
    assert covered >= 0.9 * 80


def test_shared_errors_fool_the_reliabilities_but_not_halves_made_alike() -> None:
    rng = np.random.default_rng(3)
    truth, heads = true_spearman("normal", 0.3), 270
    by_reliability: list[float] = []
    alike: list[float] = []
    not_alike: list[float] = []
    covered = 0
    for _ in range(60):
        a, b = true_effects("normal", heads, 0.3, rng)
        common, drawn = rng.normal(size=(TEMPLATES, heads)), orders(rng)
        first, first_halves = measured(a, 1.0, rng, common, drawn)
        state = rng.bit_generator.state
        second, second_halves = measured(b, 1.0, rng, common, drawn)
        rng.bit_generator.state = state  # the same measurement, halved in another way
        _, other_halves = measured(b, 1.0, rng, common, orders(np.random.default_rng(len(alike))))
        found = rank_correlation(first, second)
        assert found is not None
        reliability = half_reliability(first_halves), half_reliability(second_halves)
        freed = corrected_correlation(found, *reliability, heads=heads)
        cross = cross_half_correlation(first_halves, second_halves)
        wrong = cross_half_correlation(first_halves, other_halves)
        assert freed is not None
        assert cross is not None
        assert wrong is not None
        by_reliability.append(freed.raw)
        alike.append(cross.raw)
        not_alike.append(wrong.raw)
        covered += inside(cross.estimate, truth)
    assert np.mean(alike) == pytest.approx(truth, abs=0.04)
    assert covered >= 0.9 * 60
    assert np.mean(by_reliability) > 2 * truth  # control
    assert np.mean(not_alike) > 2 * truth  # control: halves drawn apart gain nothing


def test_a_difference_of_two_models_correlations() -> None:
    """It covers the true difference, and finds a large one; control: none of equal models."""
    rng, runs = np.random.default_rng(6), 400
    truth = true_spearman("normal", 0.7) - true_spearman("normal", 0.2)
    covered = found = false = 0
    for _ in range(runs):
        high, low, other = (
            rank_correlation(*true_effects("normal", n, c, rng))
            for n, c in ((144, 0.7), (270, 0.2), (144, 0.7))
        )
        assert high is not None
        assert low is not None
        assert other is not None
        difference = difference_of(high, low)
        covered += inside(difference, truth)
        found += difference.distinguishable
        false += difference_of(high, other).distinguishable
    assert 0.92 <= covered / runs <= 0.98
    assert found / runs > 0.95
    assert false / runs < 0.08


def test_reliability_of_halves() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(size=2000)
    _, halves = measured(truth, 1.0, rng)
    assert half_reliability(halves) == pytest.approx(0.48, abs=0.05)  # 0.5 of the plain scores
    assert half_reliability(np.zeros((2, 2, 5, 4))) == 0


def test_nothing_is_corrected_below_the_least_reliability() -> None:
    found = Estimate(value=0.2, interval=Interval(0.1, 0.3))
    assert corrected_correlation(found, None, 0.9, heads=100) is None
    assert corrected_correlation(found, 0.9, MIN_TO_CORRECT - 0.01, heads=100) is None
    assert corrected_correlation(found, math.nan, 0.9, heads=100) is None
    assert corrected_correlation(found, 0.9, MIN_TO_CORRECT, heads=100) is not None
    noise = np.random.default_rng(5).normal(size=(2, 4, 2, 6, 12))
    assert cross_half_correlation(noise[0], noise[1]) is None
    assert cross_half_correlation(noise[0] + 100 * np.eye(6, 12), noise[1]) is None


def test_the_value_is_clipped_and_the_raw_one_kept() -> None:
    found = Estimate(value=0.8, interval=Interval(0.3, 0.9))
    freed = corrected_correlation(found, 0.5, 0.5, heads=100)
    assert freed is not None
    assert freed.estimate.value == freed.estimate.interval.high == 1
    assert freed.estimate.interval.low < 1
    assert freed.raw == pytest.approx(1.6)
    assert freed.to_json()["raw"] == freed.raw


def test_uncertain_reliabilities_widen_the_interval() -> None:
    found = Estimate(value=0.4, interval=Interval(0.3, 0.5))
    many = corrected_correlation(found, 0.5, 0.5, heads=10_000)
    few = corrected_correlation(found, 0.5, 0.5, heads=72)
    assert many is not None
    assert few is not None
    assert many.estimate.interval.low == pytest.approx(0.6, abs=0.005)
    assert few.estimate.interval.low < 0.55


def test_a_metric_that_is_constant_ranks_nothing() -> None:
    assert rank_correlation(np.zeros((4, 5)), np.arange(20.0).reshape(4, 5)) is None
    constant = np.zeros((3, 2, 4, 5))
    assert cross_half_correlation(constant, constant) is None


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.zeros((3, 4)), np.zeros((4, 3)), "not of the same heads"),
        (np.zeros(9), np.zeros(9), "9 heads are too few"),
    ],
)
def test_rankings_that_cannot_be_compared(a: np.ndarray, b: np.ndarray, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rank_correlation(a, b)


def test_halves_of_other_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected"):
        cross_half_correlation(np.zeros((2, 3, 20)), np.zeros((2, 3, 20)))


@given(
    arrays(float, (12, 2), elements=st.integers(-4, 4).map(float)),
    st.integers(0, 2**32 - 1),
)
def test_ranks_are_all_that_counts(pairs: np.ndarray, seed: int) -> None:
    """Ties included: as scipy's value, whatever the order of heads and the unit of effects."""
    a, b = pairs[:, 0], pairs[:, 1]
    found = rank_correlation(a, b)
    if found is None:
        assert not (np.ptp(a) and np.ptp(b))
        return
    assert found.value == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)
    assert -1 <= found.interval.low <= found.value <= found.interval.high <= 1
    order = np.random.default_rng(seed).permutation(12)
    other = rank_correlation(np.exp(a[order]), b[order] - 7)
    assert other is not None
    assert other.value == pytest.approx(found.value, abs=1e-9)
    assert other.interval.low == pytest.approx(found.interval.low, abs=1e-6)
