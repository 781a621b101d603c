"""Digests of what results depend on: the inputs of a batch, and the code that works on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
CODE = (
    "batching.py", "sampling.py", "session.py", "evaluation", "experiments", "journal", "metrics",
    "models", "scoring", "stages", "toxicity",
)  # fmt: skip
"""The parts of levelhead that decide what a batch's results are, and how they are kept."""


def digest(*parts: Any) -> str:
    """SHA-256 of values: arrays and tensors by dtype, shape and bytes, the rest by `repr`."""
    found = hashlib.sha256()
    for part in parts:
        found.update(_bytes(part))
        found.update(b"\x1f")
    return found.hexdigest()


def digest_items(items: Iterable[Any]) -> str:
    """SHA-256 of the items of a batch, in order."""
    return digest(*items)


@cache
def code_digest() -> str:
    """Of the source of what computes results: other code, other results, for all that is known."""
    found = hashlib.sha256()
    for name in CODE:
        path = PACKAGE / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            found.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0")
            found.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()[:16]


def _bytes(part: Any) -> bytes:
    if hasattr(part, "detach"):  # a torch tensor
        part = part.detach().cpu().contiguous()
        kind = f"{part.dtype} {tuple(part.shape)} "
        import torch

        return kind.encode() + bytes(part.view(torch.uint8).numpy().tobytes())
    if hasattr(part, "tobytes") and hasattr(part, "dtype"):
        return f"{part.dtype} {part.shape} ".encode() + bytes(part.tobytes())
    return repr(part).encode()
