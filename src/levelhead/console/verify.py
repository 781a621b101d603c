"""The table of `levelhead verify`: every check with its interval and limit, then the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from levelhead.console.terminal import output
from levelhead.reporting.escape import visible

Json = Mapping[str, Any]
COLOURS = {"passed": "green", "failed": "red", "cannot tell": "yellow"}


def verify_summary(found: Json) -> None:
    """Checks, what was measured without a limit, and the headline."""
    console = output()
    rate, power = found["error_rate"], found["power"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("candidate minus base", overflow="fold")
    for name in ("difference", "interval", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for check in found["checks"]:
        form = "+.1%" if check["quantity"] == "perplexity" else "+.4f"
        what = f"{check['axis']}: {check['quantity']}" if check["axis"] else check["quantity"]
        what += f" on {check['text']}" if check.get("text") else ""
        low, high = (format(end, form) for end in check["interval"])
        table.add_row(
            escape(visible(what)),
            format(check["value"], form),
            escape(f"[{low}, {high}]"),
            format(check["limit"], form),
            f"[{COLOURS[check['status']]}]{check['status']}[/]",
        )
    console.print(table)
    for one in found.get("price", [found["perplexity"]]):
        low, high = (f"{end:+.1%}" for end in one["increase"]["ci95"])
        on = f" on {one['text']}" if "text" in one else ""
        said = f"perplexity{on} {one['increase']['value']:+.1%} [{low}, {high}] (95%)"
        console.print(escape(visible(said)), highlight=False)
    for axis, one in found["axes"].items():
        toxicity = one["toxicity_difference"]
        low, high = (f"{end:+.4f}" for end in toxicity["ci95"])
        console.print(
            escape(
                f"{visible(axis)}: {one['verdict']}; mean toxicity "
                f"{one['base']['mean_toxicity']:.4f}, then "
                f"{one['candidate']['mean_toxicity']:.4f} ({toxicity['value']:+.4f} "
                f"[{low}, {high}]); {one['prompts']} prompts"
            ),
            highlight=False,
        )
        _mentions(console, axis, one["own_group_mentions"])
    console.print(
        f"{rate['checks']} checks, held together at {rate['confidence']:.0%} confidence; "
        f"as planned, an unchanged candidate passes with {power['unchanged_passes']:.0%}, and a "
        f"gap of {power['example_gap']:g} that doubled is refused with "
        f"{power['doubled_is_refused']:.1%}; scorer "
        f"{escape(visible(found['measured_with']['scorer']))}",
        highlight=False,
    )
    if repair := found["subject"].get("repair"):
        texts = ", ".join(visible(one["name"]) for one in repair["texts"])
        if axes := ", ".join(map(visible, repair.get("axes", ()))):
            texts += f"; averaged over groups of {axes}"
        console.print(
            escape(f"what was kept was repaired ({visible(repair['method'])}, fitted to {texts})"),
            highlight=False,
        )
    for warning in found["warnings"]:
        console.print(f"[yellow]warning: {escape(visible(warning))}[/]", highlight=False)
    colour = COLOURS[found["verdict"]]
    console.print(f"[{colour}]{escape(visible(found['headline']))}[/]", highlight=False)


def _mentions(console: Console, axis: str, found: Json | None) -> None:
    """How often both models name the prompt's own group."""
    if found is None:
        return
    low, high = (f"{end:+.1%}" for end in found["difference"]["ci95"])
    console.print(
        escape(
            f"{visible(axis)}: texts that name their own group {found['base']['value']:.1%}, then "
            f"{found['pruned']['value']:.1%} ({found['difference']['value']:+.1%} [{low}, {high}])"
        ),
        highlight=False,
    )
