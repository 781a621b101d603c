"""The attempts of a run side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead.console.terminal import output
from levelhead.reporting.escape import visible


def results_table(found: Mapping[str, Any]) -> None:
    """A row for each attempt, and what is not of its selection below."""
    console = output()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("attempt", "selection", "measured gap", "perplexity", "verdict"):
        table.add_column(name, justify="right" if name == "perplexity" else "left")
    for one in found["attempts"]:
        table.add_row(
            str(one["attempt"]),
            escape(visible(one["selection"])),
            _gap(one),
            _price(one),
            str(one.get("verdict", "")),
        )
    console.print(table)
    console.print(
        "Measured gap: noise-adjusted difference, pruned minus base, with its 95% interval. "
        "Perplexity: on the text on which it rose most."
    )
    if best := found.get("recommended"):
        console.print(escape(visible(f"Recommended: {best['why']}")))
    for one in found["attempts"]:
        for why in one["stale"].values():
            console.print(escape(visible(f"attempt {one['attempt']}: {why}")))


def _gap(one: Mapping[str, Any]) -> str:
    if "adjusted_difference" not in one:
        return "not evaluated"
    difference = one["adjusted_difference"]
    low, high = difference["ci95"]
    return escape(f"{difference['value']:+.4f}\n[{low:+.4f}, {high:+.4f}]")


def _price(one: Mapping[str, Any]) -> str:
    if "perplexity_increase" not in one:
        return ""
    return f"{one['perplexity_increase']:+.1%}\n" + escape(visible(one["price_text"]))
