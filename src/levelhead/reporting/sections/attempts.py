"""The attempts of a run side by side: what each selected, did and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from levelhead.reporting.content import Column, Section, Table, Value, numeric
from levelhead.reporting.estimates import cell, points_cell
from levelhead.reporting.numbers import finite, percent
from levelhead.reporting.recommendation import recommended
from levelhead.reporting.summary import Cell, mapping, word

Json = Mapping[str, Any]


def attempts(data: Sequence[Json]) -> Section | None:
    """A table with a row for each attempt; None where there is only the run itself."""
    if len(data) < 2:
        return None
    best = recommended(data)
    columns = (
        Column("Attempt"),
        Column("Selection"),
        *numeric("Measured gap", "Names its group", "Perplexity"),
        Column("Verdict"),
    )
    return Section(
        key="attempts",
        title="Attempts",
        intro=(
            *([] if best is None else [word(best.get("why"))]),
            "Selections from the same scores, each proven by fresh samples on the same test "
            "prompts. Measured gap: noise-adjusted difference, pruned minus base. Perplexity: on "
            "the text on which it rose most. Of several attempts, the best looks better than it "
            "is: they share one test set.",
        ),
        tables=(Table.of(columns, map(_row, data)),),
    )


def _row(one: Json) -> tuple[Value, ...]:
    increase = finite(one.get("perplexity_increase"))
    on = word(one.get("price_text"))
    not_measured = "of another selection" if mapping(one, "stale") else "not evaluated"
    return (
        f"{one.get('attempt')}",
        word(one.get("selection")),
        cell(one.get("adjusted_difference")),
        points_cell(one.get("own_group_mentions")),
        Cell() if increase is None else Cell(percent(increase, signed=True), on),
        word(one.get("verdict")) or not_measured,
    )
