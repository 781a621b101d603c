"""The row of a reproduction beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead.console.terminal import output
from levelhead.reporting.escape import visible


def reproduction_summary(found: Mapping[str, Any]) -> None:
    """Both rows, then all that is not as in the paper."""
    console = output()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("alpha", "gamma", "reduction of bias", "perplexity"):
        table.add_column(name, justify="right", no_wrap=True)
    reduction, increase = found["reduction"], found["perplexity_increase"]
    if reduction is None:
        console.print("No set of heads could be chosen on the validation prompts.")
        return
    low, high = reduction["ci95"]
    table.add_row(
        "here",
        f"{found['alpha']:g}",
        f"{found['gamma']:g}",
        f"{reduction['value']:+.1%}\n{low:+.1%} to {high:+.1%}",
        f"{found['base_perplexity']:.2f} -> {found['perplexity']:.2f}\n({increase['value']:+.1%})",
    )
    published = found["published"]
    if published:
        gamma = "" if published["gamma"] is None else f"{published['gamma']:g}"
        table.add_row("paper", "", gamma, f"{published['reduction']:+.1%}", "")
    console.print(table)
    name = escape(visible(str(found["model"])))
    console.print(
        f"{name}, {escape(visible(found['axis']))}: measured bias of the base model "
        f"{found['base']['bias']['value']:.4f}. The interval (95%, over prompt templates) takes "
        "that as known." + ("" if published else " The paper has no figure for this model.")
    )
    if not found["reliable"]:
        console.print(
            "[yellow]The ranking that chose the heads is mostly noise: another seed would choose "
            "others.[/yellow]"
        )
    console.print("Not as in the paper:")
    for said in found["differs"]:
        console.print(f"- {escape(visible(said))}")
