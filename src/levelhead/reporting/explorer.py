"""What the page's interactive head map computes with: every head's numbers, in full precision.

The page's script (`page/selection.js`) repeats the rule of `levelhead.selection.rules` on the
rankings given here, bit for bit, and adds up effects. It estimates nothing either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from statistics import median
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScoreTableError
from levelhead.price import worst_price
from levelhead.reporting import numbers
from levelhead.reporting.escape import visible
from levelhead.reporting.estimates import estimate, said, said_percent
from levelhead.reporting.figures import style
from levelhead.reporting.figures.heads import colour_limit
from levelhead.reporting.findings import Findings
from levelhead.reporting.head_view import Effect, HeadView
from levelhead.reporting.sections.heads import bias_caption, ppl_caption
from levelhead.reporting.summary import mapping, records, texts, word
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.search_result import limit_of

DEFAULT_GAMMA, DEFAULT_ALPHA = 0.3, 0.1
MOST_DECIMALS = 6
LEAST_PRICE = 0.002
"""Summed effects below it, as a share of perplexity, say little of how dear sets are."""


def explorer(findings: Findings, view: HeadView) -> dict[str, Any] | None:
    """The data block of the page; None where the table has not both bias and perplexity.

    Rankings are `ScoreTable.ranking` (larger: larger effect), flat by (layer, head), as Python's
    rule takes them. `gaps` (subgroups whose gap enters z_bias, with every head's effect on it) is
    null where the table or details.json does not have them. Shares are text: exact decimals.
    """
    table, selection = findings.table, findings.selection
    if view.ppl is None or not view.bias:
        return None
    gamma, alpha = numbers.finite(selection.gamma), numbers.finite(selection.alpha)
    start = (DEFAULT_GAMMA if gamma is None else gamma, DEFAULT_ALPHA if alpha is None else alpha)
    decimals = min(max(2, *(-_exponent(share) for share in start)), MOST_DECIMALS)
    return {
        "layers": table.num_layers,
        "heads": table.num_heads,
        "gamma": f"{start[0]:.{decimals}f}",
        "alpha": f"{start[1]:.{decimals}f}",
        "step": f"{10.0**-decimals:.{decimals}f}",
        "largest_alpha": "0.50" if start[1] <= 0.5 else "1",
        "method": selection.method,
        "ppl": _metric(table, PPL, view.ppl)
        | {"base": float(table.grid("ppl_base")[0, 0]), "caption": ppl_caption(view.ppl)},
        "axes": [
            _metric(table, bias_metric(axis), effect)
            | {
                "name": visible(axis),
                "caption": bias_caption(effect),
                "gaps": _gaps(table, axis, findings.details),
            }
            for axis, effect in view.bias.items()
        ],
        "limit": limit_of(selection.details, findings.config),
        "dearer": _dearer(findings, view.ppl.values / float(table.grid("ppl_base")[0, 0])),
        "measured": _measured(findings, next(iter(view.bias))),
        "scales": {
            "bias": style.colour_scale(style.BIAS_SCALE),
            "ppl": style.colour_scale(style.PPL_SCALE),
            "error": style.colour_scale(style.ERROR_SCALE),
        },
    }


def _dearer(findings: Findings, share: Float[np.ndarray, "layers heads"]) -> float | None:
    """What sets cost as a multiple of their summed effects; None: no set of this run was measured.

    By the sets that the search read with the model, and by the run's own once it is evaluated.

    Args:
        share: z_ppl as a share of the base's perplexity.
    """
    found = mapping(findings.selection.details, "search")
    measured: list[tuple[Any, Any]] = [
        (one.get("heads"), mapping(one, "perplexity_increase").get("value"))
        for one in records(found, "judged")
        if one.get("soft") is not True
    ]
    if (worst := worst_price(findings.evaluation)) is not None:
        measured.append(([list(head) for head in findings.selection.heads], worst.rise))
    ratios = []
    for heads, rise in measured:
        price = numbers.finite(rise)
        if price is None or not isinstance(heads, list | tuple) or not heads:
            continue
        added = -sum(float(share[layer, head]) for layer, head in heads)
        if added > LEAST_PRICE and price > 0:
            ratios.append(price / added)
    return median(ratios) if ratios else None


def _exponent(share: float) -> int:
    exponent = Decimal(str(share)).normalize().as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _metric(table: ScoreTable, metric: str, effect: Effect) -> dict[str, Any]:
    return {
        "ranking": _flat(table.ranking(metric)),
        "effect": _flat(effect.values),
        "stderr": None if effect.stderr is None else _flat(effect.stderr),
        "limit": colour_limit(effect),
    }


def _flat(values: Float[np.ndarray, "layers heads"]) -> list[float]:
    found: list[float] = values.reshape(-1).tolist()
    return found


def _gaps(table: ScoreTable, axis: str, details: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    known = mapping(details, "axes", axis)
    gaps = []
    for subgroup in texts(known.get("used")):
        gap = numbers.finite(mapping(known, "gap").get(subgroup))
        try:
            effect = table.gap("effect", axis, subgroup)
        except ScoreTableError:
            return None
        if gap is None:
            return None
        gaps.append({"subgroup": visible(subgroup), "gap": gap, "effect": _flat(effect)})
    return gaps or None


def _measured(findings: Findings, first: str) -> list[dict[str, Any]]:
    """What was measured of sets of heads: the run's own, and every point of the comparison."""
    evaluation, table = findings.evaluation, findings.table
    increase = mapping(evaluation, "perplexity").get("increase")
    found = []
    for axis in mapping(evaluation, "axes"):
        source = "evaluation of this run"
        one = mapping(evaluation, "axes", axis)
        found.append(_set(axis, findings.selection.heads, table, source, one, increase))
    compared = findings.compare or {}
    for result in (compared, *records(compared, "more")):
        axis = word(result.get("axis")) or first
        for point in records(result, "points"):
            heads = point.get("heads")
            found.append(
                _set(
                    axis,
                    heads if isinstance(heads, list) else (),
                    table,
                    f"levelhead compare, {point.get('method')}",
                    mapping(point, "axes", axis),
                    point.get("perplexity_increase"),
                )
            )
    return [one for one in found if one["heads"] and one["text"]]


def _set(
    axis: str,
    heads: Sequence[Any],
    table: ScoreTable,
    source: str,
    found: Mapping[str, Any],
    perplexity: Any,
) -> dict[str, Any]:
    """found: what was measured on the axis: adjusted by fresh samples, or but expected."""
    across = table.num_heads
    flat = [h[0] * across + h[1] for h in heads if isinstance(h, list | tuple) and len(h) == 2]
    measured = []
    for key, name in (
        ("adjusted_difference", "noise-adjusted difference of bias"),
        ("expected_difference", "expected difference of bias"),
    ):
        if value := estimate(found.get(key)):
            measured.append(f"{name} {said(value)}")
    if estimate(perplexity):
        measured.append(f"perplexity {said_percent(estimate(perplexity))}")
    text = f"{'; '.join(measured)} ({source})" if measured else ""
    return {"axis": visible(axis), "heads": sorted(flat), "text": visible(text)}
