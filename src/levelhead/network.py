"""Whether anything may be fetched: `levelhead run ... --offline`, or HF_HUB_OFFLINE=1 of the hub's.

Offline, what is in the caches is used, and what is not there is an error at once, not after a wait.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

VARIABLE = "HF_HUB_OFFLINE"
_READ_IT_WHEN_IMPORTED = ("huggingface_hub.constants", "datasets.config")


def is_offline() -> bool:
    """Whether nothing is to be fetched."""
    return os.environ.get(VARIABLE, "").upper() in ("1", "ON", "YES", "TRUE")


@contextmanager
def offline() -> Iterator[None]:
    """Within it nothing is fetched: not by levelhead, and not by the libraries of the hub."""
    modules: list[Any] = [sys.modules.get(name) for name in _READ_IT_WHEN_IMPORTED]
    read = [(module, getattr(module, VARIABLE)) for module in modules if module is not None]
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    for module, _ in read:
        setattr(module, VARIABLE, True)
    try:
        yield
    finally:
        for module, value in read:
            setattr(module, VARIABLE, value)
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
