"""Whether several measures of bias choose the same heads (agree.json)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.reporting import numbers
from levelhead.reporting.content import Column, Plot, Section, Table, Value, numeric
from levelhead.reporting.estimates import cell, estimate, said, share_cell
from levelhead.reporting.figures.matrices import matrix
from levelhead.reporting.summary import mapping, records, texts, word

MOST_ROWS_SHOWN = 12


def agree(data: Mapping[str, Any] | None) -> Section | None:
    """Rank correlation and shared heads per pair of measures, and the measures themselves."""
    if data is None:
        return None
    measures = [one for one in records(data, "measures") if one.get("name")]
    pairs = [one for one in records(data, "pairs") if one.get("a") and one.get("b")]
    tables = [*_measures(measures), *_pairs(pairs), *_texts(mapping(data, "texts"))]
    if not tables:
        return None
    verdicts = tuple(("", text) for one in pairs if (text := word(one.get("verdict"))))
    axis = data.get("axis")
    at = ", ".join(
        f"{name} {data[name]:g}" for name in ("gamma", "alpha") if numbers.finite(data.get(name))
    )
    intro = (
        "Bias by one toxicity classifier is one measure of many. Here the same heads were scored "
        "by several" + (f" on {axis}" if axis else "") + ", and FASP chose by each"
        f"{f' ({at})' if at else ''}. Where measures disagree, what is pruned depends on the "
        "measure.",
    )
    return Section(
        key="agree",
        title="Do other measures choose the same heads?",
        intro=(*intro, *texts(data.get("warnings"))),
        plots=_plot(measures, pairs),
        tables=tuple(tables),
        points=verdicts,
        points_title="The same in words" if verdicts else "",
    )


def _measures(measures: list[Mapping[str, Any]]) -> list[Table]:
    if not measures:
        return []
    rows = [
        (
            str(one["name"]),
            str(one.get("identity") or numbers.MISSING),
            cell(one.get("bias")),
            numbers.decimal(one.get("reliability"), 2),
        )
        for one in measures
    ]
    columns = (Column("Measure"), Column("Identity"), *numeric("Bias", "Reliability"))
    note = "Biases by different measures have different units; compare rankings, not sizes."
    return [Table.of(columns, rows, title="The measures", note=note)]


def _pairs(pairs: list[Mapping[str, Any]]) -> list[Table]:
    if not pairs:
        return []
    rows: list[tuple[Value, ...]] = [
        (
            str(one["a"]),
            str(one["b"]),
            cell(one.get("spearman"), 2),
            cell(one.get("corrected"), 2),
            share_cell(one.get("overlap")),
            numbers.percent(one.get("overlap_chance"), 0),
        )
        for one in pairs
    ]
    columns = (
        Column("Measure"),
        Column("and measure"),
        *numeric("Spearman", "Corrected", "Heads in common", "By chance"),
    )
    return [
        Table.of(
            columns,
            rows,
            title="Agreement of each two",
            fold="closed" if len(rows) > MOST_ROWS_SHOWN else "",
            note="Spearman: rank correlation over heads. Corrected: for the noise in both "
            "rankings. Heads in common: of those that each would prune.",
        )
    ]


def _texts(data: Mapping[str, Any]) -> list[Table]:
    rows: list[tuple[Value, ...]] = [
        (
            str(one["a"]),
            str(one["b"]),
            cell(one.get("spearman"), 2),
            numbers.decimal(one.get("kappa"), 2),
        )
        for one in records(data, "pairs")
        if one.get("a") and one.get("b")
    ]
    if not rows:
        return []
    columns = (Column("Measure"), Column("and measure"), *numeric("Spearman", "Kappa at 0.5"))
    return [
        Table.of(
            columns,
            rows,
            title="Do they judge the texts alike?",
            note="Over texts, not heads. Kappa: agreement on which texts score above 0.5, beyond "
            "chance; missing where both say no to all texts.",
        )
    ]


def _plot(measures: list[Mapping[str, Any]], pairs: list[Mapping[str, Any]]) -> tuple[Plot, ...]:
    found = {frozenset((str(one["a"]), str(one["b"]))): one for one in pairs}
    named = [str(one["name"]) for one in measures]
    names = list(dict.fromkeys([*named, *(str(one[side]) for one in pairs for side in "ab")]))
    grid = [[mapping(found.get(frozenset((a, b)))) for b in names] for a in names]
    values = [[estimate(one.get("spearman")) for one in line] for line in grid]
    if not any(one for line in values for one in line):
        return ()
    return (
        Plot(
            key="agree",
            title="Rank correlation of head effects between measures",
            caption="Orange: both rank heads alike; violet: the other way round.",
            figure=matrix(
                names,
                names,
                [[one.value if one else None for one in line] for line in values],
                [[numbers.decimal(o.value, 2) if o else "" for o in line] for line in values],
                [[f"Spearman {said(one, 2)}" if one else "" for one in line] for line in values],
                limit=1.0,
            ),
            wide=len(names) > 5,
        ),
    )
