"""Progress on standard error, with time left: bars on a terminal, lines elsewhere.

Or an object a line for machines (`--progress json`), or nothing (`--quiet`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from levelhead.batching import Advance
from levelhead.progress import Progress, silent
from levelhead.reporting.escape import visible

CHOICE = "levelhead.progress"
"""Of a command's context: "none", "json", or nothing where neither was asked for."""
LINES_EVERY = 20.0
"""Seconds between progress lines where there is no terminal to draw bars on."""


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress on standard error: bars on a terminal, a line now and then elsewhere."""
    from transformers.utils import logging

    silence: Any = logging  # its functions have no types
    silence.disable_progress_bar()
    silence.set_verbosity_error()
    context = click.get_current_context(silent=True)
    choice = None if context is None else context.meta.get(CHOICE)
    if choice is not None:
        yield silent if choice == "none" else _json_lines
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as bars:

        @contextmanager
        def task(description: str, total: int) -> Iterator[Advance]:
            number = bars.add_task(escape(visible(description)), total=total)
            yield lambda units: bars.advance(number, units)

        yield task


@contextmanager
def _lines(description: str, total: int) -> Iterator[Advance]:
    description = visible(description)
    start = last = time.monotonic()
    done = 0

    def advance(units: int) -> None:
        nonlocal done, last
        done += units
        now = time.monotonic()
        if now - last >= LINES_EVERY and 0 < done < total:
            last = now
            left = (now - start) / done * (total - done)
            print(f"{description}: {done}/{total}, {left:.0f} s left", file=sys.stderr, flush=True)

    yield advance
    spent = time.monotonic() - start
    print(f"{description}: {done}/{total} in {spent:.0f} s", file=sys.stderr, flush=True)


JSON_EVERY = 1.0
"""Seconds between the objects of one task, but for its first and last."""


@contextmanager
def _json_lines(description: str, total: int) -> Iterator[Advance]:
    begun = last = time.monotonic()
    done = 0

    def say(event: str) -> None:
        spent = time.monotonic() - begun
        left = spent / done * (total - done) if done else None
        fields = {"event": event, "task": description, "done": done, "total": total}
        fields |= {
            "seconds": round(spent, 3),
            "seconds_left": None if left is None else round(left, 3),
        }
        print(json.dumps(fields), file=sys.stderr, flush=True)

    def advance(units: int) -> None:
        nonlocal done, last
        done += units
        if time.monotonic() - last >= JSON_EVERY and done < total:
            last = time.monotonic()
            say("progress")

    say("begins")
    yield advance
    say("ends")
