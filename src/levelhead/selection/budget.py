"""Sets of heads within a perplexity budget, by predictions: which are worth reading with the model?

FASP's grid of gamma and alpha (arXiv 2312.15398, section 4, and smaller alphas), method joint with
the budget as its limit, and gates in the place of either. What each would do to bias and perplexity
is predicted by the same models, so that all can be ordered. Pure: it knows a score table.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from levelhead.errors import SelectionError
from levelhead.price import check_budget
from levelhead.records import HeadSelection
from levelhead.scores import ScoreTable, head_count
from levelhead.selection.joint import (
    JointOptions,
    SetChoice,
    described,
    described_shares,
    objective_of,
)
from levelhead.selection.rules import protected_heads, select_heads
from levelhead.selection.soft import soft_selection
from levelhead.set_cost import indicator

METHODS = ("joint", "fasp")
"""What is searched."""
ALPHAS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2)
GAMMAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""The grids of arXiv 2312.15398, section 4."""
SMALL_ALPHAS = (0.005, 0.01, 0.015, 0.03, 0.05)
"""A small budget may hold a head or two."""
JOINT_GAMMA = 0.3
"""Share that joint leaves alone: its costs protect the other heads."""
REACH = (1.0, 0.6, 0.35, 0.2, 0.1, 0.05)
"""Expected prices of the sets to read, as shares of the budget: expectations err to both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A set, how it was found, and what is predicted of it."""

    selection: HeadSelection
    predicted: SetChoice


Family = Callable[[Candidate], Hashable]


def method_of(candidate: Candidate) -> Hashable:
    """The family of a set of heads: the method that found it."""
    return candidate.selection.method


def candidates(
    table: ScoreTable,
    axis: str,
    budget: float,
    options: JointOptions,
    methods: Sequence[str] = METHODS,
) -> list[Candidate]:
    """Every set of the grid and of joint's frontier once, by rising predicted price.

    Args:
        options: of the objective: axes, weights.
        methods: whose sets, of `METHODS`.

    Raises:
        ConfigError: a budget that is no share above 0.
        ScoreTableError: the table lacks the axis, its gaps or the cost model.
    """
    check_budget(budget)
    axes = options.axes or (axis,)
    objective = objective_of(table, axes, options.weights, options.objective, options.shrink)
    total = table.num_layers * table.num_heads
    found: dict[tuple[int, ...], Candidate] = {}
    sets = _grid(table, axis) if "fasp" in methods else []
    sets += _joint(table, axis, budget, options) if "joint" in methods else []
    for selection in sets:
        flat = np.flatnonzero(indicator(selection.heads, table.num_layers, table.num_heads))
        key = tuple(int(head) for head in flat)
        if 0 < len(key) < total and key not in found:
            weight = float((selection.details or {}).get("lambda", 0.0))
            found[key] = Candidate(
                selection=selection, predicted=described(objective, flat, weight)
            )
    return sorted(found.values(), key=lambda one: one.predicted.ppl_increase)


def worth_reading(
    found: Sequence[Candidate],
    budget: float,
    count: int,
    *,
    dearer: float = 1.0,
    read: Sequence[Candidate] = (),
    family: Family = method_of,
) -> list[Candidate]:
    """At most `count` sets to read with the model, the best predicted at several prices.

    At first the best of each family at the budget itself, the best of them first, then the best at
    lower prices. After sets were read, the best of all at the budget and at lower prices.

    Args:
        dearer: what a set costs as a multiple of what is predicted.
        read: sets that were read before; they are left out.
        family: what candidates are alike in.
    """
    picked: list[Candidate] = []
    left = [one for one in found if not any(one is other for other in read)]

    def take(among: Sequence[Candidate], limit: float) -> None:
        fits = [one for one in among if one.predicted.ppl_increase * dearer <= limit]
        if fits:
            best = min(fits, key=lambda one: one.predicted.value)
            if not any(best is one for one in picked):
                picked.append(best)

    families: dict[Hashable, list[Candidate]] = {}
    for one in () if read else sorted(left, key=lambda one: one.predicted.value):
        families.setdefault(family(one), []).append(one)
    for alike in families.values():
        take(alike, budget)
    for share in REACH:
        take(left, share * budget)
    if not picked and left:
        picked.append(left[0])  # the cheapest: predictions may be too dear
    return picked[:count]


def softened(
    table: ScoreTable, candidate: Candidate, axis: str, options: JointOptions
) -> Candidate:
    """Gates with the predicted KL of a candidate's set, in its place."""
    soft = soft_selection(table, candidate.selection, axis, options)
    objective = objective_of(table, options.axes or (axis,), options.weights, options.objective)
    x = 1 - np.asarray(soft.gates, float).reshape(-1)
    flat = np.flatnonzero(x == 1)
    predicted = described_shares(objective, x, flat, candidate.predicted.kl_weight)
    return Candidate(selection=soft, predicted=predicted)


def best_predicted(found: Sequence[Candidate], budget: float) -> Candidate:
    """The largest predicted fall of bias within the budget.

    Raises:
        SelectionError: no set is predicted to keep it.
    """
    fits = [one for one in found if one.predicted.ppl_increase <= budget]
    if not fits:
        raise no_set_keeps(budget, found[0].predicted.ppl_increase if found else None)
    return min(fits, key=lambda one: one.predicted.value)


def no_set_keeps(budget: float, least: float | None = None) -> SelectionError:
    """The error where nothing is predicted to be within the budget.

    least: what the cheapest set is predicted to cost; none: there is no set.
    """
    cheapest = "" if least is None else f"; the cheapest is predicted to raise it by {least:.1%}"
    return SelectionError(
        f"no set of heads keeps perplexity within {budget:.1%}{cheapest}: give a larger "
        "--max-ppl-increase, or --gamma and --alpha for a set of your own choice"
    )


def _grid(table: ScoreTable, axis: str) -> list[HeadSelection]:
    """FASP at every gamma and alpha that leave enough heads."""
    total = table.num_layers * table.num_heads
    alphas = sorted({*ALPHAS, *SMALL_ALPHAS})
    return [
        select_heads(table, axis=axis, gamma=gamma, alpha=alpha)
        for gamma, alpha in product(GAMMAS, alphas)
        if 0 < head_count(alpha, total) <= total - head_count(gamma, total)
    ]


def _joint(
    table: ScoreTable, axis: str, budget: float, options: JointOptions
) -> list[HeadSelection]:
    """The sets of joint's frontiers, of any number of heads that the grid has, too."""
    left = int((~protected_heads(table, JOINT_GAMMA)).sum())
    total = table.num_layers * table.num_heads
    alpha = min(max(ALPHAS), left / total)
    if head_count(alpha, total) == 0:
        return []
    limited = replace(options, kl_weight=None, max_ppl_increase=budget)
    chosen = select_heads(
        table, axis=axis, method="joint", gamma=JOINT_GAMMA, alpha=alpha, joint=limited
    )
    details = chosen.details or {}
    return [
        HeadSelection.of(
            [(layer, head) for layer, head in row["heads"]],
            method="joint",
            gamma=JOINT_GAMMA,
            alpha=(len(row["heads"]) + 0.5) / total,
            details={"lambda": row["lambda"]},
        )
        for row in details["frontier"]["joint"]
    ]
