"""Pairs of one function: a whole model with heads gated, and the same with them removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from removed import HEADS
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from levelhead.models.surgery import prune_heads
from levelhead.testing import tiny_model


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    """Two sequences of 8 and 5 tokens, padded on the left."""
    ids = torch.randint(4, 200, (2, 8), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    ids[1, :3] = mask[1, :3] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def pruned() -> Callable[..., PreTrainedModel]:
    """A tiny model of a family without HEADS, or others."""

    def make(family: str, heads: dict[int, object] = HEADS) -> PreTrainedModel:
        model = tiny_model(family)
        prune_heads(model, heads)
        return model

    return make
