"""Runs on tiny models, and a progress that stops them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.pipeline.conftest import inputs, options
from tests.torture.harness import StoppedError

from levelhead.journal import store

__all__ = ["inputs", "options"]


@pytest.fixture(autouse=True)
def _every_row_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COMMIT_EVERY", 0.0)


@pytest.fixture
def stops() -> Callable[[int], Any]:
    """stops(n): a progress that raises at the n-th advance."""

    def after(count: int) -> Any:
        left = [count]

        @contextmanager
        def progress(description: str, total: int) -> Iterator[Any]:
            def advance(units: int) -> None:
                left[0] -= 1
                if left[0] <= 0:
                    raise StoppedError

            yield advance

        return progress

    return after
