"""What a set of heads is judged by: predicted bias and predicted cost, for many sets at a time.

    minimise  B(gaps + sum of signed changes over the set)  +  lambda * 1/2 x'Fx

The bias side adds up over heads before the absolute value is taken, the cost side is a quadratic
form. Of several axes, B is their weighted sum, or the axis that does worst. An axis whose predicted
bias leaves the interval of the base model's is punished out of reach. It knows arrays alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from levelhead.set_cost import SetCost

AxisObjective = Literal["weighted", "worst"]
OBJECTIVES: tuple[AxisObjective, ...] = ("weighted", "worst")
PUNISHMENT = 1e3
"""Per unit of bias above an axis' limit: more than any set could gain elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisGaps:
    """The gaps of one axis and what every head's removal changes in them."""

    axis: str
    gap: Float[np.ndarray, " subgroups"]
    """d_s = T_S - T_s of the base model."""
    change: Float[np.ndarray, "subgroups n"]
    """Of each gap when a head is removed."""
    limit: float
    """Predicted bias may not exceed it: the upper end of the base bias' interval."""
    weight: float = 1.0
    """Of the axis in the objective; 0: only its limit counts."""

    @property
    def bias(self) -> float:
        """Of the base model: sum of |gap|."""
        return float(np.abs(self.gap).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class SetObjective:
    """The value of sets, from the sum of their changes and their quadratic cost."""

    axes: Sequence[AxisGaps]
    cost: SetCost
    kl_weight: float = 0.0
    """lambda: units of bias that a nat of predicted KL per token is worth."""
    objective: AxisObjective = "weighted"

    @property
    def change(self) -> Float[np.ndarray, "n gaps"]:
        """Of all axes' gaps, a row per head."""
        return np.concatenate([axis.change for axis in self.axes]).T

    def biases(self, moved: Float[np.ndarray, "*sets gaps"]) -> Float[np.ndarray, "*sets axes"]:
        """Predicted bias of each axis when the gaps have moved so far."""
        start = np.cumsum([0, *(len(axis.gap) for axis in self.axes)])[:-1]
        gaps = np.abs(np.concatenate([axis.gap for axis in self.axes]) + moved)
        out: Float[np.ndarray, "*sets axes"] = np.add.reduceat(gaps, start, axis=-1)
        return out

    def bias_value(self, moved: Float[np.ndarray, "*sets gaps"]) -> Float[np.ndarray, " *sets"]:
        """B: predicted bias as the objective has it, with the punishment of axes that grew."""
        found = self.biases(moved)
        weight = np.array([axis.weight for axis in self.axes])
        over = np.maximum(0, found - np.array([axis.limit for axis in self.axes]))
        if self.objective == "weighted":
            value = found @ weight
        else:
            base = np.maximum([axis.bias for axis in self.axes], 1e-12)
            used = np.flatnonzero(weight)
            value = (weight * (found / base - 1))[..., used].max(-1)
        out: Float[np.ndarray, " *sets"] = value + PUNISHMENT * over.sum(-1)
        return out

    def of(self, x: Float[np.ndarray, "*sets n"]) -> Float[np.ndarray, " *sets"]:
        """The value of sets (or gates: x = 1 - gate)."""
        out: Float[np.ndarray, " *sets"] = self.bias_value(x @ self.change)
        return out + self.kl_weight * self.cost.kl(x)


def one_hot(members: Int[np.ndarray, " count"], n: int) -> Float[np.ndarray, " n"]:
    """x of a set of flat head numbers."""
    x = np.zeros(n)
    x[members] = 1.0
    return x
