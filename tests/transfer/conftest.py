"""Pairs of one function: a whole model with heads gated, and the same with them removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from removed import HEADS, sequences
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
    return sequences()


@pytest.fixture
def pruned() -> Callable[..., PreTrainedModel]:
    """A tiny model of a family without HEADS, or others."""

    def make(family: str, heads: dict[int, object] = HEADS) -> PreTrainedModel:
        model = tiny_model(family)
        prune_heads(model, heads)
        return model

    return make
