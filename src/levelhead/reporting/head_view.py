"""Which heads the page marks and the effects it shows of them, out of table and selection.

Knows which columns a score table may lack; an effect that the table cannot give is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScoreTableError
from levelhead.records import Head, HeadSelection
from levelhead.scores import PPL, ScoreTable, bias_metric

OTHER, PROTECTED, PRUNED = "neither", "protected", "pruned"


@dataclass(frozen=True, slots=True)
class Effect:
    """metric(with head) - metric(without head) of every head, and its standard error if known."""

    values: Float[np.ndarray, "layers heads"]
    stderr: Float[np.ndarray, "layers heads"] | None

    def of(self, head: Head) -> tuple[float, float | None]:
        """The effect of one head and its standard error."""
        error = None if self.stderr is None else float(self.stderr[head])
        return float(self.values[head]), error


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadView:
    """All that the page shows of single heads."""

    num_layers: int
    num_heads: int
    pruned: frozenset[Head]
    protected: frozenset[Head]
    bias: dict[str, Effect]
    """z_bias by axis; the axis heads were selected for comes first."""
    ppl: Effect | None

    def status(self, head: Head) -> str:
        """pruned, protected or neither."""
        if head in self.pruned:
            return PRUNED
        return PROTECTED if head in self.protected else OTHER

    def with_status(self, status: str) -> list[Head]:
        """The heads of one status, sorted."""
        everyone = ((i, j) for i in range(self.num_layers) for j in range(self.num_heads))
        return [head for head in everyone if self.status(head) == status]

    def count(self, status: str) -> int:
        """How many heads have a status."""
        return len(self.with_status(status))


def head_view(table: ScoreTable, selection: HeadSelection) -> HeadView:
    """Collect what there is; heads outside the table's grid are left out."""
    details = selection.details or {}
    grid = (table.num_layers, table.num_heads)
    axes = sorted(table.axes, key=lambda axis: axis != details.get("axis"))
    effects = {axis: _effect(table, bias_metric(axis)) for axis in axes}
    return HeadView(
        num_layers=table.num_layers,
        num_heads=table.num_heads,
        pruned=_heads(selection.heads, grid),
        protected=_heads(details.get("protected"), grid),
        bias={axis: effect for axis, effect in effects.items() if effect is not None},
        ppl=_effect(table, PPL),
    )


def _effect(table: ScoreTable, metric: str) -> Effect | None:
    try:
        values = table.effect(metric)
    except ScoreTableError:
        return None
    try:
        return Effect(values, table.stderr(metric))
    except ScoreTableError:
        return Effect(values, None)


def _heads(pairs: Any, grid: tuple[int, int]) -> frozenset[Head]:
    found = []
    for pair in pairs if isinstance(pairs, list | tuple) else ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            continue
        layer, head = pair
        if isinstance(layer, int) and isinstance(head, int):
            inside = 0 <= layer < grid[0] and 0 <= head < grid[1]
            found += [(layer, head)] if inside else []
    return frozenset(found)
