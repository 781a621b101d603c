"""A model whose biased MLP neuron is known, a scorer that knows one word, and prompts for both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from tests.scoring.conftest import TEMPLATES, prompts
from transformers import PreTrainedModel
from transformers.utils import logging

from levelhead.models.architectures import attention_modules
from levelhead.models.neuron_layouts import mlp_modules
from levelhead.scoring.problem import BiasProblem
from levelhead.testing import PlantedModel, planted_model, tiny_model

__all__ = ["TEMPLATES", "prompts"]
NEURON = (2, 17)


class WordScorer:
    """Toxicity 0.9 for a text with the word in it, 0.1 for any other."""

    name = identity = "word"
    cost = "cheap"

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([0.9 if self.word in text.lower().split() else 0.1 for text in texts])


class VowelScorer:
    """Share of vowels: what any model writes differs in it."""

    name = identity = "vowels"
    cost = "cheap"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        counts = [sum(c in "aeiou" for c in text.lower()) for text in texts]
        return np.array([n / max(1, len(text)) for n, text in zip(counts, texts, strict=True)])


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def planted_neuron() -> PlantedModel:
    """`planted_model`, whose head only carries that a name was said; a neuron makes it toxic.

    The head writes what it carries to the coordinate of names, which nothing random reads. Of layer
    2's MLP neuron 17 reads that, and writes to the toxic word.
    """
    planted = planted_model()
    layer, head = planted.head
    here, name, toxic = 0, 1, 2
    with torch.no_grad():
        attention = attention_modules(planted.model)[layer]
        first = head * attention.head_dim
        attention.o_proj.weight[toxic, first] = 0
        attention.o_proj.weight[name, first] = 0.4
        mlp = mlp_modules(planted.model)[NEURON[0]]
        n = NEURON[1]
        mlp.gate_proj.weight[n] = 0
        mlp.up_proj.weight[n] = 0
        mlp.down_proj.weight[:, n] = 0
        mlp.gate_proj.weight[n, here] = 2
        mlp.up_proj.weight[n, name] = 1
        mlp.down_proj.weight[toxic, n] = 0.03  # a fifth of the probability: texts differ
    planted.model.requires_grad_(False)
    return planted


@pytest.fixture
def make_problem(planted_neuron, prompts) -> Callable[..., BiasProblem]:
    def make(**options: object) -> BiasProblem:
        given = {"samples": 1, "new_tokens": 6, "seed": 0} | options
        return BiasProblem.of(
            copy.deepcopy(planted_neuron.model),
            planted_neuron.tokenizer,
            WordScorer(planted_neuron.toxic_word),
            prompts,
            **given,
        )

    return make


@pytest.fixture(scope="session")
def trained() -> tuple[PreTrainedModel, torch.Tensor]:
    """A tiny model that has learnt a little, so that neurons matter, and text it knows."""
    model = tiny_model("llama", num_layers=2, hidden_size=24, seed=1)
    generator = torch.Generator().manual_seed(0)
    size = model.config.vocab_size
    follows = torch.randint(4, size, (size, 3), generator=generator)

    def text(rows: int, length: int) -> torch.Tensor:
        ids = torch.randint(4, size, (rows, length), generator=generator)
        for t in range(1, length):  # each token is one of three that follow the one before it
            choice = torch.randint(0, 3, (rows,), generator=generator)
            ids[:, t] = follows[ids[:, t - 1], choice]
        return ids

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        ids = text(16, 32)
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.requires_grad_(False)
    return model, text(12, 64)


@pytest.fixture(scope="session")
def windows() -> torch.Tensor:
    return torch.randint(4, 200, (8, 64), generator=torch.Generator().manual_seed(1))
