"""Overlap of chosen heads: its value, its chance level, and its spread over drawn data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.metrics.set_overlap import overlap, overlap_estimate


def top(values: np.ndarray, count: int) -> np.ndarray:
    chosen = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-values, axis=-1)[..., :count], True, axis=-1)
    return chosen


def test_overlap_is_the_share_in_common() -> None:
    first = np.array([[True, True, False, False], [True, False, True, False]])
    second = np.array([[True, False, True, False], [False, True, False, True]])
    assert overlap(first, second).tolist() == [0.5, 0.0]
    assert overlap(first, first).tolist() == [1.0, 1.0]
    assert overlap(np.zeros(3, bool), np.zeros(3, bool)) == 0


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_random_sets_share_what_chance_says(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = top(rng.random((400, 60)), count), top(rng.random((400, 60)), count)
    error = 1 / np.sqrt(400 * count)
    assert overlap(a, b).mean() == pytest.approx(count / 60, abs=5 * error)


def test_the_interval_holds_the_value_and_narrows_with_the_noise() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((2, 200))
    truth[1] = 0.8 * truth[0] + 0.6 * truth[1]
    widths = []
    for noise in (0.3, 0.03):
        a, b = truth + noise * rng.standard_normal(truth.shape)
        drawn = np.stack([a, b])[:, None] + noise * rng.standard_normal((2, 300, 200))
        found = overlap_estimate(top(a, 20), top(b, 20), top(drawn[0], 20), top(drawn[1], 20))
        assert 0 <= found.interval.low <= found.value <= found.interval.high <= 1
        widths.append(found.interval.high - found.interval.low)
    assert widths[1] < 0.75 * widths[0]


@pytest.mark.parametrize(("agreement", "shared"), [(0.0, 0.0), (0.5, 0.0), (0.8, 0.7)])
def test_the_interval_covers_what_more_data_would_give(agreement: float, shared: float) -> None:
    """Over repetitions: the overlap of the sets that effects without noise would choose."""
    rng = np.random.default_rng(1)
    heads, count, noise = 150, 20, 0.35

    def errors(*more: int) -> np.ndarray:
        own, common = rng.standard_normal((2, *more, heads)), rng.standard_normal((*more, heads))
        return noise * (np.sqrt(1 - shared) * own + np.sqrt(shared) * common)

    inside, narrow = [], []
    for _ in range(120):
        truth = rng.standard_normal((2, heads))
        truth[1] = agreement * truth[0] + np.sqrt(1 - agreement**2) * truth[1]
        found = truth + errors()
        sets = top(found, count)
        drawn = top(found[:, None] + errors(100), count)
        estimate = overlap_estimate(*sets, *drawn)
        right = overlap(*top(truth, count))
        inside.append(estimate.interval.low - 1e-9 <= right <= estimate.interval.high + 1e-9)
        narrow.append(abs(right - estimate.value) <= 1.96 * overlap(*drawn).std() + 1e-9)
    assert np.mean(inside) >= 0.9
    assert np.mean(narrow) < 0.9, "control: the spread of the draws itself is too small"
