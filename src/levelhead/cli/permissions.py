"""What only the person who types may allow or forbid, for one command: no file keeps it.

`--allow-pickle` (levelhead.permissions) and `--offline` (levelhead.network), for every command that
loads a model; they are added in one place, so that no command is forgotten. `--allow-unreliable`,
for those that choose heads.
"""

from __future__ import annotations

import click

from levelhead.cli.help import Flag, flag
from levelhead.network import offline
from levelhead.permissions import pickles_allowed

LOAD_NO_MODEL = frozenset(
    ("select", "report", "results", "heads", "diagnose", "fetch-model", "push", "status")
)  # fmt: skip
"""All other commands may load one."""
ALLOW_UNRELIABLE = flag(
    "--allow-unreliable", is_flag=True, help="Choose even where the ranking is mostly noise."
)


def _allow(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.with_resource(pickles_allowed())


def _offline(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.with_resource(offline())


def add_permissions(group: click.Group) -> None:
    """Give `--allow-pickle` and `--offline` to every command but those of `LOAD_NO_MODEL`."""
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
            option = Flag(
                ["--offline"],
                is_flag=True,
                expose_value=False,
                callback=_offline,
                help="Fetch nothing: what is not on this machine is an error, before any work.",
            )
            command.params.append(option)
