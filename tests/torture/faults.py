"""Damage to files of a run folder, one at a time, and a disk with no room.

Every command is tried on a folder in which one file is cut short or has one bit flipped. Good ends:
the command makes the same final files as without the damage (it noticed, or the file does not
matter to it), or it ends with an error of levelhead's (a message, no traceback). Bad: other results
without a word, or any other exception.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tests.torture.harness import Command, Torture, digests, start, wait

from levelhead.errors import LevelheadError

KINDS = ("cut", "bit flip", "empty")


def damage(path: Path, kind: str, rng: np.random.Generator) -> None:
    """Cut a file short, flip one of its bits, or empty it."""
    content = bytearray(path.read_bytes())
    if kind == "empty" or not content:
        content = bytearray()
    elif kind == "cut":
        content = content[: int(rng.integers(0, len(content)))]
    else:
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(content))


def told(command: Command, said: Path) -> Command:
    """A command that leaves what levelhead said of an error in a file."""
    said.unlink(missing_ok=True)

    def wrapped(run: Path) -> None:
        try:
            command(run)
        except LevelheadError as error:
            said.write_text(str(error))

    return wrapped


def attempt_damage(
    torture: Torture, before: Path, name: str, file: str, kind: str, rng: np.random.Generator
) -> str:
    """What came of one damaged file: "same results", "error", or what is wrong."""
    run = torture.folder / "damaged" / "run"
    shutil.rmtree(run.parent, ignore_errors=True)
    run.parent.mkdir()
    shutil.copytree(before, run)
    damage(run / file, kind, rng)
    changed = (run / file).read_bytes()
    said = torture.folder / "error.txt"
    code = wait(start(told(torture.commands[name], said), run, torture.log))
    if code != 0:
        return f"exit {code}: {torture.log.read_text()[-1500:]}"
    if said.exists():
        return "error"
    found, wanted = digests(run), torture.wanted[name]
    wrong = [f for f in wanted if found.get(f) != wanted[f]]
    if wrong and not (wrong == [file] and (run / file).read_bytes() == changed):
        return f"other results: {wrong}"
    return "same results"


def files_of(run: Path) -> list[str]:
    """Every file of a run folder, work/ included."""
    return sorted(
        path.relative_to(run).as_posix()
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("lock", "log.jsonl", "status.json")
    )


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory of so many bytes; OSError where it cannot be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Write until no more than `leave` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free > leave:
        with (folder / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - leave)
