"""Write a folder all or nothing: what is not finished never stands under its final name.

Everything goes into a hidden folder beside the target (the same disk, so that a rename is all that
is left to do). Knows nothing of what is written.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from levelhead.errors import CheckpointError
from levelhead.models.load_failures import first_line

MARKS = ("levelhead.json", "levelhead_adapter.json")
"""A folder with one of these was written by levelhead, and may be overwritten on request."""
NAMED = 40
"""Characters of a folder's name in that of the temporary one, which must not be too long either."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def new_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `path` if all goes well, and vanishes otherwise.

    Args:
        path: the folder to be; an empty one is no obstacle.
        overwrite: replace `path` where it holds a model already; what was there stays until the
            new folder is complete.

    Raises:
        CheckpointError: something is in the way, the disk is full, or nothing can be written there.
    """
    check_target(path, overwrite)
    with _failure_reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name[:NAMED]}-", dir=path.parent))
        try:
            fresh = scratch / "new"
            fresh.mkdir()
            yield fresh
            _flush(fresh)
            _swap(fresh, path, scratch / "old")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def check_target(path: Path, overwrite: bool = False) -> None:
    """Raise CheckpointError where a new folder at `path` cannot be, or something is in the way."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise CheckpointError(f"{path} cannot be written: the name is too long") from error
    occupied = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if occupied and not overwrite:
        raise CheckpointError(
            f"{path} exists already; choose another folder, or overwrite it (--overwrite)"
        )
    if occupied and not _holds_model(path):
        raise CheckpointError(f"{path} holds something else than a model; it is not overwritten")


def _swap(fresh: Path, path: Path, old: Path) -> None:
    """Put `fresh` at `path`; what was there goes to `old`, or stays if that fails."""
    if path.exists():
        path.rename(old)
    try:
        fresh.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise


def _flush(folder: Path) -> None:
    """Onto the disk before the rename: a crash must not leave a name with half of the content.

    And readable as the folder is; safetensors makes its files private.
    """
    mode = folder.stat().st_mode & 0o666
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            file.chmod(mode)
            with file.open("rb") as opened, suppress(OSError):  # some disks cannot be told to
                os.fsync(opened.fileno())


@contextmanager
def _failure_reported(path: Path) -> Iterator[None]:
    """Turn a full disk, and a place that cannot be written, into CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not _disk_full(error):
            if isinstance(error, SafetensorError):
                raise
            raise CheckpointError(f"{path} cannot be written: {first_line(error)}") from error
        free = f"{_free_bytes(path) / 1e6:,.0f} MB are free"
        raise CheckpointError(
            f"no space left on the disk of {path} ({free}); nothing was kept there. "
            "Free some space, or choose another place"
        ) from error


def _disk_full(error: BaseException) -> bool:
    # safetensors writes the system's error into its message and keeps no number.
    return getattr(error, "errno", None) in _FULL or f"os error {errno.ENOSPC}" in str(error)


def _free_bytes(path: Path) -> int:
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def _holds_model(path: Path) -> bool:
    if any((path / mark).is_file() for mark in MARKS):
        return True
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config
