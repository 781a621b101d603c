"""The comparison base / pruned / difference as a rich table, for the command line.

The same numbers as on the page. It prints nothing and knows no console.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from levelhead.reporting import comparison
from levelhead.reporting.escape import visible
from levelhead.reporting.summary import Cell, Group, Row

_STYLES = {"lower": "green", "higher": "bold red", "undecided": "yellow", "soft": "dim"}
_MOST_WITH_DETAILS = 1
"""Axes; with more of them the table would be screens long, and the details stay in the report."""
_LONGEST_NUMBER = len("134,515,008")


def summary_table(evaluation: Mapping[str, Any]) -> Table:
    """A table of evaluation.json: a part per axis, then perplexity, parameters and size.

    Every string is made visible (`escape.visible`) and held as `Text`, which reads no markup.
    It fits 80 columns; in fewer the intervals wrap. Of several axes it leaves the details out.
    """
    groups = comparison.groups(evaluation)
    whole = sum(group.axis is not None for group in groups) <= _MOST_WITH_DETAILS
    table = _numbers(groups, whole)
    notes = []
    for group in groups:
        if group.verdict:
            line = _text(f"{group.axis}: {group.verdict}", _STYLES[group.kind])
            notes.append(line.append(visible(f" ({group.budget})") if group.budget else "", "dim"))
        notes += [_text(f"{group.axis}: {note}", _STYLES[style]) for style, note in group.notes]
    notes.append(_text("In brackets: 95% intervals. Difference: pruned minus base.", "dim"))
    if not whole:
        notes.append(_text("More rows of each axis: levelhead report.", "dim"))
    table.caption = Text("\n").join(notes)
    return table


def _numbers(groups: list[Group], whole: bool) -> Table:
    table = Table(
        box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0)
    )
    table.caption_style, table.caption_justify = "none", "left"
    table.add_column("", overflow="fold")
    for name in ("base", "pruned", "difference"):
        table.add_column(name, justify="right", overflow="fold", min_width=_LONGEST_NUMBER)
    for group in groups:
        table.add_row(_text("the model" if group.axis is None else group.axis, "bold cyan"))
        for row in (*group.first, *(group.details if whole else ())):
            style = _style(row)
            cells = [_cell(cell, style) for cell in (row.base, row.pruned, row.difference)]
            table.add_row(_text(f"  {row.short}", style), *cells)
        table.add_section()
    return table


def _style(row: Row) -> str:
    if row.main:
        return "bold"
    return "dim" if row.detail else ""


def _text(text: str, style: str = "") -> Text:
    return Text(visible(text), style)


def _cell(cell: Cell, style: str) -> Text:
    text = _text(cell.text, style)
    if cell.interval:
        text.append(f"\n{cell.interval}", "dim")
    return text
