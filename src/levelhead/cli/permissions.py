"""What only the person who types may allow, for one command: no file can give it, none keeps it.

`--allow-pickle`, for every command that loads a model (levelhead.permissions); it is added in one
place, so that no command is forgotten. `--allow-unreliable`, for those that choose heads.
"""

from __future__ import annotations

import click

from levelhead.permissions import pickles_allowed

LOAD_NO_MODEL = frozenset(
    ("select", "report", "heads", "diagnose", "fetch-model", "push", "status")
)  # fmt: skip
"""All other commands may load one."""
ALLOW_UNRELIABLE = click.option(
    "--allow-unreliable", is_flag=True, help="Choose even where the ranking is mostly noise."
)


def _allow(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.with_resource(pickles_allowed())


def add_permissions(group: click.Group) -> None:
    """Give `--allow-pickle` to every command but those of `LOAD_NO_MODEL`."""
    for name, command in group.commands.items():
        if name not in LOAD_NO_MODEL:
            option = click.Option(
                ["--allow-pickle"],
                is_flag=True,
                expose_value=False,
                callback=_allow,
                help="Read weights that exist only as a pickle; only for files you trust.",
            )
            command.params.append(option)
