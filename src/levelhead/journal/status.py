"""What a run folder's work/ says of a run: done, left, what is being worked on, what went wrong.

It only reads, so it works while another process runs, and on a folder that cannot be written.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from levelhead.journal.lock import holder
from levelhead.journal.sums import FOLDER, SUMS, is_whole
from levelhead.journal.watch import STATUS, read_json

STAGES = {
    "score": "scores.csv",
    "select": "selection.json",
    "prune": "model",
    "evaluate": "evaluation.json",
    "report": "report.html",
}
"""The stages of a run, and the file whose presence says that one is done."""
Json = dict[str, Any]


def read_status(run: Path) -> Json:
    """The state of a run folder, as JSON (docs/reliability.md describes the fields)."""
    work = run / FOLDER
    said, pid = read_json(work / STATUS), holder(work)
    state = said.get("state", "unknown" if pid is None else "running")
    if pid is None and state == "running":
        state = "killed" if _lockable() else "unknown"
    stages = said.get("stages") or {}
    found = {}
    for name in dict.fromkeys((*STAGES, *stages)):
        counted = stages.get(name, {})
        kept = kept_batches(work / f"{name}.sqlite")
        done = name in STAGES and (run / STAGES[name]).exists()
        found[name] = {
            "state": _state(pid is not None and name == _at_work(stages), done, counted, kept),
            "done": counted.get("done", 0),
            "reused": counted.get("reused", 0),
            "left": counted.get("left", 0) if kept is not None else 0,
            "kept": kept or 0,
        }
    task = said.get("task") if pid is not None else None
    return {
        "run": str(run),
        "running": pid is not None,
        "pid": pid,
        "state": state if pid is None else "running",
        "command": said.get("command"),
        "started": said.get("started"),
        "updated": said.get("updated"),
        "stages": found,
        "sets": said.get("sets"),
        "task": task,
        "seconds_left": (task or {}).get("seconds_left"),
        "reliability": said.get("reliability") or {},
        "last_error": said.get("last_error"),
        "damaged": damaged_files(run),
    }


def kept_batches(path: Path) -> int | None:
    """Finished batches of an unfinished stage; None: the stage is not unfinished."""
    if not path.exists():
        return None
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
        try:
            return int(database.execute("SELECT count(*) FROM batch").fetchone()[0])
        finally:
            database.close()
    except sqlite3.Error:
        return 0


def damaged_files(run: Path) -> list[str]:
    """Files of the run folder that are not as levelhead wrote them."""
    folder = run / FOLDER / SUMS
    entries = sorted(path for path in folder.rglob("*.txt") if not path.name.startswith("."))
    names = [entry.relative_to(folder).as_posix().removesuffix(".txt") for entry in entries]
    return [name for name in names if (run / name).exists() and not is_whole(run / name)]


def _at_work(stages: Json) -> str | None:
    return next((name for name, told in stages.items() if told.get("state") == "running"), None)


def _state(at_work: bool, done: bool, counted: Json, kept: int | None) -> str:
    if at_work:
        return "running"
    if kept is not None:
        return "unfinished"
    return "done" if done or counted.get("state") == "done" else "to do"


def _lockable() -> bool:
    return os.name == "posix"
