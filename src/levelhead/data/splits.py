"""Deterministic halving of names into validation and test. Knows nothing of what they name."""

from __future__ import annotations

import hashlib
from collections import Counter
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


def halve_within(
    groups: Mapping[Key, frozenset[Hashable]], fixed: Mapping[Key, Split] | None = None
) -> dict[Key, Split]:
    """Assign every key to a split, so that each group has about as many keys in both.

    A key that is in several groups goes to one split in all of them. Keys of one group only are
    divided equally within it, to one key; of several, as near as going through them once comes.
    Keys in most groups go first, then in the order of a hash of their text, each to the split that
    has fewer of its groups' keys so far (validation first).

    Args:
        groups: by key, the names of the groups that it is in.
        fixed: keys whose split is given; the others make up for them.
    """
    assigned: dict[Key, Split] = dict(fixed or {})
    ahead: Counter[Hashable] = Counter()  # by group: keys in validation less keys in test

    def order(key: Key) -> tuple[bool, int, str]:
        return key not in assigned, -len(groups[key]), digest(str(key))

    for key in sorted(groups, key=order):
        balance = sum(ahead[group] for group in groups[key])
        split = assigned.setdefault(key, "validation" if balance <= 0 else "test")
        for group in groups[key]:
            ahead[group] += 1 if split == "validation" else -1
    return assigned
