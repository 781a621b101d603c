"""Planned looks share one error, on nested samples of no difference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from levelhead.errors import ConfigError
from levelhead.metrics.looks import look_level

LOOKS = st.lists(st.integers(1, 1000), min_size=1, max_size=6, unique=True).map(sorted)


@given(LOOKS, st.floats(0.001, 0.2))
def test_the_looks_spend_the_error_and_no_more(planned: list[int], alpha: float) -> None:
    levels = [look_level(samples, planned, alpha) for samples in planned]
    assert sum(levels) == pytest.approx(alpha)
    assert min(levels) > 0


def test_two_nested_looks_hold_the_error_that_unplanned_ones_exceed() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((40_000, 4))
    planned = (1, 4)
    p_values = [2 * stats.norm.sf(abs(drawn[:, :k].mean(1)) * np.sqrt(k)) for k in planned]
    pairs = zip(planned, p_values, strict=True)
    false = np.logical_or.reduce([p <= look_level(k, planned) for k, p in pairs])
    assert false.mean() <= 0.052
    unplanned = np.logical_or.reduce([p <= 0.05 for p in p_values])
    assert unplanned.mean() > 0.08, "control: looking twice at 5% each"


@pytest.mark.parametrize(("samples", "planned"), [(3, (4, 8)), (4, ()), (4, (4, 4)), (0, (0, 4))])
def test_what_was_not_planned_is_refused(samples: int, planned: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        look_level(samples, planned)
