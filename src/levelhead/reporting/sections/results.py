"""Base against pruned model on held-out prompts and text (evaluation.json)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from levelhead.price import prices, title
from levelhead.reporting import comparison, numbers, summary
from levelhead.reporting.comparison import EVERY, plain_reading
from levelhead.reporting.content import (
    Column,
    Group,
    Plot,
    Row,
    Section,
    Table,
    Value,
    numeric,
)  # fmt: skip
from levelhead.reporting.estimates import Estimate, cell, estimate, points_cell, share_cell
from levelhead.reporting.figures.intervals import FIRST, SECOND, Side, side_by_side
from levelhead.reporting.summary import mapping, people, texts, word
from levelhead.verdict_words import FELL


def results(evaluation: Mapping[str, Any]) -> Section | None:
    """The comparison of both models, its details, and what there is of single subgroups."""
    found = comparison.groups(evaluation)
    if not found:
        return None
    tables = [Table(columns=_COLUMNS, groups=tuple(map(_group, found)))]
    tables += [*_details(found), *_gaps(evaluation), *_mentions(evaluation)]
    return Section(
        key="results",
        title="Before and after pruning",
        intro=(_intro(evaluation), *_looks(evaluation)),
        tables=tuple(tables),
        plots=tuple(_gap_plots(evaluation)),
    )


def _intro(evaluation: Mapping[str, Any]) -> str:
    text = "Difference: pruned minus base. In brackets: 95% intervals."
    scorer = word(evaluation.get("scorer"))
    if scorer:
        reads = evaluation.get("toxicity_input") == "full"
        text += f" Toxicity by {_scorer(scorer)}, which read " + (
            "prompt and continuation." if reads else "the continuations."
        )
    note = _perplexity_note(evaluation)
    return text + (f" Perplexity on {note}." if note else "")


def _looks(evaluation: Mapping[str, Any]) -> list[str]:
    """Which look this is of those that were planned; nothing where one was."""
    looks = mapping(evaluation, "looks")
    planned, taken = numbers.listed(looks.get("planned")), looks.get("taken")
    if len(planned) < 2 or not isinstance(taken, list):
        return []
    sizes = ", ".join(numbers.count(one) for one in planned)
    return [
        f"Look {len(taken)} of {len(planned)} that were planned, at {sizes} samples per prompt: "
        "each spends its part of the 5% error of the verdicts; intervals are of 95%."
    ]


def _scorer(identity: str) -> str:
    """The scorer's name for people: without what masks texts before it, and without digests."""
    parts = identity.split(":")
    if parts[0] == "masked" and len(parts) > 2:
        parts = parts[2:]
    return " ".join(part for part in parts if not _DIGEST.fullmatch(part)) or identity


_DIGEST = re.compile(r"[0-9a-f]{12,64}")


_COLUMNS = (Column("Quantity"), *numeric("Base", "Pruned", "Difference"))


def _group(group: summary.Group) -> Group:
    found = ((group.kind, group.verdict), *group.notes, ("soft", group.budget))
    notes = [note for note in found if note[1]]
    return Group(title=_title(group), notes=tuple(notes), rows=tuple(map(_row, group.first)))


def _title(group: summary.Group) -> str:
    return "The model" if group.axis is None else group.axis


def _row(row: summary.Row) -> Row:
    return Row(cells=(row.label, row.base, row.pruned, row.difference), main=row.main)


def _details(found: Sequence[summary.Group]) -> list[Table]:
    groups = tuple(
        Group(title=_title(group), rows=tuple(map(_row, group.details)))
        for group in found
        if group.details
    )
    if not groups:
        return []
    return [Table(columns=_COLUMNS, groups=groups, title="Details", note=_DETAILS, fold="closed")]


_DETAILS = (
    "As sampled: of the texts that both models wrote, with the noise of which words were drawn; "
    "noise only adds to a bias, since it is a sum of sizes. The corrected bias and the "
    "noise-adjusted difference estimate the same with less of it. An interval of a bias starts at "
    "0, since the true one does; a corrected value may lie below that."
)


def _perplexity_note(evaluation: Mapping[str, Any]) -> str:
    found = [said for one in prices(evaluation) if (said := _size(one))]
    worst = "; limits are held against the worst of them" if len(found) > 1 else ""
    return "; ".join(found) + worst


def _size(entry: Mapping[str, Any]) -> str:
    """How much of a text was read: "8,192 tokens of pydoc"."""
    text, tokens = title(entry), numbers.finite(entry.get("tokens"))
    size = f"{numbers.count(tokens)} tokens of " if tokens is not None and text else ""
    count = numbers.finite(entry.get("texts"))
    return f"{size}{text}" + (f" ({numbers.count(count)})" if count is not None else "")


def _gaps(evaluation: Mapping[str, Any]) -> list[Table]:
    """Gaps by both models, and of the texts as they are where identity words are masked."""
    axes = mapping(evaluation, "axes")
    with_plain = any(plain_reading(mapping(data)) for data in axes.values())
    rows: list[tuple[Value, ...]] = []
    for axis, data in axes.items():
        readings = [mapping(data), plain_reading(mapping(data))][: 1 + with_plain]
        sides = [mapping(one, side, "gaps") for one in readings for side in ("base", "pruned")]
        names = dict.fromkeys(name for side in sides for name in side)
        rows += [(str(axis), str(n), *(cell(side.get(n)) for side in sides)) for n in names]
    if not rows:
        return []
    labels = ["Base", "Pruned", "Base, plain", "Pruned, plain"][: 2 + 2 * with_plain]
    columns = (Column("Axis"), Column("Subgroup"), *numeric(*labels))
    note = "Plain: of the texts with the identity words left in." if with_plain else ""
    title = "Gaps of the subgroups as a table"
    return [Table.of(columns, rows, title=title, note=note, fold="closed")]


def _mentions(evaluation: Mapping[str, Any]) -> list[Table]:
    """How often texts name their own group, by subgroup."""
    rows: list[tuple[Value, ...]] = []
    for axis, data in mapping(evaluation, "axes").items():
        found = mapping(data, "own_group_mentions")
        fell = texts(found.get("fell"))
        named = {EVERY: found, **mapping(found, "subgroups")}
        for name, one in named.items():
            change = points_cell(mapping(one).get("difference"))
            sides = [share_cell(mapping(one).get(side)) for side in ("base", "pruned")]
            if change or any(sides):
                rows.append((str(axis), str(name), *sides, change, "yes" * (name in fell)))
    if not rows:
        return []
    columns = (
        Column("Axis"),
        Column("Subgroup"),
        *numeric("Base", "Pruned", "Difference"),
        Column("Clear fall"),
    )
    return [
        Table.of(
            columns,
            rows,
            title="Texts that name their prompt's own group, by subgroup",
            note=f"Clear fall: the interval lies below 0 and a fifth or more is gone. {FELL}",
            fold="closed",
        )
    ]


def _gap_plots(evaluation: Mapping[str, Any]) -> list[Plot]:
    plots = []
    for place, (axis, data) in enumerate(mapping(evaluation, "axes").items()):
        sides = (
            Side("base", _excess(mapping(data, "base", "gaps")), FIRST),
            Side("pruned", _excess(mapping(data, "pruned", "gaps")), SECOND),
        )
        figure = side_by_side(sides, "more toxic than the mean \u2192")
        if figure is not None:
            plots.append(
                Plot(
                    key=f"gaps-{place}",
                    title=f"Subgroups before and after pruning, {people(axis)}",
                    caption="Mean toxicity of texts about the subgroup minus that of all of the "
                    f"axis, with 95% intervals{_read(data)}. Right of 0: more toxic than the mean. "
                    "The closer all marks are to 0, the smaller the measured gap.",
                    legend=(("base", "base"), ("after", "pruned")),
                    figure=figure,
                    wide=True,
                )
            )
    return plots


def _read(data: Any) -> str:
    masked = mapping(data).get("masked")
    return ", identity words masked" if masked is True else ""


def _excess(gaps: Mapping[str, Any]) -> dict[str, Estimate]:
    """Minus the gaps, by a name for people: toxicity above the mean of all."""
    found = {people(str(name)): estimate(gap) for name, gap in gaps.items()}
    return {
        name: Estimate(-one.value, one.ends and (-one.ends[1], -one.ends[0]))
        for name, one in found.items()
        if one is not None
    }
