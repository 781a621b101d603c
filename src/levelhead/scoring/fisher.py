"""The Fisher matrix of the heads' gates: what `SetCost` makes of sets of heads.

F is the mean over text of outer products of d log p / dg at gates 1, labels sampled from the
model. Its diagonal is what `curvature` ranks single heads by; added up, that is too little for a
set by a factor of 2 to 4, since heads that do the same work are counted as if the others stayed.

As in `curvature`, sums over short stretches of positions take the place of single positions, and
rare windows in which a head's value is enormous are clipped: the head's derivatives in such a
window are scaled before outer products are taken, so that F stays positive semidefinite.
It does not know which sets will be asked about.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

CLIP_QUANTILE = 0.9
"""A head's value in a window counts for no more than this quantile of its windows'."""
MOST_HEADS = 2_000
"""With more, the matrix takes over 16 MB and a search over sets many seconds: it is said."""

Stretches = Float[np.ndarray, "windows stretches layers heads"]
PerWindow = Float[np.ndarray, "windows layers heads"]


def clipped(fisher: PerWindow) -> PerWindow:
    """Fisher values per window without the rare enormous ones."""
    out: PerWindow = np.minimum(fisher, np.quantile(fisher, CLIP_QUANTILE, axis=0))
    return out


def fisher_matrix(stretches: Stretches, fisher: PerWindow) -> Float[np.ndarray, "n n"]:
    """F: the mean over windows of outer products, each window's clipped head by head.

    Args:
        stretches: derivatives of log p by the gates, summed over each stretch and scaled so that
            the sum of their squares over a window is its Fisher value.
        fisher: those values; the diagonal of the result is their clipped mean.
    """
    windows, num_stretches = stretches.shape[:2]
    share = np.sqrt(clipped(fisher) / np.maximum(fisher, np.finfo(float).tiny))
    rows = (stretches * share[:, None]).reshape(windows * num_stretches, -1).astype(np.float64)
    out: Float[np.ndarray, "n n"] = rows.T @ rows / windows
    return out


def cost_warnings(num_heads: int) -> list[str]:
    """What the matrix takes, where that is much."""
    if num_heads <= MOST_HEADS:
        return []
    return [
        f"fisher.safetensors holds {num_heads:,} x {num_heads:,} numbers "
        f"({4 * num_heads**2 / 1e6:,.0f} MB): method joint searches among as many heads, which "
        "takes seconds to minutes"
    ]
