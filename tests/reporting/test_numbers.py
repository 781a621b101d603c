import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.reporting import numbers


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.decimal(0.06543), "0.0654"),
        (numbers.decimal(-0.00001), "0.0000"),
        (numbers.interval([-0.0102, 0.004]), "[-0.0102, 0.0040]"),
        (numbers.interval(None), ""),
        (numbers.interval([0.1, None]), ""),
        (numbers.with_error(0.0012345, 0.00021), "0.00123 ± 0.00021"),
        (numbers.with_error(-3.2, 14.0), "-3 ± 14"),
        (numbers.with_error(0.00123456), "0.00123"),
        (numbers.percent(0.069, signed=True), "+6.9%"),
        (numbers.percent_interval([-0.01, 0.02]), "[-1.0%, +2.0%]"),
        (numbers.count(134515008), "134,515,008"),
        (numbers.size(538060032), "538.1 MB"),
        (numbers.size(999), "999 B"),
        (numbers.size(999_999), "1.0 MB"),
        (numbers.relative_change(200, 150), "-25.0%"),
        (numbers.relative_change(0, 150), ""),
    ],
)
def test_forms(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize("value", [None, "0.1", True, math.nan, math.inf, [1.0], 10**400])
def test_what_is_no_number_is_a_dash(value: object) -> None:
    forms = (numbers.decimal, numbers.with_error, numbers.percent, numbers.count, numbers.size)
    assert {form(value) for form in forms} == {numbers.MISSING}


def test_decimals_show_the_largest_to_three_digits() -> None:
    assert numbers.decimals_for([0.33, None, 0.001]) == 4
    assert numbers.decimals_for([0.000123]) == 6
    assert numbers.decimals_for([0.0042], digits=2) == 4
    assert numbers.decimals_for([]) == 4


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(min_value=1e-9, max_value=1e9))
def test_value_and_error_are_within_rounding(value: float, error: float) -> None:
    number, _, spread = numbers.with_error(value, error).partition(" ± ")
    assert math.isclose(float(spread), error, rel_tol=0.051) or abs(float(spread) - error) <= 0.5
    assert abs(float(number) - value) <= max(0.051 * error, 0.5 * (error > 5), 1e-12 * abs(value))
