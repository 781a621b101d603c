"""What every export shares: files that appear whole or not at all, and the check of logits.

It knows no format.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from levelhead.errors import CheckpointError

Logits = Callable[[Tensor, Tensor], Tensor]
"""(input_ids, attention_mask), both [batch, time] -> logits [batch, time, vocabulary]."""
SHAPES = ((1, 7), (3, 12))
"""Batch and length of the inputs that an export is checked on; neither is the traced one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file that was written and checked."""

    path: Path
    num_bytes: int
    """Of the file and what stands beside it (`FILE.data`)."""
    difference: float
    """Largest difference of logits from the torch model's, relative to the largest logit."""


@contextmanager
def new_file(path: Path, overwrite: bool) -> Iterator[Path]:
    """A path of the same name in a scratch folder; what is written there is moved at the end.

    Raises:
        CheckpointError: `path` exists and is not to be overwritten, or is a folder, or the disk
            refuses.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise CheckpointError(f"{path} exists already; choose another file or overwrite it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error
    try:
        yield scratch / path.name
        # The file that is named last: where it is, the others are.
        for written in sorted(scratch.iterdir(), key=lambda file: file.name == path.name):
            written.replace(path.parent / written.name)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def logits_difference(model: PreTrainedModel, other: Logits) -> float:
    """Largest difference of `other`'s logits from the model's, relative to the largest logit.

    On random tokens of other shapes than any export was traced with, one row padded on the left.
    """
    vocabulary = int(model.get_input_embeddings().get_parameter("weight").shape[0])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, time in SHAPES:
        ids = torch.randint(0, vocabulary, (batch, time), generator=generator)
        mask = torch.ones_like(ids)
        if batch > 1:
            mask[-1, : time // 4] = 0
        with torch.no_grad():
            expected = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        seen = mask.bool()  # what stands at padding is nobody's business
        found = other(ids, mask).float()
        scale = expected[seen].abs().max().clamp_min(1e-12)
        apart = float((found[seen] - expected[seen]).abs().max() / scale)
        worst = max(worst, apart if apart == apart else float("inf"))  # NaN is no agreement
    return worst


def check_difference(difference: float, limit: float, what: str) -> None:
    """Raise CheckpointError where an export computes something else than the model."""
    if not difference <= limit:
        raise CheckpointError(
            f"{what} does not compute what the model computes: logits differ by {difference:.1e} "
            f"of the largest, more than {limit:.0e}; nothing was written, please report this"
        )
