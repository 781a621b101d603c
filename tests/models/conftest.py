"""Batches and comparisons that every test of levelhead.models uses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from tests.rounding import CLEAR, greedy_choices
from tests.rounding import difference as largest_difference
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from levelhead.testing import tiny_model

Inputs = dict[str, Tensor]


@pytest.fixture(autouse=True, scope="session")
def _no_progress_bars() -> Iterator[None]:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def sequences(seed: int = 5) -> Inputs:
    """Three sequences of 10, 8 and 6 tokens, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 200, (3, 10), generator=generator)
    mask = torch.ones_like(ids)
    for row, pad in enumerate((0, 2, 4)):
        ids[row, :pad] = 0
        mask[row, :pad] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def inputs() -> Inputs:
    """Three sequences of 10, 8 and 6 tokens, padded on the left."""
    return sequences()


@pytest.fixture
def fresh() -> Callable[..., PreTrainedModel]:
    """A tiny model of a family that the test may change."""
    return lambda family, **options: copy.deepcopy(_shared(family, **options))


@cache
def _shared(family: str, **options: int) -> PreTrainedModel:
    return tiny_model(family, **options)


@pytest.fixture
def logits(inputs: Inputs) -> Callable[[PreTrainedModel], Tensor]:
    """Logits at the real positions, [positions, vocabulary]."""

    def run(model: PreTrainedModel) -> Tensor:
        with torch.no_grad():
            return model(**inputs).logits[inputs["attention_mask"].bool()]

    return run


@pytest.fixture
def greedy() -> Callable[[PreTrainedModel], Tensor]:
    """Twelve greedy tokens after each sequence, through the cache (past sliding windows).

    No token twice: some random models would repeat one for ever, whatever their heads do. The
    sequences are the first ones on which the first model of the test makes clear choices, so that
    no other rounding makes others.
    """
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "no_repeat_ngram_size": 1}
    chosen: list[Inputs] = []

    def run(model: PreTrainedModel) -> Tensor:
        for seed in range(5, 25):
            given = chosen[0] if chosen else sequences(seed)
            tokens, margin = greedy_choices(model, given, **options, use_cache=True)
            if chosen or margin > CLEAR:
                chosen[:] = [given]
                return tokens
        raise AssertionError("no sequences on which this model makes clear choices")

    return run


@pytest.fixture
def difference() -> Callable[[Tensor, Tensor], float]:
    """Largest absolute difference, relative to the largest value."""
    return largest_difference
