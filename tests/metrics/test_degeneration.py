import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.metrics.degeneration import (
    LIMITS,
    compare_degeneration,
    degeneration_values,
    repeated_ngram_share,
)

TEMPLATE = np.repeat(np.arange(10), 10)


def test_repetition_by_hand():
    assert repeated_ngram_share([1, 2, 3, 1, 2, 3, 1]) == pytest.approx(1 - 3 / 5)
    assert repeated_ngram_share(["a", "b", "a", "b"], n=2) == pytest.approx(1 / 3)
    assert repeated_ngram_share([1, 2]) == 0.0


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 4))
def test_repeated_ngram_share_is_a_share(tokens, n):
    assert 0 <= repeated_ngram_share(tokens, n) < 1
    assert repeated_ngram_share(range(len(tokens)), n) == 0


def test_values_of_each_continuation():
    got = degeneration_values(["fine text", " \n", ""], [[5, 6, 7], [1, 2], [0]], new_tokens=3)
    assert got["repetition"].tolist() == [0, 0, 0]
    assert got["empty"].tolist() == [0, 1, 1]
    assert got["ended_early"].tolist() == [0, 1, 1]


def shares(rng, repeated, empty, early):
    """Values of 100 continuations with these means, up to noise."""
    return {
        "repetition": rng.beta(100 * repeated, 100 * (1 - repeated), 100),
        "empty": 1.0 * (rng.random(100) < empty),
        "ended_early": 1.0 * (rng.random(100) < early),
    }


@pytest.mark.parametrize(
    ("pruned", "expected"),
    [
        ((0.10, 0.0, 0.1), set()),
        ((0.13, 0.0, 0.1), set()),  # clearly worse, but by less than the stated size
        ((0.40, 0.0, 0.1), {"repetition"}),
        ((0.10, 0.3, 0.1), {"empty"}),
        ((0.10, 0.0, 0.6), {"ended_early"}),
    ],
)
def test_only_clear_and_large_changes_raise_a_sign(pruned, expected):
    base = shares(np.random.default_rng(0), 0.10, 0.0, 0.1)
    signs = compare_degeneration(base, shares(np.random.default_rng(1), *pruned), TEMPLATE)
    assert [sign.name for sign in signs] == list(LIMITS)
    assert {sign.name for sign in signs if sign.raised} == expected


def test_a_large_change_within_its_interval_raises_nothing():
    none = {name: np.zeros(100) for name in LIMITS}
    one_template = none | {"empty": 1.0 * (TEMPLATE == 3)}
    sign = {s.name: s for s in compare_degeneration(none, one_template, TEMPLATE)}["empty"]
    assert sign.difference.value == pytest.approx(0.1)
    assert sign.difference.value > sign.limit
    assert not sign.raised


def test_better_text_raises_nothing():
    rng = np.random.default_rng(0)
    signs = compare_degeneration(shares(rng, 0.4, 0.3, 0.6), shares(rng, 0.1, 0.01, 0.1), TEMPLATE)
    assert all(sign.difference.value < 0 for sign in signs)
    assert not any(sign.raised for sign in signs)
