"""Progress on standard error: on a terminal in place, elsewhere a line now and then.

A run shows its five stages and one time left (`run_progress`); other commands what they are at
(`progress_bars`). Or an object a line for machines (`--progress json`), or nothing (`--quiet`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from levelhead.batching import Advance
from levelhead.console.expected import expected_steps
from levelhead.console.stages import Board
from levelhead.console.terminal import output
from levelhead.progress import Progress, Stages, silent, unseen
from levelhead.reporting.escape import visible

if TYPE_CHECKING:
    from levelhead.plan import Plan

CHOICE = "levelhead.progress"
"""Of a command's context: "none", "json", or nothing where neither was asked for."""
LINES_EVERY = 20.0
"""Seconds between progress lines where there is no terminal."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """What a run is given to be seen by."""

    progress: Progress
    stages: Stages = unseen
    announce: Callable[[Plan], None] = lambda plan: None
    """To be called with the plan, before work starts."""


@contextmanager
def run_progress(
    tell: Callable[[Plan], None] = lambda plan: None, kept: Sequence[str] = ()
) -> Iterator[RunProgress]:
    """Five lines, one for each stage of a run, and one time left for all of them.

    Args:
        tell: says the plan.
        kept: stages that this run does not do.
    """
    _silence_others()
    if (chosen := _chosen()) is not None:
        yield RunProgress(chosen, announce=tell)
        return
    shown, board = output(stderr=True), Board(kept)
    with ExitStack() as stack:
        if shown.is_terminal:
            live = Live(_Lines(board), console=shown, refresh_per_second=4)

            def begin() -> None:  # not before: the plan and errors stand above
                if not live.is_started:
                    stack.enter_context(live)

            board.changed = begin
        else:
            _log(board)

        def announce(plan: Plan) -> None:
            tell(plan)
            board.expect(expected_steps(plan))

        yield RunProgress(board.task, board.stage, announce)


class _Lines:
    """A board as rich draws it: no line is wrapped, what does not fit is cut at its end."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def __rich_console__(self, shown: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.board.lines():
            text = Text(line, no_wrap=True)
            text.truncate(options.max_width, overflow="ellipsis")
            yield text


def _log(board: Board) -> None:
    """A line when a stage ends, and now and then one in between."""
    last = time.monotonic()

    def changed() -> None:
        nonlocal last
        if time.monotonic() - last >= LINES_EVERY:
            last = time.monotonic()
            print(board.line(), file=sys.stderr, flush=True)

    def ended(stage: str) -> None:
        print(f"{stage}: {board.said[stage]}", file=sys.stderr, flush=True)

    board.changed, board.ended = changed, ended


def _silence_others() -> None:
    from transformers.utils import logging

    silence: Any = logging  # its functions have no types
    silence.disable_progress_bar()
    silence.set_verbosity_error()


def _chosen() -> Progress | None:
    """What --quiet or --progress json ask for; None: neither was given."""
    context = click.get_current_context(silent=True)
    choice = None if context is None else context.meta.get(CHOICE)
    if choice is None:
        return None
    return silent if choice == "none" else _json_lines


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A bar for what is at work, with its time left; gone when it is done."""
    _silence_others()
    if (chosen := _chosen()) is not None:
        yield chosen
        return
    shown = output(stderr=True)
    if not shown.is_terminal:
        yield _lines
        return
    cut = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    whole = Column(no_wrap=True)
    columns = (
        TextColumn("{task.description}", table_column=cut),
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=whole),
        TimeElapsedColumn(table_column=whole),
        TextColumn("left", table_column=whole),
        TimeRemainingColumn(table_column=whole),
    )
    with Bars(*columns, console=shown, expand=True) as bars:

        @contextmanager
        def task(description: str, total: int) -> Iterator[Advance]:
            number = bars.add_task(escape(visible(description)), total=total)
            try:
                yield lambda units: bars.advance(number, units)
            finally:
                bars.update(number, visible=False)

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
