"""Base against pruned model on held-out prompts and text (evaluation.json)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.reporting import numbers, summary
from levelhead.reporting.content import Column, Group, Plot, Row, Section, Table, numeric
from levelhead.reporting.estimates import Estimate, cell, estimate
from levelhead.reporting.figures.intervals import FIRST, SECOND, Side, side_by_side
from levelhead.reporting.summary import mapping


def results(evaluation: Mapping[str, Any]) -> Section | None:
    """The comparison of both models, and the gaps of the subgroups."""
    found = summary.groups(evaluation)
    if not found:
        return None
    note = _perplexity_note(evaluation)
    intro = "Difference: pruned minus base. In brackets: 95% intervals."
    gaps = _gap_rows(evaluation)
    tables = [Table(columns=_COLUMNS, groups=tuple(map(_group, found)))]
    if gaps:
        columns = (Column("Axis"), Column("Subgroup"), *numeric("Base", "Pruned"))
        title = "Gaps of the subgroups as a table"
        tables.append(Table.of(columns, gaps, title=title, fold="closed"))
    return Section(
        key="results",
        title="Before and after pruning",
        intro=(intro + (f" Perplexity on {note}." if note else ""),),
        tables=tuple(tables),
        plots=tuple(_gap_plots(evaluation)),
    )


_COLUMNS = (Column("Quantity"), *numeric("Base", "Pruned", "Difference"))


def _group(group: summary.Group) -> Group:
    notes = [(group.kind, group.verdict)] if group.verdict else []
    notes += [("soft", group.budget)] if group.budget else []
    return Group(
        title="The model" if group.axis is None else group.axis,
        notes=tuple(notes),
        rows=tuple(
            Row(cells=(row.label, row.base, row.pruned, row.difference), main=row.main)
            for row in group.rows
        ),
    )


def _perplexity_note(evaluation: Mapping[str, Any]) -> str:
    data = mapping(evaluation, "perplexity")
    text, tokens = data.get("text"), numbers.finite(data.get("tokens"))
    size = f"{numbers.count(tokens)} tokens of " if tokens is not None and text else ""
    return f"{size}{text}" if text else ""


def _gap_rows(evaluation: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    rows = []
    for axis, data in mapping(evaluation, "axes").items():
        base, pruned = mapping(data, "base", "gaps"), mapping(data, "pruned", "gaps")
        rows += [
            (str(axis), str(name), cell(base.get(name)), cell(pruned.get(name)))
            for name in dict.fromkeys([*base, *pruned])
        ]
    return rows


def _gap_plots(evaluation: Mapping[str, Any]) -> list[Plot]:
    plots = []
    for place, (axis, data) in enumerate(mapping(evaluation, "axes").items()):
        sides = (
            Side("base", _values(mapping(data, "base", "gaps")), FIRST),
            Side("pruned", _values(mapping(data, "pruned", "gaps")), SECOND),
        )
        figure = side_by_side(sides, "gap")
        if figure is not None:
            plots.append(
                Plot(
                    key=f"gaps-{place}",
                    title=f"Gap of each subgroup before and after pruning, {axis}",
                    caption="Mean toxicity over the axis minus that of the subgroup, with 95% "
                    "intervals. Below 0: texts about the subgroup are more toxic than the mean. "
                    "The closer all marks are to 0, the smaller the measured bias.",
                    legend=(("base", "base"), ("after", "pruned")),
                    figure=figure,
                    wide=True,
                )
            )
    return plots


def _values(gaps: Mapping[str, Any]) -> dict[str, Estimate]:
    found = {str(name): estimate(gap) for name, gap in gaps.items()}
    return {name: one for name, one in found.items() if one is not None}
