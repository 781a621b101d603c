"""Which subgroup and which word carry a ranking of heads (details.json, `scoring.stability`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.records import HeadSelection
from levelhead.reporting import numbers
from levelhead.reporting.content import Column, Section, Table, Value, numeric
from levelhead.reporting.estimates import share_cell
from levelhead.reporting.summary import mapping, texts, word

Json = Mapping[str, Any]
KINDS = ("subgroup", "word")


def rests_on(details: Json, selection: HeadSelection) -> Section | None:
    """The largest shares, and the ranking without each subgroup and word; None without any."""
    largest: list[tuple[Value, ...]] = []
    every: list[tuple[Value, ...]] = []
    for axis, data in mapping(details, "axes").items():
        for kind in KINDS:
            one = mapping(data, "largest_share", kind)
            if one.get("name"):
                largest.append((str(axis), kind, *_without(data, kind, word(one["name"]), one)))
            every += _each(str(axis), mapping(data), kind)
    if not largest and not every:
        return None
    tables = []
    if largest:
        title = "The subgroup and the word that carry most"
        tables.append(Table.of(_columns("Carries most"), largest, title=title, note=_NOTE))
    if every:
        columns = (*_columns("Left out"), Column("Gaps used without it"))
        title = "Each subgroup and word left out"
        tables.append(Table.of(columns, every, title=title, fold="closed"))
    return Section(
        key="rests-on",
        title="What the ranking rests on",
        intro=(
            "A ranking that one subgroup or one word carries says more about that than about the "
            "axis." + _again(selection),
        ),
        tables=tuple(tables),
    )


_NOTE = (
    "Share of the ranking: of the variance of z_bias over heads; all shares of an axis add up to "
    "100%. Without it the ranking is made again: its Spearman correlation with the whole one, and "
    "the share of the selected heads that it selects, too."
)


def _columns(first: str) -> tuple[Column, ...]:
    return (
        Column("Axis"),
        Column("Kind"),
        Column(first),
        *numeric("Share of the ranking", "Spearman without it", "Same heads without it"),
    )


def _each(axis: str, data: Json, kind: str) -> list[tuple[Value, ...]]:
    """Every subgroup or word of an axis, the largest share first."""
    shares = mapping(data, "shares", kind)
    left = mapping(data, "leave_one_out", kind)
    names = [str(name) for name in dict.fromkeys([*shares, *left])]
    names.sort(key=lambda name: -(numbers.finite(shares.get(name)) or 0.0))
    return [
        (axis, kind, *_without(data, kind, name, shares.get(name)), _used(mapping(left, name)))
        for name in names
    ]


def _without(data: Any, kind: str, name: str, share: Any) -> tuple[Value, ...]:
    """(name, its share, what is left without it); `share`: with an interval, or a number."""
    if isinstance(share, Mapping):
        share = {"value": share.get("share"), "ci95": share.get("ci95")}
    left = mapping(data, "leave_one_out", kind, name)
    same = numbers.finite(left.get("overlap"))
    return (
        name,
        share_cell(share),
        numbers.decimal(left.get("spearman"), 2),
        numbers.MISSING if same is None else f"{same:.0%}",
    )


def _used(left: Json) -> str:
    if left.get("measurable") is False:
        return "none is measurable"
    return ", ".join(texts(left.get("used"))) or numbers.MISSING


def _again(selection: HeadSelection) -> str:
    share = numbers.finite((selection.details or {}).get("expected_overlap"))
    if share is None:
        return ""
    return (
        f" Another run of the same size would select about {share:.0%} of the pruned "
        f"{selection.unit}s, as far as effects are normal."
    )
