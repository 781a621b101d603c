"""One command at a time writes to a run folder: a lock that the kernel lets go of at any death.

`flock` on RUN/work/lock. It belongs to the open file, so nothing is left behind by `kill -9` or a
power cut. On platforms without fcntl (Windows) there is no lock: two processes on one run folder
are then the user's to avoid. On network file systems it holds as far as their flock does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from levelhead.errors import RunFolderError
from levelhead.journal.store import disk_errors

if sys.platform != "win32":
    import fcntl

LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of RUN/work; the file says who does.

    Raises:
        RunFolderError: another process works there, or the folder cannot be written.
    """
    path = folder / LOCK
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _taken(descriptor, exclusive=True):
            pid = _pid(descriptor)
            raise RunFolderError(
                f"another process (pid {pid}) is working in {folder.parent}; wait for it "
                f"(levelhead status {folder.parent}), or stop it: kill {pid}"
            )
        with disk_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(folder: Path) -> int | None:
    """The process that holds the lock of RUN/work; None: nobody does, or there are no locks."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _taken(descriptor, exclusive=False) else _pid(descriptor)
    finally:
        os.close(descriptor)


def _pid(descriptor: int) -> int:
    """The holder's, as it wrote it; 0 while it has not."""
    text = os.pread(descriptor, 40, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else 0


def _taken(descriptor: int, *, exclusive: bool) -> bool:
    """Whether the lock could be had (and is now held)."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
