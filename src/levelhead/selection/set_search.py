"""The best set of a given size under an objective, by adding heads one at a time and swapping.

Greedy: the head that lowers the objective most, until there are enough; from several first heads,
from the best pair (which finds two heads that undo each other's cost), and backwards from all.
Then the best swap of a member for another head, while one lowers the objective. All candidates are
judged at once from running sums, so that 270 heads take milliseconds. A local optimum: no swap of
one head for another improves it; what is better by exchanging two at once may be missed. No
randomness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from levelhead.selection.set_objective import SetObjective

STARTS = 8
"""Single heads that a greedy search begins with, one after the other."""
MOST_SWAPS = 10_000
"""Never met: each swap lowers the objective by more than rounding could."""
IMPROVEMENT = 1e-12
"""Relative to the objective's size: less is rounding."""

Heads = Int[np.ndarray, " count"]
Mask = Bool[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSpace:
    """Which sets may be chosen: how many heads, and of which."""

    count: int
    allowed: Mask
    cells: int = 1
    """Equal runs of neighbouring heads (layers, say) that each lose count / cells heads."""

    @property
    def cell(self) -> Int[np.ndarray, " n"]:
        """Of each head."""
        return np.arange(len(self.allowed)) // (len(self.allowed) // self.cells)


def search(objective: SetObjective, space: SetSpace, start: Heads | None = None) -> Heads:
    """The allowed heads that together have the least value found, ascending.

    Args:
        start: a set of the space to improve by swaps; none: the best of what greedy starts from
            the best single heads, from the best pair, and backwards from all heads lead to.
    """
    if start is not None:
        return swapped(objective, space, np.array(start))
    starts = [dropped(objective, space)]
    starts += [greedy(objective, space, (head,)) for head in _best_singles(objective, space)]
    if space.count >= 2 and (pair := best_pair(objective, space)) is not None:
        starts.append(greedy(objective, space, pair))
    ends = [swapped(objective, space, one) for one in _different(starts)]
    return min(ends, key=lambda heads: value_of(objective, heads))


def greedy(objective: SetObjective, space: SetSpace, first: tuple[int, ...] = ()) -> Heads:
    """Heads added one at a time, each the best beside those there are; ties to the smaller.

    Args:
        first: heads to begin with.
    """
    change, matrix = objective.change, objective.cost.fisher
    free, cell, most = space.allowed.copy(), space.cell, space.count // space.cells
    half = np.diag(matrix) / 2
    moved, crossed, quadratic = np.zeros(change.shape[1]), np.zeros(len(change)), 0.0
    members: list[int] = []
    for number in range(space.count):
        cost = quadratic + crossed + half
        if number < len(first):
            new = first[number]
        else:
            value = objective.bias_value(moved + change) + objective.kl_weight * cost
            new = int(np.argmin(np.where(free, value, np.inf)))
        members.append(new)
        free[new] = False
        if (cell[members] == cell[new]).sum() == most:
            free[cell == cell[new]] = False
        moved, crossed, quadratic = moved + change[new], crossed + matrix[new], float(cost[new])
    return np.array(sorted(members), dtype=np.int64)


def dropped(objective: SetObjective, space: SetSpace) -> Heads:
    """All allowed heads, less one at a time, each the one that the rest is best without."""
    change, matrix = objective.change, objective.cost.fisher
    inside, cell, most = space.allowed.copy(), space.cell, space.count // space.cells
    half, x = np.diag(matrix) / 2, inside.astype(float)
    moved, crossed = x @ change, matrix @ x
    quadratic = float(x @ crossed / 2)
    left = np.bincount(cell[inside], minlength=space.cells)
    while inside.sum() > space.count:
        cost = quadratic - crossed + half
        value = objective.bias_value(moved - change) + objective.kl_weight * cost
        out = int(np.argmin(np.where(inside & (left[cell] > most), value, np.inf)))
        inside[out] = False
        left[cell[out]] -= 1
        moved, crossed, quadratic = moved - change[out], crossed - matrix[out], float(cost[out])
    return np.flatnonzero(inside)


def best_pair(objective: SetObjective, space: SetSpace) -> tuple[int, int] | None:
    """The two allowed heads with the least value together; None where cells keep them apart."""
    if space.cells > 1:
        return None
    change, matrix = objective.change, objective.cost.fisher
    half, heads = np.diag(matrix) / 2, np.flatnonzero(space.allowed)
    best, least = None, np.inf
    for place, one in enumerate(heads[:-1]):
        others = heads[place + 1 :]
        cost = half[one] + half[others] + matrix[one, others]
        value = objective.bias_value(change[one] + change[others]) + objective.kl_weight * cost
        if value.min() < least:
            least = float(value.min())
            best = (int(one), int(others[np.argmin(value)]))
    return best


def _best_singles(objective: SetObjective, space: SetSpace) -> list[int]:
    """The best heads alone, the very best first."""
    value = objective.bias_value(objective.change)
    value = value + objective.kl_weight * np.diag(objective.cost.fisher) / 2
    order = np.argsort(np.where(space.allowed, value, np.inf), kind="stable")
    return [int(head) for head in order[: min(STARTS, int(space.allowed.sum()))]]


def _different(sets: list[Heads]) -> list[Heads]:
    return list({tuple(one.tolist()): one for one in sets}.values())


def swapped(objective: SetObjective, space: SetSpace, members: Heads) -> Heads:
    """The set after the best swap again and again, until none lowers the objective."""
    change, matrix, cell = objective.change, objective.cost.fisher, space.cell
    inside = np.zeros(len(change), dtype=bool)
    inside[members] = True
    for _ in range(MOST_SWAPS):
        x = inside.astype(float)
        out, new = np.flatnonzero(inside), np.flatnonzero(space.allowed & ~inside)
        if len(out) == 0 or len(new) == 0:
            break
        crossed = matrix @ x
        quadratic = x @ crossed / 2
        moved = x @ change
        cost = (
            quadratic
            + (np.diag(matrix)[out] / 2 - crossed[out])[:, None]
            + (np.diag(matrix)[new] / 2 + crossed[new])[None]
            - matrix[np.ix_(out, new)]
        )
        value = objective.bias_value(moved - change[out][:, None] + change[new][None])
        value = value + objective.kl_weight * cost
        value = np.where(cell[out][:, None] == cell[new][None], value, np.inf)
        now = float(objective.bias_value(moved) + objective.kl_weight * quadratic)
        best = int(np.argmin(value))
        if not value.flat[best] < now - IMPROVEMENT * (1 + abs(now)):
            break
        i, j = np.unravel_index(best, value.shape)
        inside[out[i]], inside[new[j]] = False, True
    return np.flatnonzero(inside)


def value_of(objective: SetObjective, members: Heads) -> float:
    """The objective of a set."""
    x: Float[np.ndarray, " n"] = np.zeros(len(objective.cost.slope))
    x[members] = 1.0
    return float(objective.of(x))
