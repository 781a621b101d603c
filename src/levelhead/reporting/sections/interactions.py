"""Heads removed together against the sum of their single effects (interactions.json)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.reporting import numbers
from levelhead.reporting.content import Column, Plot, Section, Table, Value, numeric
from levelhead.reporting.estimates import cell, estimate
from levelhead.reporting.figures.intervals import FIRST, SECOND, Side, side_by_side
from levelhead.reporting.summary import mapping, records

METRICS = {"bias": "bias", "mean_toxicity": "mean toxicity", "nll": "negative log-likelihood"}
"""Fields of the file and their names for people."""
MOST_ROWS_SHOWN = 12


def interactions(data: Mapping[str, Any] | None) -> Section | None:
    """Sum, joint effect and their difference, for the selected set and for pairs of heads."""
    metrics = mapping(data, "metrics")
    tables = [*_whole(metrics), *_pairs(records(data, "pairs"))]
    if data is None or not tables:
        return None
    heads = data.get("heads")
    count = f" of the {len(heads)} heads" if isinstance(heads, list) else ""
    axis = data.get("axis")
    intro = (
        f"Whether effects{count} add up{f', on {axis}' if axis else ''}. Each head is removed "
        "alone, then all together; changes are without minus with, by true ablation, on the same "
        "continuations and text. An interaction above 0: together they raise the quantity by more, "
        "or lower it by less, than one by one.",
    )
    return Section(
        key="interactions",
        title="Heads removed together",
        intro=intro,
        plots=tuple(_plots(metrics)),
        tables=tuple(tables),
    )


def _plots(metrics: Mapping[str, Any]) -> list[Plot]:
    plots = []
    for key, names, title in (
        ("interactions-bias", ("bias", "mean_toxicity"), "bias and mean toxicity"),
        ("interactions-nll", ("nll",), "the negative log-likelihood of text, per token"),
    ):
        sides = []
        for part, label, look in (("sum", "one by one, added up", FIRST),
                                  ("joint", "together", SECOND)):  # fmt: skip
            values = {METRICS[name]: estimate(mapping(metrics, name).get(part)) for name in names}
            found = {name: value for name, value in values.items() if value is not None}
            sides.append(Side(label, found, look))
        figure = side_by_side(sides, "change")
        if figure is not None:
            plots.append(
                Plot(
                    key=key,
                    title=f"Effect on {title}",
                    caption="Of removing the selected heads, with 95% intervals.",
                    legend=(("base", "one by one, added up"), ("after", "together")),
                    figure=figure,
                )
            )
    return plots


_PARTS = ("sum", "joint", "interaction")


def _whole(metrics: Mapping[str, Any]) -> list[Table]:
    rows: list[tuple[Value, ...]] = []
    for name, label in METRICS.items():
        cells = [cell(mapping(metrics, name).get(part)) for part in _PARTS]
        if any(cells):
            rows.append((label, *cells))
    columns = (Column("Quantity"), *numeric("Sum of single effects", "Together", "Interaction"))
    return [Table.of(columns, rows, title="All selected heads")] if rows else []


def _pairs(pairs: list[Mapping[str, Any]]) -> list[Table]:
    rows: list[tuple[Value, ...]] = []
    for one in pairs:
        names = [numbers.listed(one.get(side)) for side in ("a", "b")]
        cells = [cell(mapping(one, "bias").get(part)) for part in _PARTS]
        if all(len(name) == 2 for name in names) and any(cells):
            heads = [f"{layer:g}.{head:g}" for layer, head in names]
            likelihood = cell(mapping(one, "nll").get("interaction"))
            rows.append((" and ".join(heads), *cells, likelihood))
    if not rows:
        return []
    columns = (
        Column("Heads (layer.head)"),
        *numeric("Bias, sum", "Bias, together", "Bias, interaction", "NLL, interaction"),
    )
    fold = "closed" if len(rows) > MOST_ROWS_SHOWN else ""
    title = "Pairs of the heads with the largest effect on bias"
    return [Table.of(columns, rows, title=title, fold=fold)]
