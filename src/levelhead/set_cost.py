"""What removing a SET of heads costs: a quadratic form in which heads share their costs.

    KL(base || pruned) per token ~ 1/2 x'Fx            x_h = 1 for a head that is removed, else 0
    dNLL per token               ~ -b'x + c 1/2 x'Fx

F is the Fisher matrix of the heads' gates times the level that sets have, b the mean gradient of
the NLL by the gates, c a calibration: `levelhead.scoring.fisher` and `set_calibration` say how they
are estimated. x may be any number from 0 to 1: 1 - gate. Heads are flattened by (layer, head). It
knows nothing of models and of what sets are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCost:
    """The quadratic form of a model's N = layers x heads heads."""

    fisher: Float[np.ndarray, "n n"]
    """F per token with its level, symmetric, positive semidefinite."""
    slope: Float[np.ndarray, " n"]
    """b: d NLL per token / d gate at gates 1."""
    calibration: float
    """c, at least 0."""

    def kl(self, x: Float[np.ndarray, "*sets n"]) -> Float[np.ndarray, " *sets"]:
        """Predicted KL(base || pruned), nats per token, at least 0."""
        out: Float[np.ndarray, " *sets"] = np.maximum(0, ((x @ self.fisher) * x).sum(-1) / 2)
        return out

    def nll(self, x: Float[np.ndarray, "*sets n"]) -> Float[np.ndarray, " *sets"]:
        """Predicted rise of the mean NLL per token, nats; perplexity rises by exp of it."""
        out: Float[np.ndarray, " *sets"] = self.calibration * self.kl(x) - x @ self.slope
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """As `fisher.safetensors` holds it."""
        c = np.array([self.calibration])
        return {"fisher": self.fisher, "slope": self.slope, "calibration": c}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> SetCost | None:
        """Read what `arrays` gave; None of an empty mapping."""
        if not arrays:
            return None
        return cls(
            fisher=np.asarray(arrays["fisher"], float),
            slope=np.asarray(arrays["slope"], float),
            calibration=float(arrays["calibration"][0]),
        )


def indicator(
    heads: Iterable[tuple[int, int]], num_layers: int, num_heads: int
) -> Float[np.ndarray, " n"]:
    """x of a set of (layer, head)."""
    x = np.zeros(num_layers * num_heads)
    for layer, head in heads:
        x[layer * num_heads + head] = 1.0
    return x
