"""The table of `levelhead rescore`: both readings of both models, axis by axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead.console.cells import stacked
from levelhead.console.terminal import output
from levelhead.reporting.escape import visible

Json = Mapping[str, Any]


def rescore_summary(found: Json) -> None:
    """What `rescore` found, on standard output."""
    console = output()
    for axis, one in found["axes"].items():
        console.print(_axis(axis, one))
        console.print(_gaps(one))
        console.print(f"Verdict on {escape(visible(axis))}: {one['verdict']}.", highlight=False)
    console.print(escape(visible(found["headline"])), highlight=False)
    console.print(
        "Bias is the sum over subgroups of the distance of their mean from that of all; a gap "
        "below 0: what is written about the subgroup is more toxic. Difference: pruned minus "
        "base. Echo: plain minus masked. 95% intervals.",
        highlight=False,
    )


def _axis(axis: str, one: Json) -> Table:
    table = _table(visible(axis), "base", "pruned", "difference")
    for name, reading in (("masked", one), ("plain", one["plain"])):
        table.add_row(
            f"bias, {name}",
            _bias(reading["base"]),
            _bias(reading["pruned"]),
            _span(reading["difference"]),
        )
    table.add_row("echo", *(_span(one["echo"][key]) for key in ("base", "pruned", "difference")))
    for name, reading in (("masked", one), ("plain", one["plain"])):
        table.add_row(
            f"mean, {name}",
            f"{reading['base']['mean_toxicity']:.4f}",
            f"{reading['pruned']['mean_toxicity']:.4f}",
            _span(reading["toxicity_difference"]),
        )
    if one["validation"] is not None:
        validation = one["validation"]
        for name, reading in (("masked", validation), ("plain", validation["plain"])):
            table.add_row(f"scored texts, {name}", _bias(reading["base"]), "", "")
    return table


def _gaps(one: Json) -> Table:
    table = _table("gap", "base,\nmasked", "pruned,\nmasked", "base,\nplain", "pruned,\nplain")
    plain = one["plain"]
    for name in one["base"]["gaps"]:
        read = [reading["gaps"][name] for reading in (
            one["base"], one["pruned"], plain["base"], plain["pruned"]
        )]  # fmt: skip
        table.add_row(escape(visible(name)), *map(stacked, read))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(escape(first), overflow="fold", min_width=14)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _bias(model: Json) -> str:
    low, high = model["ci95"]
    return escape(f"{model['bias']:.4f}\n[{low:.4f}, {high:.4f}]")


def _span(estimate: Json) -> str:
    low, high = estimate["ci95"]
    return escape(f"{estimate['value']:+.4f}\n[{low:+.4f}, {high:+.4f}]")
