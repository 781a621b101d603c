"""The command line: one function per command, flags built from `RunConfig`.

Tables go to standard output, progress and messages to standard error. torch and transformers are
imported when a command needs them, so that --help answers at once.
"""

from levelhead.cli import (
    agree,
    attempts,
    axes,
    deploy,
    evaluate,
    experiments,
    report,
    rescore,
    scorers,
    sets,
    stages,
    status,
    tables,
    transfer,
    verify,
    weights,
)
from levelhead.cli.app import cli, main
from levelhead.cli.permissions import add_permissions
from levelhead.cli.progress_options import add_progress

add_permissions(cli)
add_progress(cli)
__all__ = [
    "agree",
    "attempts",
    "axes",
    "cli",
    "deploy",
    "evaluate",
    "experiments",
    "main",
    "report",
    "rescore",
    "scorers",
    "sets",
    "stages",
    "status",
    "tables",
    "transfer",
    "verify",
    "weights",
]
