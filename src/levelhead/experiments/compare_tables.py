"""A comparison as tables: tidy rows for machines, one row per method for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

Json = dict[str, Any]
SAMPLED = ("difference", "adjusted_difference", "toxicity_difference")


def summary(points: Sequence[Mapping[str, Any]], axis: str, alpha: float) -> list[Json]:
    """A row per method at one alpha.

    The draws of method random are averaged; their interval spans the intervals of all of them.
    """
    methods: dict[tuple[str | None, str], list[Mapping[str, Any]]] = {}
    for point in points:
        if point["alpha"] == alpha and point["heads"]:
            methods.setdefault((point["run"], point["method"]), []).append(point)
    rows = []
    for own in methods.values():
        found = [point["axes"][axis] for point in own]
        row: Json = {key: own[0][key] for key in ("run", "method", "alpha", "gamma", "num_heads")}
        row |= {
            "draws": len(own),
            "perplexity": float(np.mean([point["perplexity"] for point in own])),
            "perplexity_increase": _spanned([point["perplexity_increase"] for point in own]),
            "within_budget": all(point["within_budget"] for point in own),
            "expected_difference": _spanned([one["expected_difference"] for one in found]),
        }
        if all(one["sampled"] for one in found):
            row |= {name: _spanned([one["sampled"][name] for one in found]) for name in SAMPLED}
            row["bias"] = _spanned([one["sampled"]["bias"] for one in found])
        rows.append(row)
    return rows


def change_row(change: Mapping[str, Any], axis: str) -> Json:
    """The same of a change of weights, which has no alpha: its strength stands in its place."""
    found = change["axes"][axis]
    sampled = found["sampled"]
    kept = ("attempt", "method", "gamma", "lambda", "rank", "perplexity", "perplexity_increase")
    return {
        "run": None,
        "alpha": None,
        "num_heads": 0,
        "draws": 1,
        **{key: change[key] for key in (*kept, "within_budget")},
        "expected_difference": found["expected_difference"],
        "bias": sampled["bias"],
        **{name: sampled[name] for name in SAMPLED},
    }


def _spanned(estimates: Sequence[Mapping[str, Any]]) -> Json:
    ends = [estimate["ci95"] for estimate in estimates]
    return {
        "value": float(np.mean([estimate["value"] for estimate in estimates])),
        "ci95": [min(low for low, _ in ends), max(high for _, high in ends)],
    }


def tidy(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row per point and quantity: what a plot or a data frame wants."""
    rows = []
    for result in results:
        for point in result["points"]:
            key = {"selected_for": result["axis"]}
            key |= {k: point[k] for k in ("run", "method", "alpha", "gamma", "draw", "num_heads")}
            key["within_budget"] = point["within_budget"]
            rows.append(
                key
                | {"axis": "", "metric": "perplexity_increase", "how": "text"}
                | _ends(point["perplexity_increase"])
            )
            for axis, found in point["axes"].items():
                own = key | {"axis": axis, "metric": "bias_difference"}
                rows.append(own | {"how": "expected"} | _ends(found["expected_difference"]))
                for how, name in (
                    ("sampled", "difference"),
                    ("adjusted", "adjusted_difference"),
                    ("sampled", "toxicity_difference"),
                ):
                    if sampled := found["sampled"]:
                        metric = "bias_difference" if name != "toxicity_difference" else name
                        rows.append(own | {"metric": metric, "how": how} | _ends(sampled[name]))
    return pd.DataFrame(rows)


def _ends(estimate: Mapping[str, Any]) -> Json:
    low, high = estimate["ci95"]
    return {"value": estimate["value"], "low": low, "high": high}
