"""Method joint: choose the set of heads, not heads one at a time.

FASP ranks heads by their own effects and takes the top. Effects on bias do add up; costs do not:
heads that do the same work are cheap to remove one by one and dear together. So sets are compared
by predicted bias and predicted KL (`SetObjective`), with a weight lambda between the two that is
swept: a frontier from "least bias" to "least cost", all inside FASP's protection.

Unless lambda is given, the set to take is the cheapest on the frontier that keeps `KEPT` of the
reduction that FASP's own set is predicted to give, so that the two are compared at equal effect.
It knows a score table with a cost model; whether the predictions hold is for others to measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScoreTableError, SelectionError
from levelhead.records import Head
from levelhead.scores import ScoreTable, bias_metric
from levelhead.selection.set_objective import AxisGaps, AxisObjective, SetObjective, one_hot
from levelhead.selection.set_search import Heads, SetSpace, search, value_of
from levelhead.set_cost import SetCost

SHRINK = 0.6
"""What sets of a tenth of the heads change, as a share of the sum of their heads' changes.

First-order effects of many heads saturate together: 0.44 to 0.7 on SmolLM2-135M, where the sums
keep their direction (correlation over subgroups 0.99).
"""
KEPT = 0.95
"""Of the predicted reduction of FASP's set at the same gamma and alpha: what joint must keep."""
WORTH = 0.7
"""Of the same: what a set must be predicted to keep to be read with the model."""
SWEEP = 24
"""Weights of KL on the frontier, besides 0."""
SPAN = (0.02, 50.0)
"""From and to which multiple of the typical exchange rate between bias and KL they go."""
SIZES = 6
"""Numbers of heads tried where perplexity is the limit instead."""
REACH = 1.96
"""Standard errors from the base bias to the limit of an axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JointOptions:
    """What a user may choose about method joint."""

    axes: tuple[str, ...] = ()
    """Axes to reduce together; none: the one that heads are selected for."""
    weights: tuple[float, ...] = ()
    """One per axis; none: all 1."""
    objective: AxisObjective = "weighted"
    kl_weight: float | None = None
    """lambda; None: swept."""
    max_ppl_increase: float | None = None
    """Share by which predicted perplexity may rise, with any number of heads up to the given one;
    None: that number of heads, and what FASP's set is predicted to reduce."""
    shrink: float = SHRINK
    """Of the summed effects on gaps: measured where finalists are read, else the default."""


JOINT = JointOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetChoice:
    """A set on the frontier and what is predicted of it, against the base model."""

    heads: Heads
    """Flat head numbers, ascending."""
    kl_weight: float
    """lambda."""
    bias_change: Mapping[str, float]
    """By axis; negative: bias falls."""
    value: float
    """Of the bias side of the objective, relative to the base model's: what lambda trades."""
    kl: float
    """Nats per token."""
    ppl_increase: float
    """As a share."""

    def to_json(self, num_heads: int) -> dict[str, Any]:
        """The form of frontier.json."""
        return {
            "lambda": self.kl_weight,
            "heads": [list(divmod(int(head), num_heads)) for head in self.heads],
            "predicted": self.predicted(),
        }

    def predicted(self) -> dict[str, Any]:
        """The form of selection.json's `predicted`."""
        return {
            "bias_change": dict(self.bias_change),
            "kl": self.kl,
            "perplexity_increase": self.ppl_increase,
        }


def cost_of(table: ScoreTable) -> SetCost:
    """The table's cost model.

    Raises:
        ScoreTableError: it has none.
    """
    if table.cost is None:
        raise ScoreTableError(
            "the scores have no Fisher matrix (fisher.safetensors), which methods joint and "
            "fisher_only choose sets by; score the model again, or leave these methods out"
        )
    return table.cost


def axis_gaps(
    table: ScoreTable, axis: str, weight: float = 1.0, shrink: float = SHRINK
) -> AxisGaps:
    """The gaps of an axis and every head's signed effects on them, as they count in a set.

    Raises:
        ScoreTableError: the table lacks them.
    """
    names = table.subgroups(axis)
    if not names:
        table.grid(f"bias_without_{axis}")  # the error that names the axes there are
        raise ScoreTableError(
            f"the scores have no base gaps of axis {axis!r} (gap_base_{axis}_SUBGROUP), which "
            "method joint adds signed effects to; score the model again"
        )
    gap = np.array([table.gap("base", axis, name)[0, 0] for name in names])
    error = np.array([table.gap("base_se", axis, name)[0, 0] for name in names])
    effect = np.stack([table.gap("effect", axis, name).reshape(-1) for name in names])
    limit = float(np.abs(gap).sum() + REACH * np.sqrt((error**2).sum()))
    return AxisGaps(axis=axis, gap=gap, change=-shrink * effect, limit=limit, weight=weight)


def objective_of(
    table: ScoreTable,
    axes: Sequence[str],
    weights: Sequence[float] = (),
    objective: AxisObjective = "weighted",
    shrink: float = SHRINK,
) -> SetObjective:
    """The objective over these axes; the table's other axes are held to their limits.

    Raises:
        SelectionError: not one weight above 0 per axis.
        ScoreTableError: the table lacks an axis or the cost model.
    """
    given = list(weights) or [1.0] * len(axes)
    if len(given) != len(axes) or not all(np.isfinite(w) and w > 0 for w in given):
        raise SelectionError(
            f"weights {', '.join(f'{w:g}' for w in given)} for axes {', '.join(axes)}: give one "
            "number above 0 for each axis, in the same order"
        )
    cost = cost_of(table)
    found = [axis_gaps(table, axis, w, shrink) for axis, w in zip(axes, given, strict=True)]
    others = [axis for axis in table.axes if axis not in axes and table.subgroups(axis)]
    found += [axis_gaps(table, axis, 0.0, shrink) for axis in others]
    return SetObjective(axes=found, cost=cost, objective=objective)


def described(objective: SetObjective, heads: Heads, kl_weight: float) -> SetChoice:
    """What the objective's models predict of a set."""
    return described_shares(objective, one_hot(heads, len(objective.cost.slope)), heads, kl_weight)


def described_shares(
    objective: SetObjective, x: Float[np.ndarray, " n"], heads: Heads, kl_weight: float
) -> SetChoice:
    """The same of shares removed, 0 to 1, of which `heads` are those that go altogether."""
    moved = x @ objective.change
    biases = objective.biases(moved)
    pairs = zip(objective.axes, biases, strict=True)
    value = objective.bias_value(moved) - objective.bias_value(0 * moved)
    return SetChoice(
        heads=heads,
        kl_weight=kl_weight,
        bias_change={axis.axis: float(bias - axis.bias) for axis, bias in pairs},
        value=float(value),
        kl=float(objective.cost.kl(x)),
        ppl_increase=float(np.expm1(objective.cost.nll(x))),
    )


def frontier(
    objective: SetObjective,
    space: SetSpace,
    *,
    kl_weights: Sequence[float] = (),
    start: Heads | None = None,
) -> list[SetChoice]:
    """The best set found at every lambda, each set once, by rising lambda.

    Every lambda's search starts greedily, from the set of the lambda before, and from `start`.

    Args:
        kl_weights: the lambdas; none: 0 and a sweep about the exchange rate of bias and KL.
    """
    found: list[SetChoice] = []
    if not kl_weights:
        first = described(objective, search(objective, space), 0.0)
        rate = max(-first.value, 1e-9) / max(first.kl, 1e-9)
        kl_weights = [0.0, *(float(w) for w in rate * np.geomspace(*SPAN, SWEEP))]
    for weight in kl_weights:
        weighted = replace(objective, kl_weight=weight)
        starts = [start, found[-1].heads if found else None]
        tried = [search(weighted, space)]
        tried += [search(weighted, space, begin) for begin in starts if begin is not None]
        best = min(tried, key=lambda heads: value_of(weighted, heads))
        if not any(np.array_equal(best, choice.heads) for choice in found):
            found.append(described(objective, best, weight))
    return found


def choose(
    choices: Sequence[SetChoice],
    *,
    least_reduction: float | None = None,
    most_ppl_increase: float | None = None,
) -> SetChoice:
    """The set to take from a frontier.

    With `most_ppl_increase`: the largest reduction whose predicted perplexity stays within it.
    Else the least KL among the sets that reduce the objective's bias by `least_reduction`. Where
    none fits, the one that misses by least.
    """
    if most_ppl_increase is not None:
        fits = [c for c in choices if c.ppl_increase <= most_ppl_increase]
        return (
            min(fits, key=lambda c: c.value) if fits else min(choices, key=lambda c: c.ppl_increase)
        )
    least = 0.0 if least_reduction is None else least_reduction
    fits = [c for c in choices if -c.value >= least]
    return min(fits, key=lambda c: c.kl) if fits else min(choices, key=lambda c: c.value)


def joint_frontier(
    table: ScoreTable, axis: str, space: SetSpace, options: JointOptions
) -> tuple[list[SetChoice], SetChoice]:
    """(the frontier, FASP's own set in the same space: what the frontier is measured by).

    Raises:
        SelectionError, ScoreTableError: as `objective_of`.
    """
    axes = options.axes or (axis,)
    objective = objective_of(table, axes, options.weights, options.objective, options.shrink)
    plain = described(objective, _top(table, axes[0], space), 0.0)
    weights = () if options.kl_weight is None else (options.kl_weight,)
    if options.max_ppl_increase is None or space.cells > 1:
        return frontier(objective, space, kl_weights=weights, start=plain.heads), plain
    sizes = np.unique(np.geomspace(max(1, space.count // 10), space.count, SIZES).round())
    spaces = [replace(space, count=int(size)) for size in sizes]
    found = [one for own in spaces for one in frontier(objective, own, kl_weights=weights)]
    return found, plain


def joint_set(
    table: ScoreTable, axis: str, space: SetSpace, options: JointOptions
) -> tuple[SetChoice, dict[str, Any]]:
    """The set that method joint takes, by its predictions alone; with its lambda and frontier.

    Raises:
        SelectionError, ScoreTableError: as `objective_of`.
    """
    choices, plain = joint_frontier(table, axis, space, options)
    choice = choose(
        choices,
        least_reduction=-KEPT * plain.value,
        most_ppl_increase=options.max_ppl_increase,
    )
    rows = [one.to_json(table.num_heads) for one in choices]
    found = {
        "lambda": choice.kl_weight,
        "frontier": {
            "base_bias": {axis: axis_gaps(table, axis).bias for axis in options.axes or (axis,)},
            "fasp": plain.to_json(table.num_heads),
            "joint": rows,
        },
    }
    return choice, found


def cheapest_set(
    table: ScoreTable, axis: str, space: SetSpace, options: JointOptions
) -> tuple[SetChoice, dict[str, Any]]:
    """The set with the least predicted KL, whatever is protected: method `fisher_only`.

    Raises:
        ScoreTableError: the table has no cost model.
    """
    cost = cost_of(table)
    n = len(cost.slope)
    nothing = AxisGaps(axis="", gap=np.zeros(1), change=np.zeros((1, n)), limit=np.inf, weight=0.0)
    objective = SetObjective(axes=[nothing], cost=cost, kl_weight=1.0)
    return replace(described(objective, search(objective, space), 1.0), bias_change={}), {}


def _top(table: ScoreTable, axis: str, space: SetSpace) -> Heads:
    """The heads with the largest effect on bias, one at a time, as FASP takes them."""
    score = np.where(space.allowed, table.ranking(bias_metric(axis)).reshape(-1), -np.inf)
    by_cell = np.argsort(-score.reshape(space.cells, -1), axis=1, kind="stable")
    first = by_cell[:, : space.count // space.cells]
    size = len(score) // space.cells
    return np.sort((first + size * np.arange(space.cells)[:, None]).reshape(-1))


def pairs_of(heads: Heads, num_heads: int) -> list[Head]:
    """Flat head numbers as (layer, head)."""
    return [(int(head) // num_heads, int(head) % num_heads) for head in heads]


def finalists(kl: Sequence[float], values: Sequence[float], plain: float, count: int) -> list[int]:
    """Which sets of a frontier are worth reading with the model, evenly spread by log KL.

    Down to `WORTH` of the reduction predicted for FASP's set: predictions are not exact.

    Args:
        kl: predicted, of each set.
        values: the objective's predicted change of bias, likewise.
        plain: the same of FASP's set.
    """
    worth = [i for i, value in enumerate(values) if value <= WORTH * plain]
    worth = sorted(worth or [int(np.argmin(values))], key=lambda i: kl[i])
    level = np.log(np.maximum([kl[i] for i in worth], 1e-12))
    wanted = np.linspace(level[0], level[-1], count)
    return [worth[i] for i in sorted({int(np.abs(level - one).argmin()) for one in wanted})]
