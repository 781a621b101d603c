"""The tables of a run: scores, evaluation, diagnosis; and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead import runs
from levelhead.console.terminal import output, say
from levelhead.reporting.escape import visible
from levelhead.reporting.next_steps import next_steps
from levelhead.reporting.readiness import judged_ready
from levelhead.reporting.terminal import summary_table
from levelhead.scores import ScoreTable, bias_metric
from levelhead.search_result import limit_of

SHOWN_HEADS = 10


def evaluation_summary(evaluation: Mapping[str, Any]) -> None:
    """The table of an evaluation, its headline and its warnings."""
    console, table = output(), summary_table(evaluation)
    notes, table.caption = table.caption, None  # a caption is never wider than its table
    console.print(table)
    console.print(notes)
    console.print(escape(visible(evaluation["headline"])))
    warn(evaluation["warnings"])


def next_steps_summary(run: Path, evaluation: Mapping[str, Any]) -> None:
    """Whether the model is ready and what to do next, on standard error: reasons and commands."""
    files = (runs.DETAILS, runs.SELECTION, runs.CONFIG)
    details, selection, config = (runs.read_json(run / name) for name in files)
    judged = judged_ready(evaluation, str(selection.get("axis")), limit_of(selection, config))
    if judged is not None:
        say(judged.sentence)
    for step in next_steps(str(run), evaluation, details, selection, config):
        say(f"next: {step.why}")
        click.echo(visible(f"      {step.command}"), err=True)  # whole, to be copied


def warn(warnings: Sequence[str]) -> None:
    """Warnings on standard error, whatever is in them made visible."""
    for warning in warnings:
        say(warning, lead="warning: ", style="yellow")


def score_summary(table: ScoreTable, out: Path) -> None:
    """The heads with the largest effect on each axis' bias."""
    console = output()
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
            f"; each half of the data alone picks {agreement['overlap']:.0%} of the same heads "
            f"(chance {agreement['overlap_chance']:.0%}) and protects "
            f"{agreement['protected_overlap']:.0%}"
        )
    return visible(said)


def diagnosis_summary(diagnosis: Mapping[str, Any]) -> None:
    """The table of a diagnosis, then every finding as a sentence, all on standard output."""
    console = output()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("axis", overflow="fold")
    for name in ("Spearman", "reliability", "without\ntoxicity", "overlap"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=9)
    for axis, found in diagnosis["axes"].items():
        _add_ranking(table, axis, f"{found['heads']} heads x {len(found['seeds'])}", found)
        for mode, within in found["within_modes"].items():
            _add_ranking(table, f"{mode} mode", f"{_number(within['heads'], '.0f')} heads", within)
    console.print(table)
    console.print(
        "Heads x seeds. Spearman: of two seeds' rankings, mean over pairs. Reliability, with its "
        "95% interval: of the mean over all seeds; without toxicity: of what is left when mean "
        "toxicity is taken out. Overlap: of the heads that two seeds would prune, in brackets "
        "what chance gives, p the probability of as much by chance. Verdict: more than noise "
        "where all intervals lie at or above 0.5, noise where one lies below it."
    )
    for warning in diagnosis["warnings"]:
        console.print(f"- {escape(visible(warning))}")


def _add_ranking(table: Table, name: str, counts: str, found: Mapping[str, Any]) -> None:
    """A row of the table of a diagnosis: of an axis, or of one mode of it."""
    spearman = _number(found["seed_spearman"], ".2f")
    reliabilities = [
        _number(found[key], ".2f", found[f"{key}_ci95"])
        for key in ("reliability", "reliability_without_toxicity")
    ]
    overlap = ""
    if "overlap" in found:
        share, chance = (_number(found[key], ".0%") for key in ("overlap", "overlap_chance"))
        overlap = f"{share} ({chance})\np = {_number(found['overlap_p'], '.2g')}"
    label = f"{escape(visible(name))}\n{counts}"
    table.add_row(label, spearman, *reliabilities, overlap, _verdict(found))


def _number(value: float | None, form: str, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "unknown"
    ends = f"\n{interval[0]:{form}} to {interval[1]:{form}}" if interval else ""
    return f"{value:{form}}{ends}"


COLOURS = {"more than noise": "green", "noise": "red", "cannot tell": "yellow"}


def _verdict(found: Mapping[str, Any]) -> str:
    verdict = found["verdict"]
    said = f"[{COLOURS[verdict]}]{verdict}[/]"
    return f"{said}\n[red](bimodal)[/]" if found.get("bimodal") else said
