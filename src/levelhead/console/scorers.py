"""The tables of `levelhead scorers`: a row per scorer, and the words each reacts to most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead.console.terminal import output
from levelhead.reporting.escape import visible

WORST = 5
Json = Mapping[str, Any]


def scorers_summary(found: Json) -> None:
    """What `scorers` found, on standard output."""
    console = output()
    console.print(_measured(found["scorers"]))
    console.print(_words(found["scorers"]))
    for one in found["scorers"]:
        console.print(
            escape(
                f"- {visible(one['name'])}: {one['measures']}, {one['cost']}, language "
                f"{one['language']}, licence {one['licence']}"
            ),
            highlight=False,
        )
    console.print(escape(_chosen(found)), highlight=False)
    read = found["sentences"]
    console.print(
        f"Reaction: {read['words']} identity phrases in {read['frames']} neutral sentences, each "
        'minus "a person"; mean of absolute values. Controls: means of '
        f"{read['toxic']} insults and threats, {read['ordinary']} ordinary and {read['sad']} sad "
        "sentences. 95% intervals over sentences.",
        highlight=False,
    )
    for one in found["left_out"]:
        console.print(escape(f"{one['name']} is left out: {visible(one['why'])}."), highlight=False)


def _measured(scorers: list[Json]) -> Table:
    table = _table(
        "scorer", "reaction\nto names", "insults,\nordinary,\nsad", "area under\nthe curve",
        "empty\ntext", "texts\na second",
    )  # fmt: skip
    for one in scorers:
        controls = one["controls"]
        means = (f"{controls[kind]:.2f}" for kind in ("toxic", "ordinary", "sad"))
        table.add_row(
            escape(visible(one["name"])),
            _span(one["reaction"]["mean"], ".3f"),
            "\n".join(means),
            _span(controls["auc"], ".2f"),
            f"{one['floor']:.2f}",
            f"{float(format(one['texts_per_second'], '.2g')):,.0f}",
        )
    return table


def _words(scorers: list[Json]) -> Table:
    table = _table("reacts most to", "reaction")
    for one in scorers:
        table.add_row(f"[bold]{escape(visible(one['name']))}[/bold]", "")
        for word in one["reaction"]["words"][:WORST]:
            low, high = word["ci95"]
            cell = f"{word['value']:+.2f} [{low:+.2f}, {high:+.2f}]"
            table.add_row(f"  {escape(visible(word['word']))}", escape(cell))
    return table


def _chosen(found: Json) -> str:
    choice, default = found["choice"], found["default"]
    if choice["name"] is None:
        return f"None of them may be the default of the embedded model, which is {default}."
    lines = [f"By the rule, the embedded model's default is {choice['name']}: {choice['rule']}."]
    if choice["runner_up"]:
        low, high = choice["advantage"]["ci95"]
        lines.append(
            f"Its reaction is {choice['advantage']['value']:+.3f} [{low:+.3f}, {high:+.3f}] from "
            f"that of {choice['runner_up']}, in units of what separates the controls."
        )
    if choice["name"] != default:
        lines.append(f"The default that is set is {default}.")
    return " ".join(lines)


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first, overflow="fold", min_width=18)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _span(estimate: Json, form: str) -> str:
    low, high = (format(end, form) for end in estimate["ci95"])
    return escape(f"{estimate['value']:{form}}\n[{low}, {high}]")
