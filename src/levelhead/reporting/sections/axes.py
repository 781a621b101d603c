"""How the axes go together (axes.json): correlations of head effects, and cross effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from levelhead.reporting import numbers
from levelhead.reporting.content import Column, Fold, Plot, Section, Table, Value, numeric
from levelhead.reporting.estimates import cell, estimate, said
from levelhead.reporting.figures.matrices import matrix
from levelhead.reporting.summary import mapping, records, texts, word

MOST_ROWS_SHOWN = 12


def axes(data: Mapping[str, Any] | None) -> Section | None:
    """Correlations per run, and what pruning for one axis does to every other."""
    if data is None:
        return None
    pairs = [one for one in records(data, "correlations") if one.get("a") and one.get("b")]
    plots = _correlation_plots(data, pairs)
    tables = [_correlation_table(pairs)] if pairs else []
    tables += [*_differences(data), *_same_model(data)]
    cross_plot, cross_tables = _cross(mapping(data, "cross"))
    tables += cross_tables
    if not plots and not tables:
        return None
    intro = (
        "Whether heads that add bias on one axis add it on another. Spearman correlation over "
        "heads of two axes' z_bias, with 95% intervals. Noise in both rankings pulls it towards "
        "0; corrected: what it would be without that, given the reliability of each ranking.",
    )
    return Section(
        key="axes",
        title="One axis and the others",
        intro=(*intro, *texts(data.get("notes"))),
        plots=(*plots, *cross_plot),
        tables=tuple(tables),
    )


def _correlation_plots(data: Mapping[str, Any], pairs: list[Mapping[str, Any]]) -> list[Plot]:
    runs = list(dict.fromkeys(word(one.get("run")) for one in pairs))
    plots = []
    for place, run in enumerate(runs):
        mine = [one for one in pairs if word(one.get("run")) == run]
        named = [str(one[side]) for one in mine for side in ("a", "b")]
        names = list(dict.fromkeys([*(n for n in texts(data.get("axes")) if n in named), *named]))
        reliability = mapping(data, "reliability", run)
        found = {frozenset((str(one["a"]), str(one["b"]))): one for one in mine}
        values, words, hovers = [], [], []
        for a in names:
            line, text, hover = [], [], []
            for b in names:
                one = mapping(found.get(frozenset((a, b)))) if a != b else {}
                value = estimate(one.get("spearman"))
                line.append(value.value if value else None)
                text.append(numbers.decimal(value.value, 2) if value else "")
                hover.append(_pair(one, 2) if a != b else _own(reliability, a))
            values.append(line)
            words.append(text)
            hovers.append(hover)
        plots.append(
            Plot(
                key=f"axes-{place}",
                title="Correlation of head effects between axes" + (f", {run}" if run else ""),
                caption="Orange: heads that add bias on one add it on the other; violet: they "
                "lower it there.",
                figure=matrix(names, names, values, words, hovers, limit=1.0),
                wide=len(names) > 5,
            )
        )
    return plots


def _pair(one: Mapping[str, Any], decimals: int) -> str:
    corrected = estimate(one.get("corrected"))
    text = f"Spearman {said(estimate(one.get('spearman')), decimals)}"
    return text + (f", corrected {said(corrected, decimals)}" if corrected else "")


def _own(reliability: Mapping[str, Any], axis: str) -> str:
    return f"reliability {numbers.decimal(reliability.get(axis), 2)}"


def _correlation_table(pairs: list[Mapping[str, Any]]) -> Table:
    several = len({word(one.get("run")) for one in pairs}) > 1
    columns = [*([Column("Run")] * several), Column("Axis"), Column("and axis")]
    rows: list[tuple[Value, ...]] = [
        (
            *([word(one.get("run"))] * several),
            str(one["a"]),
            str(one["b"]),
            cell(one.get("spearman"), 2),
            cell(one.get("corrected"), 2),
        )
        for one in pairs
    ]
    return Table.of(
        [*columns, *numeric("Spearman", "Corrected for unreliability")],
        rows,
        title="Correlations between axes",
        note="A missing correction: a ranking too noisy to correct for. Corrected values may "
        "exceed 1 by chance.",
        fold=_fold(rows),
    )


def _differences(data: Mapping[str, Any]) -> list[Table]:
    rows: list[tuple[Value, ...]] = []
    for one in records(data, "differences"):
        differ = one.get("differ")
        rows.append(
            (
                " minus ".join(texts(one.get("runs"))),
                word(one.get("a")),
                word(one.get("b")),
                cell(one.get("spearman"), 2),
                cell(one.get("corrected"), 2),
                ("yes" if differ else "no") if isinstance(differ, bool) else numbers.MISSING,
            )
        )
    if not rows:
        return []
    columns = (
        Column("Runs"),
        *(Column("Axis"), Column("and axis")),
        *numeric("Spearman", "Corrected"),
        Column("Distinguishable"),
    )
    title = "Differences of these correlations between runs"
    return [Table.of(columns, rows, title=title, fold=_fold(rows))]


def _same_model(data: Mapping[str, Any]) -> list[Table]:
    rows: list[tuple[Value, ...]] = [
        (
            word(one.get("axis")),
            " and ".join(texts(one.get("runs"))),
            cell(one.get("spearman"), 2),
            cell(one.get("corrected"), 2),
        )
        for one in records(data, "same_model")
    ]
    if not rows:
        return []
    columns = (Column("Axis"), Column("Runs"), *numeric("Spearman", "Corrected"))
    title = "One axis in several runs of one model"
    return [Table.of(columns, rows, title=title, fold=_fold(rows))]


def _fold(rows: Sequence[Any]) -> Fold:
    return "closed" if len(rows) > MOST_ROWS_SHOWN else ""


def _cross(data: Mapping[str, Any]) -> tuple[list[Plot], list[Table]]:
    settings = ", ".join(
        f"{name} {value}"
        for name in ("method", "gamma", "alpha")
        if (value := data.get(name)) is not None
    )
    note = "Change of expected bias, pruned minus base, with 95% intervals"
    note += f" ({settings})." if settings else "."
    rows = _cross_rows(data, "rows")
    tables = _cross_table(rows, "What pruning for one axis does to the others", note)
    tables += _cross_table(
        _cross_rows(data, "random"),
        "The same for as many heads drawn at random from those that may be pruned",
        "What pruning any heads does: pruning for an axis should lower its bias by more.",
    )
    return _cross_plot(rows), tables


def _cross_rows(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = records(data, name)
    return [one for one in rows if one.get("selected_for") and one.get("measured_on")]


def _cross_table(rows: list[Mapping[str, Any]], title: str, note: str) -> list[Table]:
    if not rows:
        return []
    cells: list[tuple[Value, ...]] = [
        (
            str(one["selected_for"]),
            str(one["measured_on"]),
            cell(one.get("expected_difference")),
            numbers.decimal(one.get("base_bias")),
            numbers.count(one.get("num_heads")),
            numbers.percent(one.get("overlap"), 0),
        )
        for one in rows
    ]
    columns = (
        Column("Pruned for"),
        Column("Measured on"),
        *numeric("Change", "Base bias", "Heads", "Heads in common"),
    )
    return [Table.of(columns, cells, title=title, note=note, fold=_fold(cells))]


def _cross_plot(rows: list[Mapping[str, Any]]) -> list[Plot]:
    found = {(str(one["selected_for"]), str(one["measured_on"])): one for one in rows}
    down = list(dict.fromkeys(a for a, _ in found))
    across = list(dict.fromkeys([*(b for b in down if (b, b) in found), *(b for _, b in found)]))
    cells = [[found.get((a, b), {}) for b in across] for a in down]
    changes = [[estimate(one.get("expected_difference")) for one in line] for line in cells]
    sizes = [abs(one.value) for line in changes for one in line if one]
    if not sizes:
        return []
    return [
        Plot(
            key="axes-cross",
            title="Pruned for one axis, measured on all",
            caption="Change of expected bias; violet: lower after pruning, orange: higher.",
            figure=matrix(
                down,
                across,
                [[one.value if one else None for one in line] for line in changes],
                [[numbers.decimal(o.value, 3) if o else "" for o in line] for line in changes],
                [[f"change {said(one)}" for one in line] for line in changes],
                limit=max(sizes) or 1.0,
                across="measured on",
                down="pruned for",
            ),
            wide=len(across) > 5,
        )
    ]
