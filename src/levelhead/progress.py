"""How long work reports its progress: a function that opens a task and yields `advance(units)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from levelhead.batching import Advance
from levelhead.journal import watch

Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""progress("sampling", 500) -> context manager giving `advance`, to be called with units done."""


@contextmanager
def silent(description: str, total: int) -> Iterator[Advance]:
    """Report nothing."""
    yield lambda units: None


def watched(progress: Progress) -> Progress:
    """The same, and `levelhead status` sees it too."""

    @contextmanager
    def task(description: str, total: int) -> Iterator[Advance]:
        seen = watch.task_begins(description, total)
        try:
            with progress(description, total) as advance:

                def both(units: int) -> None:
                    advance(units)
                    watch.task_advances(seen, units)

                yield both
        finally:
            watch.task_ends(seen)

    return task
