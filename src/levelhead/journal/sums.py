"""Checksums of a run folder's files: what is not as levelhead wrote it is found, and never used.

RUN/work/sha256/NAME.txt holds the SHA-256 of RUN/NAME, and that of the content before it until the
next write, so that a crash between the two writes finds either content right. A file without such
an entry (of an older levelhead, or one that a user put there) is not compared. Against accidents,
not against forgers. It does not know what files mean.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from levelhead.errors import RunFolderError
from levelhead.journal.lock import LOCK

FOLDER, SUMS = "work", "sha256"
_DEEPEST = 3
"""Folders between a run folder and its files, at most."""


def root_of(path: Path) -> Path | None:
    """The run folder, in work or worked in before, that a file belongs to."""
    above = list(path.parents)[:_DEEPEST]
    found = next((folder for folder in above if (folder / FOLDER / LOCK).exists()), None)
    return None if found is None or (found / FOLDER) in above else found


def record(path: Path, content: bytes) -> None:
    """Say what a file is about to hold; to be called before it is renamed into place.

    Raises:
        OSError: it cannot be written.
    """
    root = root_of(path)
    if root is None:
        return
    entry = _entry(root, path)
    known = _known(entry)
    before = [found] if (found := _digest(path)) in known else []
    _write(entry, [hashlib.sha256(content).hexdigest(), *before])


def record_files(paths: Iterable[Path]) -> None:
    """Say that these files, which another library wrote, are as they should be.

    Raises:
        OSError: one cannot be read, or the entry cannot be written.
    """
    for path in paths:
        if (root := root_of(path)) is not None:
            _write(_entry(root, path), [str(_digest(path))])


def has_entry(path: Path) -> bool:
    """Whether it is known what a file should hold."""
    root = root_of(path)
    return root is not None and _entry(root, path).exists()


def is_whole(path: Path) -> bool:
    """Whether a file is there and, as far as is known, what was written."""
    if not path.is_file():
        return False
    root = root_of(path)
    if root is None or not (entry := _entry(root, path)).exists():
        return True
    return _digest(path) in _known(entry)


def verify(path: Path) -> None:
    """Raise RunFolderError for a file that is not what was written; a missing one is not judged."""
    if path.is_file() and not is_whole(path):
        root = root_of(path)
        assert root is not None  # noqa: S101 - only such a file can fail
        raise RunFolderError(
            f"{path} is not what levelhead wrote (its checksum differs): damaged, or changed by "
            "hand. Run the command that makes it again; if it was changed on purpose, delete "
            f"{_entry(root, path)}"
        )


def _entry(root: Path, path: Path) -> Path:
    return root / FOLDER / SUMS / f"{path.relative_to(root).as_posix()}.txt"


def _known(entry: Path) -> list[str]:
    try:
        return entry.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _write(entry: Path, digests: list[str]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = entry.with_name(f".{entry.name}.{os.getpid():08d}")
    try:
        with temporary.open("w", encoding="ascii") as file:
            file.write("".join(f"{digest}\n" for digest in digests))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(entry)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
