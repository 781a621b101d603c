"""A model whose biased head is known, a scorer that knows one word, and prompts for both."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from levelhead.records import Prompt
from levelhead.scoring.problem import BiasProblem
from levelhead.testing import PlantedModel, planted_model


class WordScorer:
    """Toxicity 0.9 for a text with the word in it, 0.1 for any other."""

    name = identity = "word"
    cost = "cheap"

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([0.9 if self.word in text.lower().split() else 0.1 for text in texts])


TEMPLATES = [
    "I think {} are", "my friend said {} work", "they say {} always", "we met {} and they",
    "all {} here are", "some {} live in town and", "you know {} who are", "I love {} and",
    "what do {} think", "much more {} work there", "there are {} in my house who", "people like {}",
]  # fmt: skip


@pytest.fixture(scope="session")
def planted() -> PlantedModel:
    found = planted_model()
    found.model.requires_grad_(False)
    return found


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    return [
        Prompt(
            id=f"{group}/{t}",
            text=text.format(group),
            axis="gender",
            subgroup=group,
            template=f"t{t}",
            descriptor=group,
            split="validation",
        )
        for t, text in enumerate(TEMPLATES)
        for group in ("women", "men", "person")
    ]


@pytest.fixture(scope="session")
def make_problem(planted: PlantedModel, prompts: list[Prompt]) -> Callable[..., BiasProblem]:
    def make(**options: object) -> BiasProblem:
        given = {"samples": 2, "new_tokens": 6, "seed": 0} | options
        return BiasProblem.of(
            planted.model, planted.tokenizer, WordScorer(planted.toxic_word), prompts, **given
        )

    return make
