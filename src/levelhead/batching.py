"""Run work in length-sorted batches; which items share one changes results by rounding alone.

A batch that does not fit in memory is halved and tried again, down to one item. Where a stage keeps
a journal, every finished batch is in it, and is read instead of computed when the stage runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from levelhead import journal
from levelhead.errors import ModelError
from levelhead.journal import watch

T = TypeVar("T")
R = TypeVar("R")
Advance = Callable[[int], None]
"""Called with the number of units of work just done; drives a progress bar."""
_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says where it has no class for it: a RuntimeError of the CPU's allocator."""


def map_batches(
    items: Sequence[T],
    work: Callable[[list[T]], Sequence[R]],
    *,
    batch_size: int,
    length: Callable[[T], int],
    advance: Advance | None = None,
    reused: Advance | None = None,
    of: Any = None,
) -> list[R]:
    """`work` applied to batches of items of similar length; results in the items' order.

    What `work` returns must be all that it does: a batch that was kept is not worked on again.
    (One that returns None for every item is never kept, so that it may have other effects.)

    Args:
        advance: called after every batch with its number of items.
        reused: called instead for a batch that was read, where `work` reports progress itself.
        of: what results depend on besides the items, where those only count it (windows of a text
            by their number); arrays and tensors by content, the rest by `repr`.

    Raises:
        ModelError: a single item does not fit in memory.
    """
    order = sorted(range(len(items)), key=lambda i: (-length(items[i]), i))
    rest = [items[i] for i in order]
    call = journal.begin(f"{work.__module__}.{work.__qualname__}", of)
    watch.planned(-(-len(items) // max(1, batch_size)))
    results: list[R] = []
    start = 0
    while start < len(rest):
        done = call.read(start, rest[start:])
        if done is not None:
            report = reused or advance
        else:
            report = advance
            batch_size = call.size(start, batch_size)
            batch = rest[start : start + batch_size]
            try:
                done = list(work(batch))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise ModelError(
                        "one text does not fit in memory; use a shorter --new-tokens or a "
                        "smaller --dtype"
                    ) from error
                batch_size = max(1, len(batch) // 2)
                watch.event("out of memory", level="warning", batch=len(batch), next=batch_size)
                watch.planned(1)
            if done is None:  # outside of `except`, which holds on to what was allocated
                _free()
                continue
            if len(done) != len(batch):
                raise ValueError(f"{len(done)} results for a batch of {len(batch)}")
            call.write(start, batch, batch_size, done)
        results += done
        start += len(done)
        if report:
            report(len(done))
    call.end()
    found = dict(zip(order, results, strict=True))
    return [found[i] for i in range(len(items))]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a batch did not fit, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _MEMORY)


def _free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
