"""The tables of `levelhead agree`: measures, pairs of them, and a sentence for every pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead.console.summaries import warn
from levelhead.console.terminal import output
from levelhead.reporting.escape import visible


def agreement_summary(found: Mapping[str, Any]) -> None:
    """Everything agree.json says, on standard output; warnings on standard error."""
    console = output()
    console.print(_measures(found))
    console.print(_pairs(found))
    for pair in found["pairs"]:
        console.print(f"- {escape(visible(pair['verdict']))}", highlight=False)
    console.print(escape(found["headline"]), highlight=False)
    console.print(
        f"{found['texts']['count']} texts of {found['prompts']} prompts of "
        f"{escape(visible(found['axis']))}; alpha {found['alpha']:g}, gamma {found['gamma']:g}. "
        "Intervals: 95%. From other templates: sets from halves that share no template."
    )
    warn(found["warnings"])


def _measures(found: Mapping[str, Any]) -> Table:
    table = _table("measure", "bias", "reliability", "texts over 0.5")
    shares = found["texts"]["share_over_half"]
    for one in found["measures"]:
        name = escape(visible(one["name"]))
        if "failed" in one:
            table.add_row(name, "left out", "", "")
            continue
        share = shares.get(one["name"])
        table.add_row(
            name,
            _with_interval(one["bias"], ".3f"),
            "unknown" if one["reliability"] is None else f"{one['reliability']:.2f}",
            "" if share is None else f"{share:.1%}",
        )
    return table


def _pairs(found: Mapping[str, Any]) -> Table:
    table = _table(
        "pair", "Spearman\nof heads", "without\nnoise", "heads in\ncommon", "texts:\nkappa"
    )
    kappa = {(pair["a"], pair["b"]): pair["kappa"] for pair in found["texts"]["pairs"]}
    for pair in found["pairs"]:
        agreed = kappa.get((pair["a"], pair["b"]))
        table.add_row(
            "\n".join(escape(visible(pair[side])) for side in "ab"),
            _with_interval(pair["spearman"], ".2f"),
            _with_interval(pair["corrected"], ".2f"),
            f"{_with_interval(pair['overlap'], '.0%')} (chance {pair['overlap_chance']:.0%})",
            "" if agreed is None else f"{agreed:.2f}",
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _with_interval(estimate: Mapping[str, Any] | None, form: str) -> str:
    if estimate is None:
        return "unknown"
    low, high = estimate["ci95"]
    return escape(f"{estimate['value']:{form}} [{low:{form}}, {high:{form}}]")
