"""Which layers averaging over groups may change, and what a change is predicted to do.

    price   a layer's change costs what removing the whole layer would, times the share of what it
            writes on text that is changed; layers add up
    bias    falls by the share of the differences between groups that is taken out of a layer,
            weighted by how much the layer's heads do to bias

Both only order changes: the model decides. Pure: it knows a score table and numbers of layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from levelhead.scores import ScoreTable, bias_metric, column
from levelhead.selection.joint import SetChoice
from levelhead.set_cost import indicator

FEW = 4
"""Of so many layers or fewer, no part is tried by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a change of weights does inside: by layer, shares from 0."""

    left: Mapping[int, float]
    """Of the mean square of the groups' differences."""
    moved: Mapping[int, float]
    """Of the mean square of what is written on text."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Change:
        """Of the record of an edit."""
        left, moved = (
            {int(layer): float(share) for layer, share in record[key].items()}
            for key in ("left", "moved")
        )
        return cls(left=left, moved=moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShares:
    """What the score table says of whole layers."""

    axis: str
    bias: float
    """Of the base model."""
    weight: Float[np.ndarray, " layers"]
    """Share of what all heads do to bias; they add up to 1."""
    kl: Float[np.ndarray, " layers"]
    """Nats per token that removing all heads of a layer is predicted to cost."""
    calibration: float
    """dNLL per nat of KL."""

    @classmethod
    def of(cls, table: ScoreTable, axis: str) -> LayerShares:
        """From effects on bias and the cost model; without one, every layer costs a nat."""
        size = np.abs(table.effect(bias_metric(axis))).sum(1)
        total = float(size.sum())
        layers, heads = table.num_layers, table.num_heads
        kl = np.ones(layers)
        if table.cost is not None:
            whole = [[(layer, head) for head in range(heads)] for layer in range(layers)]
            kl = np.array([table.cost.kl(indicator(one, layers, heads)) for one in whole])
        return cls(
            axis=axis,
            bias=float(table.grid(column(bias_metric(axis), "base"))[0, 0]),
            weight=size / total if total > 0 else np.full(layers, 1 / layers),
            kl=kl,
            calibration=1.0 if table.cost is None else table.cost.calibration,
        )


def layer_sets(
    effect: Float[np.ndarray, "layers heads"], protected: Bool[np.ndarray, "layers heads"]
) -> list[list[int]]:
    """The layers to try: all that have a free head, and the half whose free heads add most bias."""
    free = [int(layer) for layer in np.flatnonzero(~protected.all(1))]
    if len(free) <= FEW:
        return [free]
    adds = np.where(protected, 0, np.maximum(effect, 0)).sum(1)
    half = sorted(free, key=lambda layer: -adds[layer])[: len(free) // 2]
    return [free, sorted(half)]


def predicted_change(axes: Sequence[LayerShares], change: Change) -> SetChoice:
    """What a change is predicted to do on each axis; `value` is their sum, all at most 0."""
    changes = {}
    for one in axes:
        taken = sum(one.weight[layer] * (1 - left) for layer, left in change.left.items())
        changes[one.axis] = -one.bias * float(taken)
    first = axes[0]
    kl = sum(first.kl[layer] * moved for layer, moved in change.moved.items())
    return SetChoice(
        heads=np.zeros(0, int),
        kl_weight=0.0,
        bias_change=changes,
        value=sum(changes.values()),
        kl=float(kl),
        ppl_increase=float(np.expm1(first.calibration * kl)),
    )
