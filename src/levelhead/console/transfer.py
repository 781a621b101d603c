"""The table of `levelhead transfer`: a row per place and set of heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead.console.terminal import output
from levelhead.reporting.escape import visible

Json = Mapping[str, Any]


def transfer_summary(found: Json) -> None:
    """Everything transfer.json says."""
    console = output()
    sampled = any(row["sampled"] for row in found["rows"])
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("judged on, heads", overflow="fold")
    names = ["expected\ndifference", "of the bias", "kept", *(["sampled"] if sampled else [])]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for row in found["rows"]:
        parts = [visible(row[key]) for key in ("where", "axis", "prompts", "scorer") if row[key]]
        parts += ["new descriptors"] if row["new_descriptors"] else []
        where = "\n".join(parts)
        if where != before:
            table.add_row(escape(where), *("" for _ in names))
        cells = [
            _span(row["expected_difference"], "+.4f"),
            _span(row["relative_change"], "+.0%"),
            _span(row["kept"], ".0%"),
        ]
        if sampled:
            found_there = _span((row["sampled"] or {}).get("adjusted_difference"), "+.4f")
            verdict = escape(visible(row.get("verdict") or ""))
            cells.append(f"{found_there}\n{verdict}" if verdict else found_there)
        table.add_row(f"  {escape(visible(row['set']))}", *cells)
        before = where
    console.print(table)
    console.print(
        f"{escape(visible(found['selected']))}, chosen for {escape(visible(found['axis']))}. "
        "Without minus with them; 95% intervals. Kept: of the relative change on the scoring "
        "templates. "
        "Expected differences are predictions; a verdict needs samples (--sample).",
        highlight=False,
    )
    console.print(escape(visible(found["headline"])), highlight=False)


def _span(estimate: Json | None, form: str) -> str:
    if estimate is None:
        return ""
    low, high = (format(end, form) for end in estimate["ci95"])
    return escape(f"{estimate['value']:{form}}\n[{low}, {high}]")
