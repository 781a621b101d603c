"""The table of a comparison, and the plan before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead.console.cells import stacked
from levelhead.console.terminal import output
from levelhead.reporting.escape import visible


def comparison_summary(comparison: Mapping[str, Any]) -> None:
    """A row per method at the alphas that were proven by sampling, for every axis compared."""
    console = output()
    for result in (comparison, *comparison["more"]):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, title_justify="left")
        table.title = escape(visible(f"{result['axis']}: {result['prompts']} test prompts"))
        table.add_column("method", no_wrap=True)
        for name in (
            "bias\nadjusted",
            "bias\nsampled",
            "bias\nexpected",
            "mean\ntoxicity",
            "perplexity",
        ):
            table.add_column(name, justify="right", no_wrap=True)
        for row in result["table"]:
            table.add_row(*_cells(row))
        console.print(table)
        base = result["base"][result["axis"]]
        console.print(
            f"Base: bias {base['bias']['value']:.4f}, mean toxicity {base['mean_toxicity']:.4f}, "
            f"perplexity {result['base_perplexity']:.2f}. Differences are pruned minus base, their "
            "95% intervals below them; below each method its alpha and gamma; (!) is over the "
            "perplexity budget."
        )
        if (best := result["best"]) is not None:
            console.print(
                f"Within {comparison['max_ppl_increase']:.0%} perplexity, validation prompts "
                f"prefer fasp at alpha {best['alpha']:g}, gamma {best['gamma']:g}."
            )
        if not result["reliable"]:
            console.print("[yellow]The ranking of heads by bias is not reliable.[/yellow]")


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    increase = row["perplexity_increase"]["value"]
    gamma = "" if row["gamma"] is None else f", {row['gamma']:g}"
    draws = f", {row['draws']} draws" if row["draws"] > 1 else ""
    at = f"{row['alpha']:g}" if row["alpha"] is not None else f"lambda {row['lambda']:g}"
    return (
        f"{row['method']}\n{at}{gamma}{draws}"
        + (f"\n{escape(visible(row['run']))}" if row["run"] else ""),
        stacked(row.get("adjusted_difference")),
        stacked(row.get("difference"), bold=False),
        stacked(row["expected_difference"], bold=False),
        stacked(row.get("toxicity_difference"), bold=False),
        f"{increase:+.1%}\n" + ("" if row["within_budget"] else "(!)"),
    )
