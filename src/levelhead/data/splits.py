"""Deterministic halving of names into validation and test. Knows nothing of what they name."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import TypeVar

from levelhead.records import Split

Key = TypeVar("Key", bound=Hashable)


def digest(text: str) -> str:
    """SHA-256 of the text as UTF-8, in hexadecimal; a lone surrogate does not stop it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def halve(sizes: Mapping[Key, int]) -> dict[Key, Split]:
    """Assign every key to a split, so that the sizes of both come out about equal.

    Keys go in the order of a hash of their text, each to the split that is smaller so far
    (validation first). The same keys and sizes always give the same answer, in any order.
    """
    totals: dict[Split, int] = {"validation": 0, "test": 0}
    assigned: dict[Key, Split] = {}
    for key in sorted(sizes, key=lambda key: digest(str(key))):
        split: Split = "validation" if totals["validation"] <= totals["test"] else "test"
        totals[split] += sizes[key]
        assigned[key] = split
    return assigned
