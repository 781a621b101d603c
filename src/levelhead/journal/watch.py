"""What people and machines may watch while a command works in a run folder.

RUN/work/status.json: what is being done, as of the last half second. RUN/work/log.jsonl: what
happened, a JSON object a line (`time`, `level`, `event`, `command`, `pid` and fields of the event),
the last megabytes of it. Neither is needed to go on with a run, so a disk that cannot take them
ends nothing. `status.json` is what `levelhead status` reads, together with the lock.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from levelhead.errors import UnreliableScoresError

STATUS, LOG, OLDER_LOG = "status.json", "log.jsonl", "log.older.jsonl"
WRITE_EVERY = 0.5
"""Seconds between two writes of status.json."""
LOG_BYTES = 2_000_000
"""Size at which log.jsonl becomes log.older.jsonl, which is overwritten."""
Json = dict[str, Any]
Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""As `levelhead.progress` has it, which is made of what this is a part of."""


@dataclass
class Task:
    """What one progress bar shows."""

    title: str
    total: int
    done: int = 0
    reused: int = 0
    begun: float = field(default_factory=time.monotonic)
    fresh: float = field(default_factory=time.monotonic)
    """Since when nothing was reused: only what is computed tells how long the rest takes."""

    def to_json(self) -> Json:
        """For status.json: items done and left, and seconds left at the pace so far."""
        fresh, spent = self.done - self.reused, time.monotonic() - self.fresh
        left = max(0, self.total - self.done)
        return {
            "title": self.title,
            "done": self.done,
            "total": self.total,
            "seconds": round(time.monotonic() - self.begun, 1),
            "seconds_left": round(spent / fresh * left, 1) if fresh > 0 else None,
        }


@dataclass
class Watcher:
    """Writes what one command does."""

    folder: Path
    status: Json
    tasks: list[Task] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    reusing: bool = False
    written: float = 0.0

    def write(self, *, now: bool = False) -> None:
        """Bring status.json up to date, now and then."""
        if not now and time.monotonic() - self.written < WRITE_EVERY:
            return
        self.written = time.monotonic()
        data = self.status | {
            "updated": _time(),
            "task": self.tasks[-1].to_json() if self.tasks else None,
        }
        temporary = self.folder / f".{STATUS}.{os.getpid()}"
        with suppress(OSError):
            temporary.write_text(json.dumps(data), encoding="utf-8")
            temporary.replace(self.folder / STATUS)

    def log(self, event: str, level: str, fields: Json) -> None:
        """Add a line to log.jsonl."""
        line = {"time": _time(), "level": level, "event": event, "command": self.status["command"]}
        line |= {"pid": os.getpid(), "stage": self.stages[-1] if self.stages else None} | fields
        path = self.folder / LOG
        with suppress(OSError):
            if path.exists() and path.stat().st_size > LOG_BYTES:
                path.replace(self.folder / OLDER_LOG)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, default=str) + "\n")

    @property
    def stage(self) -> Json | None:
        """What status.json says of the stage at work."""
        return self.status["stages"].get(self.stages[-1]) if self.stages else None


_current: ContextVar[Watcher | None] = ContextVar("levelhead_watcher", default=None)


@contextmanager
def watching(folder: Path, command: str) -> Iterator[None]:
    """Let a command's work be watched; an error or interruption is written down as it passes."""
    held = read_json(folder / STATUS)
    status: Json = {
        "command": command,
        "pid": os.getpid(),
        "started": _time(),
        "state": "running",
        "stages": held.get("stages", {}),
        "reliability": held.get("reliability", {}),
        "last_error": None,
    }
    watcher = Watcher(folder, status)
    token = _current.set(watcher)
    watcher.log("begins", "info", {})
    watcher.write(now=True)
    try:
        yield
        status["state"] = "done"
        watcher.log("done", "info", {})
    except BaseException as error:
        stopped = not isinstance(error, Exception)
        failed = "no result" if isinstance(error, UnreliableScoresError) else "failed"
        status["state"] = "interrupted" if stopped else failed
        found = {"type": type(error).__name__, "message": str(error)[:2000]}
        if not stopped:
            status["last_error"] = found | {"time": _time()}
        watcher.log(status["state"], "warning" if stopped else "error", found)
        raise
    finally:
        watcher.write(now=True)
        _current.reset(token)


def event(name: str, *, level: str = "info", message: str = "", **fields: Any) -> None:
    """Write something that happened to the log, where a command works in a run folder.

    Args:
        message: for people, who read it on standard error.
    """
    if message:
        logging.getLogger("levelhead").warning(message)
        fields["message"] = message
    if (watcher := _current.get()) is not None:
        watcher.log(name, level, fields)


def reliability(axis: str, value: float | None, samples: int) -> None:
    """The reliability that an axis' ranking has so far."""
    if (watcher := _current.get()) is not None:
        watcher.status["reliability"][axis] = {"reliability": value, "samples": samples}
        watcher.log("reliability", "info", {"axis": axis, "value": value, "samples": samples})
        watcher.write()


def stage_begins(name: str) -> None:
    """A stage whose units are counted begins."""
    if (watcher := _current.get()) is not None:
        watcher.stages.append(name)
        watcher.status["stages"][name] = {"state": "running", "done": 0, "reused": 0, "left": 0}
        watcher.log("stage begins", "info", {})
        watcher.write(now=True)


def stage_ends(name: str) -> None:
    """Its files are written."""
    if (watcher := _current.get()) is not None and (stage := watcher.stage) is not None:
        stage |= {"state": "done", "left": 0}
        watcher.log("stage done", "info", {k: stage[k] for k in ("done", "reused")})
        watcher.stages.remove(name)
        watcher.write(now=True)


def planned(units: int) -> None:
    """So many units have become known that are to be done."""
    if (watcher := _current.get()) is not None and (stage := watcher.stage) is not None:
        stage["left"] = max(0, stage["left"] + units)


def unit(*, reused: bool) -> None:
    """A unit is done, or was done before."""
    if (watcher := _current.get()) is not None and (stage := watcher.stage) is not None:
        stage["done"] += 1
        stage["reused"] += reused
        stage["left"] = max(0, stage["left"] - 1)
        watcher.reusing = reused
        watcher.write()


def unit_of_sets(*, reused: bool) -> None:
    """A set of heads, or what all sets share, is done, or was done by an earlier command."""
    if (watcher := _current.get()) is not None:
        found = watcher.status.setdefault("sets", {"done": 0, "reused": 0})
        found["done"] += 1
        found["reused"] += reused
        watcher.write()


def task_begins(title: str, total: int) -> Task | None:
    """A progress bar begins; None where nobody watches."""
    if (watcher := _current.get()) is None:
        return None
    task = Task(title, total)
    watcher.tasks.append(task)
    watcher.reusing = False
    watcher.write()
    return task


def task_advances(task: Task | None, units: int) -> None:
    """Items of a progress bar are done."""
    if task is None or (watcher := _current.get()) is None:
        return
    task.done += units
    if watcher.reusing:
        task.reused, task.fresh = task.done, time.monotonic()
    watcher.write()


def is_reusing() -> bool:
    """Whether what is being counted was done by an earlier process."""
    return (watcher := _current.get()) is not None and watcher.reusing


def task_ends(task: Task | None) -> None:
    """A progress bar is full, or given up."""
    if task is not None and (watcher := _current.get()) is not None and task in watcher.tasks:
        watcher.tasks.remove(task)
        spent = round(time.monotonic() - task.begun, 3)
        fields = {"title": task.title, "items": task.done, "seconds": spent}
        watcher.log("task", "info", fields)


def watched(progress: Progress) -> Progress:
    """The same progress, and `levelhead status` sees it too."""

    @contextmanager
    def task(description: str, total: int) -> Iterator[Advance]:
        seen = task_begins(description, total)
        try:
            with progress(description, total) as advance:

                def both(units: int) -> None:
                    advance(units)
                    task_advances(seen, units)

                yield both
        finally:
            task_ends(seen)

    return task


def read_json(path: Path) -> Json:
    """What status.json says; empty where it is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
