"""The tables of a run: scores, evaluation, diagnosis; and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from levelhead import runs
from levelhead.reporting.escape import visible
from levelhead.reporting.terminal import summary_table
from levelhead.scores import ScoreTable, bias_metric

SHOWN_HEADS = 10


def evaluation_summary(evaluation: Mapping[str, Any]) -> None:
    """The table of an evaluation, its headline and its warnings."""
    console = Console()
    console.print(summary_table(evaluation))
    console.print(escape(visible(evaluation["headline"])))
    warn(evaluation["warnings"])


def warn(warnings: Sequence[str]) -> None:
    """Warnings on standard error, whatever is in them made visible."""
    console = Console(stderr=True)
    for warning in warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(visible(warning))}")


def score_summary(table: ScoreTable, out: Path) -> None:
    """The heads with the largest effect on each axis' bias."""
    console = Console()
    details = runs.read_json(out / runs.DETAILS)
    for axis in table.axes:
        metric = bias_metric(axis)
        effect = table.effect(metric)
        low, high = table.interval(metric)
        shown = Table(title=f"largest z_bias: {escape(axis)}")
        for name in ("layer", "head", "z_bias", "95% interval"):
            shown.add_column(name, justify="right")
        for index in np.argsort(-effect, axis=None, kind="stable")[:SHOWN_HEADS]:
            layer, head = divmod(int(index), table.num_heads)
            ends = escape(f"[{low[layer, head]:+.5f}, {high[layer, head]:+.5f}]")
            shown.add_row(str(layer), str(head), f"{effect[layer, head]:+.5f}", ends)
        console.print(shown)
        console.print(escape(_reliability(axis, details)))
    warn(details["warnings"])
    console.print(f"scores: {escape(str(out / runs.SCORES))}")


def _reliability(axis: str, details: Mapping[str, Any]) -> str:
    """How far the ranking of an axis can be relied on, in a sentence."""
    found, agreement = details["axes"][axis], details["agreement"][axis]
    value = "unknown" if found["reliability"] is None else f"{found['reliability']:.2f}"
    said = (
        f"{axis}: split-half reliability {value} with {found['samples']} sample(s) per prompt "
        f"(stopped: {found['stopped']})"
    )
    if "overlap" in agreement:
        said += (
            f"; two halves of it prune {agreement['overlap']:.0%} of the same heads "
            f"(chance {agreement['overlap_chance']:.0%}) and protect "
            f"{agreement['protected_overlap']:.0%}"
        )
    return visible(said)


def diagnosis_summary(diagnosis: Mapping[str, Any]) -> None:
    """The table of a diagnosis, then every finding as a sentence, all on standard output."""
    console = Console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("axis", overflow="fold")
    for name in ("seeds", "heads", "Spearman", "reliability", "overlap\n(chance)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for axis, found in diagnosis["axes"].items():
        table.add_row(
            escape(visible(axis)),
            str(len(found["seeds"])),
            str(found["heads"]),
            _number(found["seed_spearman"], ".2f", found["seed_spearman_ci95"]),
            _number(found["reliability"], ".2f"),
            f"{_number(found['overlap'], '.0%')} ({_number(found['overlap_chance'], '.0%')})",
            _verdict(found),
        )
    console.print(table)
    console.print(
        "Spearman: of two seeds' rankings, mean over pairs, with a 95% interval. Reliability: of "
        "the mean over all seeds. Overlap: of the heads that two seeds would prune."
    )
    for warning in diagnosis["warnings"]:
        console.print(f"- {escape(visible(warning))}")


def _number(value: float | None, form: str, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "unknown"
    ends = f"\n{interval[0]:{form}} to {interval[1]:{form}}" if interval else ""
    return f"{value:{form}}{ends}"


def _verdict(found: Mapping[str, Any]) -> str:
    if found["reliable"]:
        return "[green]reliable[/green]"
    if found["bimodal"]:
        return "[red]bimodal[/red]"
    return "[yellow]unknown[/yellow]" if found["reliability"] is None else "[red]noise[/red]"
