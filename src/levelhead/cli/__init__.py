"""The command line: one function per command, flags built from `RunConfig`.

Tables go to standard output, progress and messages to standard error. torch and transformers are
imported when a command needs them, so that --help answers at once.
"""

from levelhead.cli import (
    agree,
    axes,
    deploy,
    evaluate,
    experiments,
    report,
    sets,
    stages,
    tables,
    transfer,
    verify,
)
from levelhead.cli.app import cli, main
from levelhead.cli.permissions import add_permissions

add_permissions(cli)
__all__ = [
    "agree",
    "axes",
    "cli",
    "deploy",
    "evaluate",
    "experiments",
    "main",
    "report",
    "sets",
    "stages",
    "tables",
    "transfer",
    "verify",
]
