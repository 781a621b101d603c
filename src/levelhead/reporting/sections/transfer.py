"""The selected heads judged where they were not selected (transfer.json)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.reporting.content import Column, Section, Table, Value, numeric
from levelhead.reporting.estimates import cell, percent_cell, share_cell
from levelhead.reporting.summary import mapping, records, word

Json = Mapping[str, Any]
SELECTED = "selected"


def transfer(data: Json | None) -> Section | None:
    """A table of the selected heads, and one of the random controls behind it."""
    if data is None:
        return None
    rows = records(data, "rows")
    tables = [
        *_table([r for r in rows if r.get("set") == SELECTED], "What was selected", ""),
        *_table(
            [r for r in rows if r.get("set") != SELECTED],
            "As much at random, unprotected",
            "closed",
        ),
    ]
    if not tables:
        return None
    axis = word(data.get("axis"))
    selected = word(data.get("selected")) or "Heads"
    headline = data.get("headline")
    return Section(
        key="transfer",
        title="Judged where they were not selected",
        intro=(
            f"{selected} chosen{f' for {axis}' if axis else ''} on the scoring templates, by the "
            "run's scorer; their effect there, and on prompts, axes and scorers that nothing was "
            "scored on. Expected differences, without minus with them, on the same continuations.",
            *((str(headline),) if headline else ()),
        ),
        tables=tuple(tables),
    )


def _table(rows: list[Json], title: str, fold: Any) -> list[Table]:
    cells: list[tuple[Value, ...]] = [
        (
            _where(row),
            word(row.get("axis")),
            cell(row.get("expected_difference")),
            percent_cell(row.get("relative_change")),
            share_cell(row.get("kept")),
            cell(mapping(row, "sampled").get("adjusted_difference")),
            word(row.get("verdict")),
        )
        for row in rows
    ]
    if not cells:
        return []
    columns = (
        Column("Judged on"),
        Column("Axis"),
        *numeric("Expected difference", "Of the base's bias", "Share kept", "Sampled"),
        Column("Verdict"),
    )
    note = (
        "Share kept: of the relative change on the scoring templates. Sampled: adjusted "
        "difference of fresh samples, where it was asked for."
    )
    return [Table.of(columns, cells, title=title, note=note, fold=fold)]


def _where(row: Json) -> str:
    about = [word(row.get("where")), word(row.get("prompts")), word(row.get("scorer"))]
    about += ["new descriptors"] if row.get("new_descriptors") is True else []
    return ", ".join(part for part in about if part)
