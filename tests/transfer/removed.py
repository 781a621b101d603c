"""Heads to remove from tiny models of 3 layers of 6 heads (grouped: 2 key/value heads); texts."""

from __future__ import annotations

import torch
from torch import Tensor

HEADS = {0: range(6), 1: [5], 2: [1, 2, 3, 5]}
"""A whole layer (the one whose cache masks are built from), and groups of unequal size."""
OTHER = {0: [1], 1: [0, 3], 2: range(6)}


def sequences(seed: int = 5) -> dict[str, Tensor]:
    """Two sequences of 8 and 5 tokens, padded on the left."""
    ids = torch.randint(4, 200, (2, 8), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    ids[1, :3] = mask[1, :3] = 0
    return {"input_ids": ids, "attention_mask": mask}
