"""What FASP would choose at other shares of protected heads, and what that is predicted to change.

Predictions add up the effects of single heads, on the signed gaps where a table has them. It knows
scores and their halves, and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScoreTableError, SelectionError
from levelhead.experiments.scored import Scored, base_value, effect_of
from levelhead.records import Head
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.selection import select_heads
from levelhead.selection.rules import protected_heads

GAMMAS = tuple(g / 10 for g in range(10))

Grid = Float[np.ndarray, "layers heads"]


def gamma_rows(scored: Scored, axis: str, gamma: float, alpha: float) -> list[dict[str, Any]]:
    """A row per gamma in `GAMMAS` and the given one; those that leave too few heads are omitted.

    Args:
        scored: a table, with its details and halves where it is of a run.
        axis: the axis heads are selected for.
        gamma: share protected that the others are compared with.
        alpha: share pruned.

    Returns:
        Rows of {"axis", "gamma", "num_protected", "num_heads", "heads", "bias_change",
        "bias_change_sum", "bias_change_held_out", "ppl_change", "ppl_change_held_out",
        "ppl_increase", "overlap"}, negative changes being falls. `bias_change`: from the summed
        effects on the signed gaps; `_sum`: minus the sum of z_bias; `_held_out`: the same for sets
        that one half of the run chooses and the other half judges, free of the winner's curse but
        chosen with half the data; `ppl_increase`: `ppl_change` as a share; `overlap`: share of
        the set that the set at the given gamma has too. None: not known.

    Raises:
        SelectionError: the given gamma and alpha cannot be satisfied together.
        ScoreTableError: a by-seed table.
    """
    table = scored.table
    if table is None:
        raise ScoreTableError(f"{scored.name} has no row per head to select from")
    usual = set(select_heads(table, axis=axis, gamma=gamma, alpha=alpha).heads)
    z_bias, z_ppl = effect_of(table, bias_metric(axis)), effect_of(table, PPL)
    halves = _half_tables(scored, axis)
    rows = []
    for share in sorted({*GAMMAS, gamma}):
        try:
            chosen = select_heads(table, axis=axis, gamma=share, alpha=alpha).heads
        except SelectionError:  # too few heads are left
            continue
        held_bias, held_ppl = _held_out(halves, axis, share, alpha)
        ppl_change = -_total(z_ppl, chosen)
        rows.append(
            {
                "axis": axis,
                "gamma": share,
                "num_protected": int(protected_heads(table, share).sum()),
                "num_heads": len(chosen),
                "heads": [list(head) for head in chosen],
                "bias_change": _by_gaps(scored, table, axis, chosen),
                "bias_change_sum": -_total(z_bias, chosen),
                "bias_change_held_out": held_bias,
                "ppl_change": ppl_change,
                "ppl_change_held_out": held_ppl,
                "ppl_increase": ppl_change / base_value(table, PPL)[0],
                "overlap": len(usual & set(chosen)) / len(chosen),
            }
        )
    return rows


def _by_gaps(scored: Scored, table: ScoreTable, axis: str, heads: Sequence[Head]) -> float | None:
    """Change of sum |gap| over the used subgroups when the heads' effects on them add up."""
    known = scored.details.get("axes", {}).get(axis)
    if known is None:
        return None
    change = 0.0
    for name in known["used"]:
        gap = known["gap"][name]
        moved = gap - _total(table.gap("effect", axis, name), heads)
        change += abs(moved) - abs(gap)
    return change


def _half_tables(scored: Scored, axis: str) -> list[tuple[ScoreTable, ScoreTable]]:
    """Score tables of both halves of every split; none where the run has no halves."""
    metrics = (PPL, bias_metric(axis))
    if not set(metrics) <= set(scored.halves):
        return []
    both = zip(*(scored.halves[m] for m in metrics), strict=False)
    return [(_half(metrics, p[0], b[0]), _half(metrics, p[1], b[1])) for p, b in both]


def _half(metrics: tuple[str, str], ppl: Grid, bias: Grid) -> ScoreTable:
    return ScoreTable.of_effects(dict(zip(metrics, (ppl, bias), strict=True)))


def _held_out(
    halves: Sequence[tuple[ScoreTable, ScoreTable]], axis: str, gamma: float, alpha: float
) -> tuple[float | None, float | None]:
    """Mean change of (bias, perplexity) that one half foretells for the set the other chooses."""
    if not halves:
        return None, None
    found = []
    for pair in halves:
        for chooser, judge in (pair, pair[::-1]):
            heads = select_heads(chooser, axis=axis, gamma=gamma, alpha=alpha).heads
            # These tables hold -z in the place of "without".
            found.append([-_total(judge.ranking(m), heads) for m in (bias_metric(axis), PPL)])
    bias, ppl = np.mean(found, axis=0)
    return float(bias), float(ppl)


def _total(values: Grid, heads: Sequence[Head]) -> float:
    layer, head = np.array(heads).T
    return float(values[layer, head].sum())
