"""The area under the curve and differences of means, against truth that is known."""

import numpy as np
import pytest
from scipy import stats

from levelhead.errors import ConfigError
from levelhead.metrics.separation import auc, mean_difference


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    high, low = np.array([0.9, 0.5, 0.2]), np.array([0.1, 0.5])
    assert auc(high, low).value == pytest.approx((2 + 1.5 + 1) / 6)
    assert auc(low, high).value == pytest.approx(1 - 4.5 / 6)
    mann_whitney = stats.mannwhitneyu(high, low).statistic / 6
    assert auc(high, low).value == pytest.approx(mann_whitney)


def test_perfect_and_no_separation_have_an_interval() -> None:
    perfect = auc(np.linspace(0.6, 1, 40), np.linspace(0, 0.4, 40))
    assert perfect.value == 1.0
    assert perfect.interval.high == 1.0
    assert 0.85 < perfect.interval.low < 0.97
    few = auc(np.array([0.9, 0.8]), np.array([0.1, 0.2]))
    assert few.interval.low < perfect.interval.low - 0.2  # four texts prove little
    ties = auc(np.full(40, 0.3), np.full(40, 0.3))
    assert ties.value == 0.5
    assert ties.interval.low == pytest.approx(1 - ties.interval.high)


@pytest.mark.parametrize(("shift", "sizes"), [(0.0, (40, 40)), (1.2, (40, 20)), (2.6, (40, 20))])
def test_intervals_cover_the_area_of_normal_scores(shift: float, sizes: tuple[int, int]) -> None:
    """Binormal scores: the true area is Phi(shift / sqrt 2)."""
    rng = np.random.default_rng(0)
    truth = float(stats.norm.cdf(shift / np.sqrt(2)))
    runs = 400
    covered = 0
    for _ in range(runs):
        found = auc(rng.normal(shift, 1, sizes[0]), rng.normal(0, 1, sizes[1]))
        covered += found.interval.low <= truth <= found.interval.high
    assert 0.92 <= covered / runs <= 1.0
    wide = auc(rng.normal(shift, 1, 40), rng.normal(0, 1, 20), level=0.5)
    narrow = auc(rng.normal(shift, 1, 4000), rng.normal(0, 1, 2000))
    assert narrow.interval.high - narrow.interval.low < wide.interval.high - wide.interval.low


def test_differences_of_means_are_welchs() -> None:
    rng = np.random.default_rng(1)
    high, low = rng.beta(4, 1, 40), rng.beta(1, 9, 20)
    found = mean_difference(high, low)
    known = stats.ttest_ind(high, low, equal_var=False).confidence_interval()
    assert (found.interval.low, found.interval.high) == pytest.approx((known.low, known.high))
    same = mean_difference(np.ones(3), np.ones(3))
    assert (same.value, same.interval.low, same.interval.high) == (0, 0, 0)


def test_what_cannot_be_estimated_is_refused() -> None:
    some = np.array([0.1, 0.2])
    with pytest.raises(ConfigError, match="level 1"):
        auc(some, some, level=1)
    with pytest.raises(ValueError, match="a text of each kind"):
        auc(some, np.zeros(0))
    with pytest.raises(ValueError, match="two texts of each kind"):
        mean_difference(some, some[:1])
