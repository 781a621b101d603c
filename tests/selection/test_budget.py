"""Sets within a perplexity budget, by predictions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_joint import AXIS, table_of

from levelhead.errors import ConfigError, ScoreTableError, SelectionError
from levelhead.selection.budget import best_predicted, candidates, worth_reading
from levelhead.selection.joint import JOINT, described, objective_of
from levelhead.set_cost import indicator
from levelhead.stages.searching import searched


@pytest.fixture(scope="module")
def table():
    return table_of(np.random.default_rng(3), layers=8, heads=8)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), budget=st.floats(0.005, 0.5))
def test_candidates_are_each_a_set_once_with_what_the_objective_predicts(seed, budget):
    table = table_of(np.random.default_rng(seed))
    found = candidates(table, AXIS, budget, JOINT)
    sets = [one.selection.heads for one in found]
    assert len(set(sets)) == len(sets)
    assert {one.selection.method for one in found} == {"fasp", "joint"}
    prices = [one.predicted.ppl_increase for one in found]
    assert prices == sorted(prices)
    objective = objective_of(table, (AXIS,))
    for one in found[:: max(1, len(found) // 5)]:
        flat = np.flatnonzero(indicator(one.selection.heads, 5, 6))
        again = described(objective, flat, 0.0)
        assert again.ppl_increase == pytest.approx(one.predicted.ppl_increase)
        assert again.bias_change[AXIS] == pytest.approx(one.predicted.bias_change[AXIS])


def test_the_best_within_the_budget_is_the_best_of_all_that_keep_it(table):
    found = candidates(table, AXIS, 0.05, JOINT)
    best = best_predicted(found, 0.05)
    fits = [one for one in found if one.predicted.ppl_increase <= 0.05]
    assert best.predicted.value == min(one.predicted.value for one in fits)
    assert len(fits) < len(found), "the budget binds"


def test_a_larger_budget_never_predicts_a_smaller_fall(table):
    budgets = (0.01, 0.03, 0.1, 0.3)
    taken = [best_predicted(candidates(table, AXIS, most, JOINT), most) for most in budgets]
    values = [one.predicted.value for one in taken]
    assert values == sorted(values, reverse=True)


def test_sets_to_read_are_of_both_methods_and_several_prices(table):
    found = candidates(table, AXIS, 0.1, JOINT)
    picked = worth_reading(found, 0.1, 6)
    assert {one.selection.method for one in picked} == {"fasp", "joint"}
    assert len({one.selection.heads for one in picked}) == len(picked) > 2
    assert min(one.predicted.ppl_increase for one in picked) < 0.06
    assert len(worth_reading(found, 0.1, 2)) == 2


def test_where_nothing_is_predicted_to_keep_the_budget_the_cheapest_is_read(table):
    found = [
        replace(one, predicted=replace(one.predicted, ppl_increase=1 + one.predicted.ppl_increase))
        for one in candidates(table, AXIS, 0.1, JOINT)
    ]
    assert worth_reading(found, 0.1, 3) == found[:1]
    with pytest.raises(SelectionError, match=r"keeps perplexity within 10.0%; the cheapest"):
        best_predicted(found, 0.1)


@pytest.mark.parametrize("budget", [0, -0.1, float("nan"), 11.0])
def test_a_budget_is_a_share_above_0(table, budget):
    with pytest.raises(ConfigError, match="is no share by which perplexity may rise"):
        candidates(table, AXIS, budget, JOINT)


def test_scores_without_a_cost_model_cannot_be_searched(table):
    with pytest.raises(ScoreTableError, match="Fisher matrix"):
        candidates(replace(table, cost=None), AXIS, 0.05, JOINT)


def test_a_model_too_small_for_any_set_is_refused_and_no_model_is_read():
    """Four heads: the largest alpha of the grid is not one of them."""

    def asked(axes, sets):
        raise AssertionError("there is nothing to read")

    small = table_of(np.random.default_rng(0), layers=2, heads=2)
    with pytest.raises(SelectionError, match="no set of heads keeps perplexity within"):
        searched(small, AXIS, 0.05, JOINT, asked, 4)
