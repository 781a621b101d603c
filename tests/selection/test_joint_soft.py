"""Gates: inside the box and the budget, protected heads whole, the optimum of a convex problem."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.selection.test_joint import AXIS, objective, table_of

from levelhead.errors import SelectionError
from levelhead.records import HeadSelection
from levelhead.selection import select_heads
from levelhead.selection.joint import JOINT, objective_of
from levelhead.selection.rules import protected_heads
from levelhead.selection.set_objective import SetObjective
from levelhead.selection.soft import removed_shares, soft_selection
from levelhead.set_cost import indicator


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), budget=st.floats(0.005, 2.0))
def test_the_budget_the_box_and_the_protection_hold(seed: int, budget: float) -> None:
    rng = np.random.default_rng(seed)
    problem = objective(rng, 16)
    allowed = rng.random(16) < 0.7
    x = removed_shares(problem, allowed, budget)
    assert ((x >= 0) & (x <= 1)).all()
    assert (x[~allowed] == 0).all()
    assert problem.cost.kl(x) <= budget * 1.01 + 1e-6
    assert problem.bias_value(x @ problem.change) <= problem.bias_value(0 * x @ problem.change)


def found_better(
    problem: SetObjective, x: np.ndarray, budget: float, rng: np.random.Generator, by: float
) -> int:
    """How many of 3,000 points around x, near and far, are within the budget and better by more."""
    value, better = float(problem.bias_value(x @ problem.change)), 0
    for _ in range(3000):
        other = np.clip(x + rng.normal(size=len(x)) * rng.choice([0.003, 0.03, 0.3]), 0, 1)
        scale = min(1.0, np.sqrt(budget / max(1e-12, float(problem.cost.kl(other)))))
        better += int(problem.bias_value(other * scale @ problem.change) < value - by)
    return better


def test_nothing_near_and_no_other_start_is_better() -> None:
    rng = np.random.default_rng(4)
    problem, budget = objective(rng, 12), 0.15
    allowed = np.ones(12, dtype=bool)
    x = removed_shares(problem, allowed, budget)
    value = float(problem.bias_value(x @ problem.change))
    assert found_better(problem, x, budget, rng, 1e-4) == 0
    half = removed_shares(problem, allowed, budget / 4)
    assert problem.bias_value(half @ problem.change) > value + 1e-4  # control: the budget matters


def test_gates_reduce_more_than_a_set_of_the_same_cost() -> None:
    gained = []
    for seed in range(6):
        table = table_of(np.random.default_rng(seed))
        hard = select_heads(table, axis=AXIS, method="joint", gamma=0.3, alpha=0.2)
        soft = soft_selection(table, hard, AXIS, JOINT)
        problem = objective_of(table, [AXIS])
        xs = [indicator(hard.heads, 5, 6), 1 - np.array(soft.gates).reshape(-1)]
        values = [float(problem.bias_value(x @ problem.change)) for x in xs]
        costs = [float(problem.cost.kl(x)) for x in xs]
        assert costs[1] <= costs[0] * 1.01
        assert values[1] <= values[0] + 1e-6
        gained.append(values[0] - values[1])
        assert (np.array(soft.gates)[protected_heads(table, 0.3)] == 1).all()
        zero = {(int(a), int(b)) for a, b in np.argwhere(np.array(soft.gates) == 0)}
        assert set(soft.heads) == zero
        assert HeadSelection.from_json(soft.to_json()).gates == soft.gates
    assert max(gained) > 1e-3


def test_the_axis_that_does_worst_is_as_low_as_it_can_be() -> None:
    rng = np.random.default_rng(7)
    first = objective(rng, 12)
    second = replace(first.axes[0], axis="b", gap=np.array([-0.02, 0.05, -0.03]),
                     change=first.axes[0].change[:, rng.permutation(12)])  # fmt: skip
    problem = replace(first, axes=[first.axes[0], second], objective="worst")
    allowed, budget = np.ones(12, dtype=bool), 0.1
    x = removed_shares(problem, allowed, budget)
    value = float(problem.bias_value(x @ problem.change))
    assert found_better(problem, x, budget, rng, 5e-3) == 0
    # Control: the weighted sum lets one axis be worse, for the sake of the other.
    summed = removed_shares(replace(problem, objective="weighted"), allowed, budget)
    assert problem.bias_value(summed @ problem.change) > value + 1e-2


def test_what_has_no_gates_is_refused() -> None:
    table = table_of(np.random.default_rng(0))
    hard = select_heads(table, axis=AXIS, method="joint", gamma=0.3, alpha=0.2)
    with pytest.raises(SelectionError, match="not 'ppl_only'"):
        soft_selection(table, replace(hard, method="ppl_only"), AXIS, JOINT)
    for wrong in ([[0.5, 2.0]], [[0.5], "x"], "no", [[float("nan")]]):
        with pytest.raises(SelectionError, match="a number from 0 to 1"):
            HeadSelection.from_json({"heads": [], "gates": wrong})
