"""What is predicted of a selection before anything is removed, and kept beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from levelhead.records import HeadSelection
from levelhead.scores import ScoreTable
from levelhead.set_cost import indicator


def predicted(table: ScoreTable, chosen: HeadSelection) -> dict[str, Any]:
    """{"predicted": {"kl", "perplexity_increase"}} of a set of heads or of gates.

    Nothing where the run has no cost model (it was scored by an older levelhead, or other units
    than heads).
    """
    if table.cost is None or table.unit != "head":
        return {}
    if chosen.gates is None:
        x = indicator(chosen.heads, table.num_layers, table.num_heads)
    else:
        x = 1 - np.asarray(chosen.gates, float).reshape(-1)
    rise = float(np.expm1(table.cost.nll(x)))
    return {"predicted": {"kl": float(table.cost.kl(x)), "perplexity_increase": rise}}
