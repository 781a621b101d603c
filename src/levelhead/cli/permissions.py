"""`--allow-pickle`, for every command that loads a model.

A permission of the person who types, for one command: no file can give it, and it is kept nowhere
(levelhead.permissions). The option is added in one place, so that no command is forgotten.
"""

from __future__ import annotations

import click

from levelhead.cli.help import Flag
from levelhead.permissions import pickles_allowed

LOAD_NO_MODEL = frozenset(
    ("select", "report", "results", "heads", "diagnose", "fetch-model", "push", "status")
)  # fmt: skip
"""All other commands may load one."""


def _allow(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.with_resource(pickles_allowed())


def add_permissions(group: click.Group) -> None:
    """Give `--allow-pickle` to every command but those of `LOAD_NO_MODEL`."""
    for name, command in group.commands.items():
        if name not in LOAD_NO_MODEL:
            option = Flag(
                ["--allow-pickle"],
                is_flag=True,
                expose_value=False,
                callback=_allow,
                research=True,
                help="Read weights that exist only as a pickle; only for files you trust.",
            )
            command.params.append(option)
