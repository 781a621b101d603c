"""Spearman and Brown's formula and its inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.metrics.reliability import spearman_brown, times_to_reach


@pytest.mark.parametrize(("half", "whole"), [(0.0, 0.0), (0.5, 2 / 3), (1.0, 1.0), (-0.9, -1.0)])
def test_two_halves(half: float, whole: float) -> None:
    assert spearman_brown(half, 2) == pytest.approx(whole)


@given(st.floats(-1, 1), st.integers(1, 50))
def test_it_stays_in_range(correlation: float, times: int) -> None:
    value = spearman_brown(correlation, times)
    assert -1 <= value <= 1 + 1e-12
    assert np.sign(value) == np.sign(correlation)
    assert abs(value) >= abs(correlation) - 1e-12


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_foretold_amount_reaches_the_target(reliability: float, target: float) -> None:
    assert spearman_brown(reliability, times_to_reach(reliability, target)) == pytest.approx(target)
