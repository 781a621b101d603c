"""One thread for every test, unless OMP_NUM_THREADS says otherwise: `make test-machines` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# Before torch is imported, and for the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """What a test does to the number of threads ends with it."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture
def clear_draws() -> Iterator[None]:
    """`tests.rounding.clear_draws` around a test."""
    from tests.rounding import clear_draws

    with clear_draws():
        yield
