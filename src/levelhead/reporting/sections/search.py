"""The sets of heads that a search read with the model, and which was taken, if any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from levelhead.reporting.content import Column, Section, Table, Value, numeric
from levelhead.reporting.estimates import cell, percent_cell
from levelhead.reporting.numbers import count, finite, percent
from levelhead.reporting.summary import Cell, mapping, records, word
from levelhead.search_result import rule

Json = Mapping[str, Any]


def search(selection: Json | None) -> Section | None:
    """A row for each set that the model read; None where nothing was searched for.

    Args:
        selection: details of the selection, with `search`.
    """
    found = mapping(selection, "search")
    judged = records(found, "judged")
    if not judged:
        return None
    averages = any(one.get("method") == "average" for one in judged)
    what = "change" if averages else "set of heads"
    limit, among = finite(found.get("budget")), finite(found.get("candidates"))
    columns = (
        Column(what.capitalize()),
        *numeric("Predicted price", "Price on the worst text", "Measured gap, expected"),
        Column("Outcome"),
    )
    most = "" if limit is None else f" ({percent(limit)})"
    plural = "changes" if averages else "sets"
    sets = plural if among is None else f"{count(among)} {plural}"
    return Section(
        key="search",
        title=f"The search for a {what}",
        intro=(
            f"Of {sets} those with the best predictions were read with the model, on validation "
            "prompts and texts. Price: rise of perplexity on the text where it rises most; a "
            f"{what} is within the limit{most} where nine in ten such texts would keep it. "
            "Measured gap: expected change, pruned minus base, of masked texts. The one with the "
            "largest fall within the limit is taken. In brackets: 95% intervals.",
        ),
        tables=(Table.of(columns, [_row(i, one, limit, found) for i, one in enumerate(judged)]),),
    )


def _row(place: int, one: Json, limit: float | None, found: Json) -> tuple[Value, ...]:
    heads = one.get("heads")
    number = len(heads) if isinstance(heads, list | tuple) else 0
    kind = "gates" if one.get("soft") is True else f"{number} heads"
    if one.get("method") == "average":
        rank, layers = finite(one.get("rank")), one.get("layers")
        within = "all directions" if rank is None else f"{count(rank)} directions"
        number = len(layers) if isinstance(layers, list | tuple) else 0
        kind = f"lambda {finite(one.get('lambda')) or 0:g}, {within}, {number} layers"
    predicted = finite(mapping(one, "predicted").get("perplexity_increase"))
    price = percent_cell(one.get("perplexity_increase"))
    text = PurePath(word(one.get("text"))).name
    return (
        f"{rule(one)}: {kind}",
        Cell() if predicted is None else Cell(percent(predicted, signed=True)),
        Cell(price.text, f"{price.interval} {text}".strip()),
        cell(one.get("expected_difference")),
        _outcome(place, one, limit, found),
    )


def _outcome(place: int, one: Json, limit: float | None, found: Json) -> str:
    most = finite(one.get("at_most"))
    if limit is not None and most is not None and most > limit:
        return f"over the limit: up to {percent(most)}"
    if place == found.get("chosen"):
        return "taken" if found.get("measurable") is not False else "best, and not clear of 0"
    return "within the limit"
