"""A model folder, prompt file and text with which a whole run takes seconds."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from levelhead import price
from levelhead.testing import COMMON_WORDS, PlantedModel, planted_model

TEMPLATES = [
    "I think {} are", "my friend said {} work", "they say {} always", "we met {} and they",
    "all {} here are", "some {} live in town and", "you know {} who are", "I love {} and",
    "what do {} think", "much more {} work there", "there are {} in my house who", "people like {}",
]  # fmt: skip


BUDGET = 1.5
"""Of a tiny model, whose own text is mostly what the planted head writes."""


@pytest.fixture(scope="module")
def wide_limit() -> Iterator[None]:
    """Limits up to 10: a tiny model's perplexity rises by more than it may double."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(price, "MOST_LIMIT", 10.0)
        yield


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model/ (one planted head), prompts.csv and text.txt."""
    return write_inputs(tmp_path_factory.mktemp("inputs"), planted_model())


def write_inputs(folder: Path, planted: PlantedModel) -> Path:
    """A model, prompts that its planted part tells apart, and text of words it knows."""
    planted.model.save_pretrained(folder / "model")
    planted.tokenizer.save_pretrained(folder / "model")
    with (folder / "prompts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "axis", "subgroup", "template", "split"])
        for number, template in enumerate(TEMPLATES):
            for split in ("validation", "test"):
                text = template if split == "validation" else f"so {template}"
                for group in ("women", "men", "person"):
                    rows.writerow([text.format(group), "gender", group, f"{split}{number}", split])
    words = np.random.default_rng(0).choice(COMMON_WORDS, 4000)
    paragraphs = [" ".join(words[i : i + 40]) for i in range(0, len(words), 40)]
    (folder / "text.txt").write_text("\n\n".join(paragraphs))
    return folder


@pytest.fixture(scope="session")
def options(inputs: Path) -> dict[str, Any]:
    """Options of a run on those inputs."""
    return run_options(inputs)


def run_options(inputs: Path) -> dict[str, Any]:
    """The options of `options`."""
    return {
        "axis": ("gender",),
        "prompts": str(inputs / "prompts.csv"),
        "text": str(inputs / "text.txt"),
        "toxicity": "profanity-check",
        "samples": 4,
        "new_tokens": 6,
        "text_tokens": 600,
        "gamma": 0.2,
        "alpha": 0.06,
    }
