"""The comparison base / pruned / difference as a rich table, for the command line.

The same numbers as on the page. It prints nothing and knows no console.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from levelhead.reporting import summary
from levelhead.reporting.escape import visible

_STYLES = {"lower": "green", "higher": "bold red", "undecided": "yellow"}
_LONGEST_NUMBER = len("134,515,008")


def summary_table(evaluation: Mapping[str, Any]) -> Table:
    """A table of evaluation.json: a part per axis, then perplexity, parameters and size.

    Every string is made visible (`escape.visible`) and held as `Text`, which reads no markup.
    It fits 80 columns; in fewer the intervals wrap.
    """
    groups = summary.groups(evaluation)
    groups = summary.groups(evaluation)
    table = _numbers(groups)
    notes = []
    for group in groups:
        if group.verdict:
            line = _text(f"{group.axis}: {group.verdict}", _STYLES.get(group.kind, ""))
            notes.append(line.append(visible(f" ({group.budget})") if group.budget else "", "dim"))
    notes.append(_text("In brackets: 95% intervals. Difference: pruned minus base.", "dim"))
    table.caption = Text("\n").join(notes)
    return table


def _numbers(groups: list[summary.Group]) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    table.caption_style, table.caption_justify = "none", "left"
    table.add_column("", overflow="fold")
    for name in ("base", "pruned", "difference"):
        table.add_column(name, justify="right", overflow="fold", min_width=_LONGEST_NUMBER)
    for group in groups:
        table.add_row(_text("the model" if group.axis is None else group.axis, "bold cyan"))
        for row in group.rows:
            style = "bold" if row.main else ""
            cells = [_cell(cell, style) for cell in (row.base, row.pruned, row.difference)]
            table.add_row(_text(f"  {row.short}", style), *cells)
        table.add_section()
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(visible(text), style)


def _cell(cell: summary.Cell, style: str) -> Text:
    text = _text(cell.text, style)
    if cell.interval:
        text.append(f"\n{cell.interval}", "dim")
    return text
