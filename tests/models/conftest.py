"""Batches and comparisons that every test of levelhead.models uses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
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


@pytest.fixture
def inputs() -> Inputs:
    """Three sequences of 10, 8 and 6 tokens, padded on the left."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(4, 200, (3, 10), generator=generator)
    mask = torch.ones_like(ids)
    for row, pad in enumerate((0, 2, 4)):
        ids[row, :pad] = 0
        mask[row, :pad] = 0
    return {"input_ids": ids, "attention_mask": mask}


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
def greedy(inputs: Inputs) -> Callable[[PreTrainedModel], Tensor]:
    """Twelve greedy tokens after each sequence, through the cache (past sliding windows).

    No token twice: some random models would repeat one for ever, whatever their heads do.
    """

    def run(model: PreTrainedModel) -> Tensor:
        return model.generate(
            **inputs,
            max_new_tokens=12,
            min_new_tokens=12,
            do_sample=False,
            no_repeat_ngram_size=1,
            use_cache=True,
        )[:, inputs["input_ids"].shape[1] :]

    return run


@pytest.fixture
def difference() -> Callable[[Tensor, Tensor], float]:
    """Largest absolute difference, relative to the largest value."""
    return lambda a, b: float((a - b).abs().max() / b.abs().max())
