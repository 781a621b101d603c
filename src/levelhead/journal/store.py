"""The file of a stage's journal: a SQLite database with a row per finished batch.

WAL mode and synchronous=FULL: a row is there whole or not at all, whenever the process or the
machine dies, and other processes may read meanwhile. Every row has the SHA-256 of what it holds; a
row that does not match is as if it were not there. A file that is no database is set aside.
Knows nothing of what rows mean.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from levelhead.errors import RunFolderError

COMMIT_EVERY = 0.5
"""Seconds: rows are put on the disk as they come, but not more often. What a crash costs on top of
the batch that was being worked on."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batch (
    scope TEXT NOT NULL, call INTEGER NOT NULL, start INTEGER NOT NULL, count INTEGER NOT NULL,
    size INTEGER NOT NULL, digest TEXT NOT NULL, seconds REAL NOT NULL,
    payload BLOB NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (scope, call, start));
"""
_LITTLE = 1_000_000
_SIDE_FILES = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Row:
    """A finished batch."""

    count: int
    """Items in the batch."""
    size: int
    """Items that batches had at most, when it was made."""
    digest: str
    """Of the items, and of everything that came before."""
    payload: bytes | None
    """None: damaged."""
    sha256: str


class Store:
    """The rows of one stage."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            RunFolderError: a full disk, or a folder that cannot be written.
        """
        self.path = path
        self.set_aside: Path | None = None
        """Where a file went that was no database."""
        self._committed = time.monotonic()
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and _is_of_the_disk(error):
                raise unwritable(path, error) from error
            self._rename_aside()
            with disk_errors(path):
                self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        # Work of one call may run in another thread than the one that opened the file.
        found = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            found.execute("PRAGMA trusted_schema=OFF")  # somebody may have sent the folder
            found.execute("PRAGMA journal_mode=WAL")
            found.execute("PRAGMA synchronous=FULL")
            found.executescript(_SCHEMA)
            whole = found.execute("PRAGMA quick_check(1)").fetchone()
            if whole != ("ok",):
                raise sqlite3.DatabaseError(str(whole[0]))
        except BaseException:
            found.close()
            raise
        return found

    def _rename_aside(self) -> None:
        self.set_aside = self.path.with_name(f"{self.path.name}.damaged")
        for end in _SIDE_FILES:
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        self.path.replace(self.set_aside)

    def start(self, fingerprint: Mapping[str, Any]) -> list[str] | None:
        """Keep the rows if they were made under the same fingerprint, else drop them.

        Returns:
            What the rows were made under, where that differs: its names; None: nothing dropped.
        """
        text = json.dumps(fingerprint, sort_keys=True)
        with disk_errors(self.path):
            held = self._db.execute("SELECT value FROM meta WHERE name='fingerprint'").fetchone()
            if held is not None and held[0] == text:
                return None
            count = self._db.execute("SELECT count(*) FROM batch").fetchone()[0]
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM batch")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('fingerprint', ?)", (text,))
            self._db.execute("COMMIT")
        if not count:
            return None
        try:
            old = json.loads(held[0]) if held else {}
        except ValueError:
            old = {}
        return sorted(
            name for name in {*old, *fingerprint} if old.get(name) != fingerprint.get(name)
        )

    def read(self, scope: str, call: int, start: int) -> Row | None:
        """The row of a batch; None: there is none."""
        try:
            found = self._db.execute(
                "SELECT count, size, digest, payload, sha256 FROM batch "
                "WHERE scope=? AND call=? AND start=?",
                (scope, call, start),
            ).fetchone()
        except sqlite3.DatabaseError:
            return None
        if found is None:
            return None
        count, size, digest, payload, sha256 = found
        whole = isinstance(payload, bytes) and sha256 == _sum(digest, payload)
        return Row(count, size, digest, payload if whole else None, sha256)

    def last_size(self, scope: str, call: int, start: int) -> int | None:
        """The size of batches that was in force at the last batch before `start`."""
        try:
            found = self._db.execute(
                "SELECT size FROM batch WHERE scope=? AND call=? AND start<? "
                "ORDER BY start DESC LIMIT 1",
                (scope, call, start),
            ).fetchone()
        except sqlite3.DatabaseError:
            return None
        return None if found is None else int(found[0])

    def write(
        self, scope: str, call: int, start: int, count: int, size: int, digest: str,
        seconds: float, payload: bytes,
    ) -> str:  # fmt: skip
        """Add a batch, or replace it; the SHA-256 that it got.

        Raises:
            RunFolderError: a full disk, or one that fails.
        """
        sha256 = _sum(digest, payload)
        with disk_errors(self.path):
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR REPLACE INTO batch VALUES (?,?,?,?,?,?,?,?,?)",
                (scope, call, start, count, size, digest, seconds, payload, sha256),
            )
            if time.monotonic() - self._committed >= COMMIT_EVERY:
                self.commit()
        return sha256

    def commit(self) -> None:
        """Put on the disk what has been written."""
        if self._db.in_transaction:
            with disk_errors(self.path):
                self._db.execute("COMMIT")
        self._committed = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the work took that is kept, all processes together."""
        try:
            found = self._db.execute("SELECT max(seconds) FROM batch").fetchone()[0]
        except sqlite3.DatabaseError:
            return 0.0
        return float(found or 0.0)

    def close(self) -> None:
        """Commit and close; a disk that is full by now costs what was not committed."""
        try:
            self.commit()
        except RunFolderError:
            self._db.rollback()
        finally:
            self._db.close()

    def delete(self) -> None:
        """The stage is finished: its rows are no longer needed."""
        self._db.close()
        for end in ("", *_SIDE_FILES):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)


def _sum(digest: str, payload: bytes) -> str:
    return hashlib.sha256(digest.encode() + payload).hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or failing disk into RunFolderError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: BaseException) -> RunFolderError:
    """The error for a place that cannot be written: which, why, and what to do."""
    why = str(error)
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "full" in why
    # SQLite says only "disk I/O error" where its own small files find no room.
    if full or ("disk I/O" in why and _free_bytes(path) < _LITTLE):
        return RunFolderError(
            f"no space left on the disk of {path.parent}: all finished work is kept; free some "
            "space and give the same command again, it goes on from there"
        )
    return RunFolderError(
        f"cannot write to {path.parent} ({why}): make it writable, or copy the run to a place that "
        "is, and give the same command again; all finished work is kept"
    )


def _free_bytes(path: Path) -> int:
    there = next(folder for folder in path.absolute().parents if folder.exists())
    return shutil.disk_usage(there).free


def _is_of_the_disk(error: sqlite3.OperationalError) -> bool:
    return any(
        word in str(error) for word in ("full", "readonly", "unable to open", "disk I/O", "locked")
    )
