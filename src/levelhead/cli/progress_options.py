"""`--quiet` and `--progress`, for every command that takes long; added in one place."""

from __future__ import annotations

import click

from levelhead.cli.help import Flag
from levelhead.config.fields import MACHINE

LONG = frozenset(
    (
        "agree", "axes", "bench-model", "compare", "demo", "evaluate", "examples", "export",
        "interactions", "prune", "prune-weights", "reproduce", "rescore", "retry", "run", "score",
        "scorers", "select", "transfer", "verify",
    )
)  # fmt: skip
PROGRESS = "levelhead.progress"
"""Where the choice is kept in the context of the command; console.progress reads it there."""


def add_progress(group: click.Group) -> None:
    """Give the two options to the commands of `LONG`."""
    for name, command in group.commands.items():
        if name in LONG:
            command.params += [
                Flag(
                    ["--quiet"],
                    is_flag=True,
                    expose_value=False,
                    callback=_quiet,
                    panel=MACHINE,
                    help="No progress and no plan on standard error.",
                ),
                Flag(
                    ["--progress"],
                    type=click.Choice(("auto", "json")),
                    default="auto",
                    expose_value=False,
                    callback=_progress,
                    panel=MACHINE,
                    research=True,
                    help="json: an object a line on standard error, for machines.",
                ),
            ]


def is_quiet() -> bool:
    """Whether the command that runs was told to be."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(PROGRESS) == "none"


def tell(text: str) -> None:
    """Say something before long work, on standard error; nothing under --quiet."""
    if not is_quiet():
        from levelhead.console.terminal import say

        say(text)


def _quiet(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.meta[PROGRESS] = "none"


def _progress(context: click.Context, parameter: click.Parameter, given: str) -> None:
    if given != "auto" and PROGRESS not in context.meta:
        context.meta[PROGRESS] = given
