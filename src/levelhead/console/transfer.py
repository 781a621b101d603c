"""The table of `levelhead transfer`: a row per place and set of heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from levelhead.reporting.escape import visible

Json = Mapping[str, Any]


def transfer_summary(found: Json) -> None:
    """Everything transfer.json says."""
    console = Console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("judged on", overflow="fold")
    table.add_column("heads", no_wrap=True)
    for name in ("expected difference", "of the bias", "kept", "sampled"):
        table.add_column(name, justify="right")
    before = ""
    for row in found["rows"]:
        where = f"{row['where']}: {row['axis']}, {row['prompts']}, {row['scorer']}"
        where += ", new descriptors" if row["new_descriptors"] else ""
        sampled = (row["sampled"] or {}).get("adjusted_difference")
        table.add_row(
            "" if where == before else escape(visible(where)),
            escape(visible(row["set"])),
            _span(row["expected_difference"], "+.4f"),
            _span(row["relative_change"], "+.0%"),
            _span(row["kept"], ".0%"),
            _span(sampled, "+.4f"),
        )
        before = where
    console.print(table)
    console.print(
        f"{found['num_heads']} heads, chosen for {escape(visible(found['axis']))}. Without minus "
        "with the heads; 95% intervals. Kept: of the relative change on the scoring templates. "
        "Expected differences are first-order; sampling is the proof.",
        highlight=False,
    )
    console.print(escape(visible(found["headline"])), highlight=False)


def _span(estimate: Json | None, form: str) -> str:
    if estimate is None:
        return ""
    low, high = (format(end, form) for end in estimate["ci95"])
    return escape(f"{estimate['value']:{form}} [{low}, {high}]")
