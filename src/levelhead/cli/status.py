"""What a run folder holds and what is being done in it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from levelhead.cli.app import cli
from levelhead.cli.help import START, flag
from levelhead.cli.options import JSON, RUN, show

WATCH_EVERY = 2.0
"""Seconds between two looks."""


@cli.command(group=START, place=5)
@RUN
@JSON
@flag("--watch", is_flag=True, help="Look again every two seconds, until nothing runs.")
def status(folder: Path, as_json: bool, watch: bool) -> None:
    """Say how far a run is, and what is left to do.

    Stages, batches done, reused and left, time left, last error. It only reads, and works while
    another process runs.
    """
    from levelhead.attempts import stale
    from levelhead.console.status import status_table
    from levelhead.journal.status import read_status
    from levelhead.runs import RunFolder

    RunFolder.open(folder, old=True)
    while True:
        found = read_status(folder)
        for stage, why in stale(folder).items():
            if found["stages"][stage]["state"] == "done":
                found["stages"][stage] |= {"state": "stale", "why": why}
        if watch and not as_json:
            click.clear()
        show(found, as_json, status_table)
        if not (watch and found["running"]):
            break
        time.sleep(WATCH_EVERY)
