"""The table of `levelhead verify`: every check with its interval and limit, then the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from levelhead.reporting.escape import visible

Json = Mapping[str, Any]
COLOURS = {"passed": "green", "failed": "red", "cannot tell": "yellow"}


def verify_summary(found: Json) -> None:
    """Checks, what was measured without a limit, and the headline."""
    console = Console()
    rate = found["error_rate"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("candidate minus base", overflow="fold")
    for name in ("difference", f"{rate['level_of_each_interval']:.1%} interval", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for check in found["checks"]:
        form = "+.1%" if check["quantity"] == "perplexity" else "+.4f"
        what = f"{check['axis']}: {check['quantity']}" if check["axis"] else check["quantity"]
        low, high = (format(end, form) for end in check["interval"])
        table.add_row(
            escape(visible(what)),
            format(check["value"], form),
            escape(f"[{low}, {high}]"),
            format(check["limit"], form),
            f"[{COLOURS[check['status']]}]{check['status']}[/]",
        )
    console.print(table)
    increase = found["perplexity"]["increase"]
    low, high = (f"{end:+.1%}" for end in increase["ci95"])
    console.print(
        escape(f"perplexity {increase['value']:+.1%} [{low}, {high}] (95%)"), highlight=False
    )
    for axis, one in found["axes"].items():
        toxicity = one["toxicity_difference"]
        low, high = (f"{end:+.4f}" for end in toxicity["ci95"])
        console.print(
            escape(
                f"{visible(axis)}: mean toxicity {one['base']['mean_toxicity']:.4f}, then "
                f"{one['candidate']['mean_toxicity']:.4f} ({toxicity['value']:+.4f} "
                f"[{low}, {high}]); {one['prompts']} prompts"
            ),
            highlight=False,
        )
    console.print(
        f"{rate['checks']} checks, held together at {rate['confidence']:.0%} confidence "
        f"({rate['correction']}); scorer {escape(visible(found['measured_with']['scorer']))}",
        highlight=False,
    )
    colour = COLOURS[found["verdict"]]
    console.print(f"[{colour}]{escape(visible(found['headline']))}[/]", highlight=False)
