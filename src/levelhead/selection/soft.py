"""Soft pruning: scale heads instead of removing them, by gates from 0 to 1.

    minimise  B(gaps + changes (1 - g))   subject to   1/2 (1 - g)'F(1 - g) <= budget,  0 <= g <= 1

The same objective as for sets, with x = 1 - g free between 0 (a whole head) and 1 (no head). It is
convex, so that what is found is the optimum, not a local one. |.| is smoothed near 0, the axis that
does worst by a softmax over axes, and the budget is met by bisection on its price. Protected heads
keep gate 1. The budget is the predicted KL of a hard set, so that the two can be compared at equal
predicted cost. It knows arrays alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from levelhead.errors import SelectionError
from levelhead.records import HeadSelection
from levelhead.scores import ScoreTable
from levelhead.selection.joint import JointOptions, objective_of, pairs_of
from levelhead.selection.rules import PROTECTING, protected_heads
from levelhead.selection.set_objective import PUNISHMENT, SetObjective
from levelhead.set_cost import indicator

SMOOTHING = 1e-3
"""Of |gap|, as a share of the base bias."""
WORST_SMOOTHING = 3e-3
"""Of the largest of the axes' relative changes of bias."""
BISECTIONS = 30
DECIMALS = 4
"""Of gates: what is kept, folded and evaluated is the rounded value."""

Vector = Float[np.ndarray, " n"]


def soft_selection(
    table: ScoreTable, hard: HeadSelection, axis: str, joint: JointOptions
) -> HeadSelection:
    """Gates with the predicted KL of a hard selection; `heads` are then those of gate 0.

    Raises:
        SelectionError: the method needs no bias.
        ScoreTableError: the table lacks what method joint needs.
    """
    if hard.method not in PROTECTING:
        raise SelectionError(
            f"soft pruning takes method {' or '.join(PROTECTING)}, whose protection and cost it "
            f"keeps, not {hard.method!r}"
        )
    axes = joint.axes or (axis,)
    objective = objective_of(table, axes, joint.weights, joint.objective, joint.shrink)
    allowed = ~protected_heads(table, hard.gamma or 0.0).reshape(-1)
    x = indicator(hard.heads, table.num_layers, table.num_heads)
    shares = removed_shares(objective, allowed, float(objective.cost.kl(x)))
    gates = np.round(1 - shares, DECIMALS)
    gone = pairs_of(np.flatnonzero(gates == 0), table.num_heads)
    grid = gates.reshape(table.num_layers, table.num_heads)
    rows = tuple(tuple(row) for row in grid.tolist())
    return replace(hard, heads=tuple(gone), gates=rows)


def removed_shares(
    objective: SetObjective, allowed: Bool[np.ndarray, " n"], budget: float
) -> Vector:
    """x = 1 - gate of every head: the least predicted bias at no more predicted KL than `budget`.

    Rounded to `DECIMALS`; heads that are not allowed have 0.
    """
    low, high = 0.0, 1.0
    best = _solved(objective, allowed, 0.0, np.zeros(len(allowed)))
    if objective.cost.kl(best) <= budget:
        return np.round(best, DECIMALS)
    start = best
    while objective.cost.kl(start := _solved(objective, allowed, high, start)) > budget:
        low, high = high, 4 * high
    best = start
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = _solved(objective, allowed, middle, start)
        if objective.cost.kl(found) > budget:
            low = middle
        else:
            high, best = middle, found
        start = found
    return np.round(best, DECIMALS)


def _solved(
    objective: SetObjective, allowed: Bool[np.ndarray, " n"], price: float, start: Vector
) -> Vector:
    """The minimum of smoothed bias + price * KL over the box."""
    from scipy.optimize import Bounds, minimize

    change, matrix = objective.change[allowed], objective.cost.fisher[np.ix_(allowed, allowed)]
    gap = np.concatenate([axis.gap for axis in objective.axes])
    sizes = [len(axis.gap) for axis in objective.axes]
    limit = np.array([axis.limit for axis in objective.axes])
    first = np.cumsum([0, *sizes])[:-1]
    total = max(1e-12, float(np.abs(gap).sum()))
    soft = SMOOTHING * total
    # In units of the base bias, so that the solver's tolerances fit any axis.
    scale = total if objective.objective == "weighted" else 1.0

    def value(x: Vector) -> tuple[float, Vector]:
        moved = gap + x @ change
        size = np.sqrt(moved**2 + soft**2)
        biases = np.add.reduceat(size, first)
        bias, by_axis = _smooth_bias(objective, biases)
        over = np.maximum(0, biases - limit)
        bias += PUNISHMENT * (over**2).sum() / total
        by_axis = by_axis + 2 * PUNISHMENT * over / total
        cross = matrix @ x
        slope = change @ (np.repeat(by_axis, sizes) * moved / size)
        return (bias + price * float(x @ cross) / 2) / scale, (slope + price * cross) / scale

    box = Bounds(0, 1)
    options: Any = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-12, "gtol": 1e-8}
    found: Any = minimize(  # its overloads take no function that returns a pair
        value, start[allowed], jac=True, method="L-BFGS-B", bounds=box, options=options
    )
    out = np.zeros(len(allowed))
    out[allowed] = np.clip(found.x, 0, 1)
    return out


def _smooth_bias(
    objective: SetObjective, biases: Float[np.ndarray, " axes"]
) -> tuple[float, Float[np.ndarray, " axes"]]:
    """(B of the objective, its derivatives by the axes' biases), the worst axis smoothed."""
    weight = np.array([axis.weight for axis in objective.axes])
    if objective.objective == "weighted":
        return float(weight @ biases), weight
    used = weight > 0
    base = np.maximum([axis.bias for axis in objective.axes], 1e-12)
    worth = np.where(used, weight * (biases / base - 1), -np.inf) / WORST_SMOOTHING
    most = float(worth.max())
    share = np.exp(worth - most)
    value = WORST_SMOOTHING * (most + float(np.log(share.sum())))
    return value, share / share.sum() * weight / base
