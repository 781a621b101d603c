"""The journal of a stage: what was computed is read back when the same work is asked for again.

A stage is a deterministic program whose dear steps go through `batching.map_batches` and `step`.
`with stage(...)` makes its journal ambient: each finished batch is kept under its place in the
program (scope, number of the call, first item). When a killed stage runs again it makes the same
calls in the same order, and a batch is read instead of computed where all of this agrees:

* the stage's fingerprint: model, options, prompts, scorer, text, threads, processor, versions and
  code;
* the digest of the batch's items, and of what the call says it works on besides (`of`);
* the chain: a digest of the results of all calls before it in its scope. So what follows a batch
  that came out otherwise is computed anew.

Batches are made of the items that they were made of at first (the plan), also where one was
halved because memory was full. Without a stage (plain use from Python) nothing is kept.

`with scope(...)`: work that may be asked for at another place of the program next time (a unit of
an experiment whose neighbours are finished) has a name of its own and counts its own calls.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from levelhead.journal import watch
from levelhead.journal.codec import CodecError, decode, encode
from levelhead.journal.digests import digest, digest_items
from levelhead.journal.store import Store

T = TypeVar("T")
FOLDER = "work"
"""Of a run folder: what is needed while work is not finished, and to watch it."""
CHECKS_DIGESTS = True
"""Whether what was kept must be of the same inputs; a control of the tests switches it off."""


@dataclass(slots=True)
class _Scope:
    name: str
    chain: str
    calls: int = 0


@dataclass
class Journal:
    """What is kept of one stage."""

    store: Store
    offset: float
    """Seconds that earlier processes worked on this stage."""
    scopes: list[_Scope] = field(default_factory=lambda: [_Scope("", "")])
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Time of work on this stage so far, in all processes."""
        return self.offset + time.monotonic() - self.begun


_current: ContextVar[Journal | None] = ContextVar("levelhead_journal", default=None)


@contextmanager
def stage(run: Path, name: str, fingerprint: Mapping[str, Any]) -> Iterator[None]:
    """Keep what is computed inside, and read what was kept; dropped when the block is left well.

    Args:
        run: the run folder.
        name: of the stage, and of its file in RUN/work.
        fingerprint: everything that results depend on, as JSON; rows of another one are dropped.

    Raises:
        RunFolderError: the journal cannot be written.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / f"{name}.sqlite")
    if store.set_aside is not None:
        message = (
            f"{store.path} was damaged; it is now {store.set_aside.name}, and the stage starts over"
        )
        watch.event("damaged", level="warning", message=message)
    differing = store.start(fingerprint)
    if differing is not None:
        message = (
            f"unfinished work of {name} in {run} is not used: other {', '.join(differing)} than now"
        )
        watch.event("stale", level="warning", differs_in=differing, message=message)
    token = _current.set(Journal(store, store.seconds))
    watch.stage_begins(name)
    try:
        yield
    except BaseException:
        store.close()
        raise
    else:
        store.delete()
        watch.stage_ends(name)
    finally:
        _current.reset(token)


@contextmanager
def scope(*name: object) -> Iterator[None]:
    """Work of a name of its own, which must say everything that tells it from other such work."""
    journal = _current.get()
    if journal is None:
        yield
        return
    label = digest(*name)
    journal.scopes.append(_Scope(label, label))
    try:
        yield
    finally:
        journal.scopes.pop()


def step(title: str, make: Callable[[], T], *, of: Any = None, chained: bool = True) -> T:
    """The value of `make`, kept: for work that is no loop, and for what is never the same again.

    Args:
        chained: whether what follows is worthless if this comes out otherwise.
    """
    call = begin(title, of)
    kept = call.read(0, ["step"])
    if kept is not None:
        if chained:
            call.end()
        found: T = kept[0]
        return found
    value = make()
    call.write(0, ["step"], 1, [value])
    if chained:
        call.end()
    return value


def now(title: str = "") -> float:
    """Seconds of work on this stage, earlier processes' included; kept, so as to decide alike.

    Without a journal: of a clock whose beginning means nothing.
    """
    journal = _current.get()
    clock = time.monotonic if journal is None else lambda: journal.seconds
    return step(f"clock: {title}", clock, chained=False)


class Call:
    """One call of `map_batches`: its batches, in order."""

    def size(self, start: int, size: int) -> int:
        """How many items the batch at `start` is to have at most."""
        return size

    def read(self, start: int, items: Sequence[Any]) -> list[Any] | None:
        """Results of the batch that begins with the first of these items; None: to be computed."""
        return None

    def write(self, start: int, items: Sequence[Any], size: int, results: Sequence[Any]) -> None:
        """Keep a batch."""

    def end(self) -> None:
        """All batches are there."""


class _Recorded(Call):
    def __init__(self, journal: Journal, title: str, of: Any) -> None:
        self.journal, self.scope = journal, journal.scopes[-1]
        self.number = self.scope.calls
        self.scope.calls += 1
        self.before = digest(self.scope.chain, title, of)
        self.after = hashlib.sha256(self.before.encode())

    def _digest(self, items: Sequence[Any]) -> str:
        return digest(self.before, digest_items(items))

    def size(self, start: int, size: int) -> int:
        here = self.journal.store.read(self.scope.name, self.number, start)
        if here is not None and here.payload is None and 0 < here.count <= here.size:
            return here.count  # damaged: the same items once more
        before = self.journal.store.last_size(self.scope.name, self.number, start)
        return size if before is None else max(1, min(size, before))

    def read(self, start: int, items: Sequence[Any]) -> list[Any] | None:
        row = self.journal.store.read(self.scope.name, self.number, start)
        if row is None or not 0 < row.count <= len(items):
            return None
        if row.payload is None:
            watch.event("damaged", level="warning", batch=self.number, start=start)
            return None
        if CHECKS_DIGESTS and row.digest != self._digest(items[: row.count]):
            return None
        try:
            results: list[Any] = decode(row.payload)
        except CodecError:
            return None
        if len(results) != row.count:
            return None
        self.after.update(row.sha256.encode())
        watch.unit(reused=True)
        return results

    def write(self, start: int, items: Sequence[Any], size: int, results: Sequence[Any]) -> None:
        if all(result is None for result in results):
            return  # of no use, and what the batch did besides would be lost
        try:
            payload = encode(list(results))
        except CodecError as error:  # an estimator's own: it is computed again each time
            watch.event("not kept", level="warning", reason=str(error))
            return
        sha256 = self.journal.store.write(
            self.scope.name, self.number, start, len(items), size, self._digest(items),
            self.journal.seconds, payload,
        )  # fmt: skip
        self.after.update(sha256.encode())
        watch.unit(reused=False)

    def end(self) -> None:
        self.scope.chain = self.after.hexdigest()


def begin(title: str, of: Any = None) -> Call:
    """The next call of the current scope; one that keeps nothing where there is no journal."""
    journal = _current.get()
    return Call() if journal is None else _Recorded(journal, title, of)
