"""The paper's figure for the model beside the one measured by its protocol (reproduce.json)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.reporting import numbers
from levelhead.reporting.content import Column, Section, Table, Value, numeric
from levelhead.reporting.estimates import percent_cell
from levelhead.reporting.summary import Cell, mapping, texts


def reproduce(data: Mapping[str, Any] | None) -> Section | None:
    """Reduction of bias measured and published, and what was done otherwise than in the paper."""
    if data is None:
        return None
    published = mapping(data, "published")
    share = numbers.finite(published.get("reduction"))
    rows: list[tuple[Value, ...]] = [
        (
            "Reduction of bias",
            _reduction(data.get("reduction")),
            Cell() if share is None else Cell(numbers.percent(share)),
        ),
        ("Change of perplexity", percent_cell(data.get("perplexity_increase")), ""),
        ("gamma", _plain(data.get("gamma")), _plain(published.get("gamma"))),
        ("alpha", _plain(data.get("alpha")), ""),
    ]
    rows = [row for row in rows if row[1] or row[2]]
    if not rows:
        return None
    columns = (Column("Quantity"), *numeric("Measured here", "Published"))
    axis = data.get("axis")
    return Section(
        key="reproduce",
        title="The paper's measurement" + (f", {axis}" if axis else ""),
        intro=(
            "The same model by the protocol of arXiv 2312.15398, in brackets a 95% interval; the "
            "paper gives none.",
        ),
        tables=(Table.of(columns, rows),),
        points=tuple(("Otherwise than in the paper:", text) for text in texts(data.get("differs"))),
    )


def _reduction(data: Any) -> Cell:
    found = percent_cell(data)
    return Cell(found.text.lstrip("+"), found.interval.replace("+", ""))


def _plain(value: Any) -> str:
    number = numbers.finite(value)
    return "" if number is None else f"{number:g}"
