"""Run work in length-sorted batches, in an order that does not change results.

A batch that does not fit in memory is halved and tried again, down to one item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from levelhead.errors import ModelError

T = TypeVar("T")
R = TypeVar("R")
Advance = Callable[[int], None]
"""Called with the number of units of work just done; drives a progress bar."""


def map_batches(
    items: Sequence[T],
    work: Callable[[list[T]], Sequence[R]],
    *,
    batch_size: int,
    length: Callable[[T], int],
    advance: Advance | None = None,
) -> list[R]:
    """`work` applied to batches of items of similar length; results in the items' order.

    Raises:
        ModelError: a single item does not fit in memory.
    """
    order = sorted(range(len(items)), key=lambda i: (-length(items[i]), i))
    results: dict[int, R] = {}
    start = 0
    while start < len(order):
        chosen = order[start : start + batch_size]
        try:
            done = work([items[i] for i in chosen])
        except (torch.OutOfMemoryError, MemoryError) as error:
            if batch_size == 1:
                raise ModelError(
                    "one text does not fit in memory; use a shorter --new-tokens or a "
                    "smaller --dtype"
                ) from error
            batch_size = max(1, batch_size // 2)
            continue
        results.update(zip(chosen, done, strict=True))
        start += len(chosen)
        if advance:
            advance(len(chosen))
    return [results[i] for i in range(len(items))]
