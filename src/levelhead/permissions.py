"""What only the person at the keyboard may allow, never a file: reading weights from pickles.

    with levelhead.permissions.pickles_allowed():
        levelhead.score("folder-with-pytorch_model.bin", out="runs/x")

The command line's `--allow-pickle` does just that. It is no option of a run: config.json of a run
folder that somebody sent could else grant itself the permission. It holds within the `with` block
of this thread, and knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_pickles: ContextVar[bool] = ContextVar("levelhead_pickles", default=False)


@contextmanager
def pickles_allowed() -> Iterator[None]:
    """Within it, weights of models and classifiers that exist only as pickles are read.

    They go through torch's restricted unpickler (`weights_only=True`), which builds tensors and
    plain containers; holes were found in it before, so allow it only for files you trust.
    """
    token = _pickles.set(True)
    try:
        yield
    finally:
        _pickles.reset(token)


def may_unpickle() -> bool:
    """Whether this code runs within `pickles_allowed`."""
    return _pickles.get()
