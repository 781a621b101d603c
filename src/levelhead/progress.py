"""How long work reports its progress: a function that opens a task and yields `advance(units)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from levelhead.batching import Advance

Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""progress("sampling", 500) -> context manager giving `advance`, to be called with units done."""


@contextmanager
def silent(description: str, total: int) -> Iterator[Advance]:
    """Report nothing."""
    yield lambda units: None


Stages = Callable[[str], AbstractContextManager[None]]
"""stages("score") -> context manager around that stage of a run."""


@contextmanager
def unseen(stage: str) -> Iterator[None]:
    """Let nobody know of a stage."""
    yield
