"""How far a run is: the state of its five stages, and one time left for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from levelhead.batching import Advance
from levelhead.console.expected import Expected, Step
from levelhead.journal import watch
from levelhead.journal.status import STAGES
from levelhead.reporting.escape import visible

NAME_WIDTH = max(map(len, STAGES)) + 1
LONG = ("score", "evaluate")
"""Stages that take long: without a task nothing was done, since it had been done before."""
PACE_AFTER = 2.0
"""Seconds of work after which the pace of a task is believed."""


@dataclass(slots=True)
class _Task:
    title: str
    total: int
    step: Step | None
    begun: float
    fresh: float
    """Since when nothing was reused: what an earlier process did tells no pace."""
    done: int = 0
    reused: int = 0

    @property
    def open(self) -> float:
        """The share that is not done, 0 to 1."""
        return max(0.0, 1 - self.done / self.total) if self.total else 0.0

    def worked(self, now: float) -> tuple[float, float]:
        """(seconds that were worked here, share of the task that they did)."""
        return now - self.fresh, (self.done - self.reused) / self.total if self.total else 0.0


@dataclass(slots=True)
class Board:
    """The state that is shown; whoever shows it asks for `lines` or `line`."""

    kept: Sequence[str] = ()
    """Stages that are taken over from another run."""
    changed: Callable[[], None] = lambda: None
    """Called after every step."""
    ended: Callable[[str], None] = lambda stage: None
    """Called when a stage has ended."""
    clock: Callable[[], float] = time.monotonic
    expected: Expected = field(default_factory=Expected)
    said: dict[str, str] = field(default_factory=dict)
    """By stage that was begun: what is to be said of it."""
    stage_at_work: str | None = None
    begun: float | None = None
    _task: _Task | None = None
    _tasks: int = 0
    _units: float = 0.0
    _seconds: float = 0.0
    """Of expected steps that are done: what they cost, and how long that took."""

    def expect(self, steps: Sequence[Step]) -> None:
        """What is to come, before it begins."""
        self.expected = Expected([step for step in steps if step.stage not in self.kept])

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage of the run, around all its tasks."""
        start, tasks = self.clock(), self._tasks
        self.begun = start if self.begun is None else self.begun
        self.stage_at_work, self.said[name] = name, "begins"
        self.changed()
        try:
            yield
        except BaseException:
            self.said[name] = f"stopped after {duration(self.clock() - start)}"
            self.ended(name)
            raise
        else:
            before = name in LONG and self._tasks == tasks
            self.said[name] = (
                "done before" if before else f"done in {duration(self.clock() - start)}"
            )
            self.expected.stage_ends(name)
            self.stage_at_work = None
            self.ended(name)
        finally:
            self._task = None

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """A task, as `levelhead.progress` has it."""
        stage = self.stage_at_work or ""
        outer, now = self._task, self.clock()
        step = self.expected.begins(stage, title)
        task = self._task = _Task(visible(title), total, step, now, now)
        self.begun = now if self.begun is None else self.begun
        self._tasks += 1
        self._say(stage, task)

        def advance(units: int) -> None:
            task.done += units
            if watch.is_reusing():
                task.reused, task.fresh = task.done, self.clock()
            self._say(stage, task)

        try:
            yield advance
        finally:
            seconds, share = task.worked(self.clock())
            if step is not None and share > 0:
                self._units += step.cost * min(share, 1)
                self._seconds += seconds
            self._task = outer

    def _say(self, stage: str, task: _Task) -> None:
        if stage:
            self.said[stage] = f"{task.done:,} of {task.total:,}, {task.title}"
        self.changed()

    def seconds_left(self) -> float | None:
        """Of the whole run; None: nothing tells it yet."""
        units, seconds, own = self._units, self._seconds, 0.0
        if (task := self._task) is not None:
            worked, share = task.worked(self.clock())
            paced = share > 0 and worked >= PACE_AFTER
            if task.step is not None and paced:
                units, seconds = units + task.step.cost * share, seconds + worked
            if paced:
                own = worked / share * task.open
            elif task.step is not None and units > 0:
                own = seconds / units * task.step.cost * task.open
        if self.expected.cost and not units > 0:
            return None
        if not self.expected.cost and task is None:
            return None
        return own + (seconds / units * self.expected.cost if self.expected.cost else 0.0)

    def time_said(self) -> str:
        """The time left in words, or how long it took."""
        so_far = "" if self.begun is None else duration(self.clock() - self.begun)
        if len(self.said) and all(self.said.get(n, "").startswith("done") for n in self._shown):
            return f"took {so_far}"
        left = self.seconds_left()
        if left is None:
            return f"{so_far} so far" if so_far else ""
        about = "less than a minute" if left < 60 else f"about {duration(60 * round(left / 60))}"
        return f"{about} left, {so_far} so far"

    @property
    def _shown(self) -> list[str]:
        return [name for name in STAGES if name not in self.kept]

    def lines(self) -> list[str]:
        """A line for each stage, and the time."""
        told = dict.fromkeys(self.kept, "kept") | self.said
        stages = [f"{name:<{NAME_WIDTH}} {told.get(name, '')}".rstrip() for name in STAGES]
        return [*stages, self.time_said()]

    def line(self) -> str:
        """All of it in one line, for a log."""
        stage = self.stage_at_work
        now = f"{stage}: {self.said[stage]}" if stage else ""
        return "; ".join(part for part in (now, self.time_said()) if part)


def duration(seconds: float) -> str:
    """A time for people: 8 s, 3 min 20 s, 41 min, 2 h 5 min."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes >= 10 or (minutes and not rest):
        return f"{minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
