"""A published table of head scores, from its file to the verdict on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from levelhead.diagnosis.by_seed import read_by_seed
from levelhead.diagnosis.verdict import diagnose_axes


def diagnose(path: str | Path, *, gamma: float = 0.3, alpha: float = 0.1) -> dict[str, Any]:
    """Whether a published head ranking is more than noise: a by-seed score table, examined.

    Args:
        path: a CSV with a row per axis, seed and head (`levelhead.diagnosis.by_seed`).
        gamma: share of heads protected, for the overlap of the sets that two seeds choose.
        alpha: share of heads pruned, likewise.

    Returns:
        `axes` (by name: `verdict`, `reliability`, `reliability_without_toxicity`, `overlap` and
        more), `bimodal` and `warnings`; docs/files.md describes them. Noise is found, not raised.

    Raises:
        ScoreTableError: a table that cannot be read, or has no replicates.
        SelectionError: shares that cannot be satisfied.
    """
    return diagnose_axes(read_by_seed(path), gamma=gamma, alpha=alpha)
