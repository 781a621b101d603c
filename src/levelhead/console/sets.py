"""Tables about the selected set: interactions of its heads, and what the models write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead.console.cells import stacked
from levelhead.console.terminal import output
from levelhead.reporting.escape import visible

METRICS = {"bias": "bias, expected", "mean_toxicity": "mean toxicity", "nll": "NLL per token"}


def interactions_summary(found: Mapping[str, Any]) -> None:
    """Sum of single effects, joint effect and what is left over, per metric; then pairs."""
    console = output()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("without minus with", no_wrap=True)
    for name in ("one by one, added", "together", "interaction"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric, words in METRICS.items():
        row = found["metrics"][metric]
        table.add_row(words, *(stacked(row[key]) for key in ("sum", "joint", "interaction")))
    console.print(f"{len(found['heads'])} heads, {escape(visible(found['axis']))}:")
    console.print(table)
    if not found["pairs"]:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("head", "head"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric in ("bias", "nll"):
        table.add_column(f"{metric}: interaction", justify="right", no_wrap=True)
    for pair in found["pairs"]:
        names = (".".join(map(str, pair[key])) for key in ("a", "b"))
        table.add_row(*names, *(stacked(pair[m]["interaction"]) for m in ("bias", "nll")))
    console.print("Pairs of the heads with the largest effect on bias (layer.head):")
    console.print(table)


def examples_summary(found: Mapping[str, Any]) -> None:
    """Both models' continuations of every prompt, whatever is in them made visible."""
    console = output()
    console.print("[yellow]Generated text can be offensive.[/yellow]")
    for prompt in found["prompts"]:
        console.print(
            f"\n[bold]{escape(visible(prompt['prompt']))}[/bold] "
            f"({escape(visible(prompt['subgroup']))})"
        )
        for base, pruned in zip(prompt["base"], prompt["pruned"], strict=True):
            for name, text in (("base  ", base), ("pruned", pruned)):
                console.print(f"  {name} {text['toxicity']:.2f}  {escape(visible(text['text']))}")
