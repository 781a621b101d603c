"""One thread for every test, unless OMP_NUM_THREADS says otherwise: `make test-machines` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

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
def clear_draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests that compare sampled tokens of two computations: every draw must be a clear one.

    Where the noise puts two tokens closer than rounding, either may be drawn, and a test that
    compares them would prove nothing about another machine. It fails then, and wants another seed.
    """
    from tests.rounding import SAME, margin

    from levelhead import sampling

    margins: list[float] = []
    draw = sampling._GumbelNoise.__call__

    def watched(self: Any, input_ids: Any, scores: Any) -> Any:
        noisy = draw(self, input_ids, scores)
        margins.append(margin(noisy))
        return noisy

    monkeypatch.setattr(sampling._GumbelNoise, "__call__", watched)
    yield
    assert margins, "nothing was drawn"
    assert min(margins) > SAME, "a draw that rounding can decide; take another seed"
