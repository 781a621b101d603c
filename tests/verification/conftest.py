"""Tiny models whose bias is known: with a planted head, without it, and far more than needed."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.conftest import inputs

from levelhead import runs
from levelhead.models.checkpoint import save_pruned
from levelhead.models.surgery import prune_heads
from levelhead.testing import planted_model

__all__ = ["inputs"]


@pytest.fixture(scope="session")
def policy(inputs: Path) -> dict[str, Any]:
    """How to measure the tiny models; no limit but a margin of gaps that 36 prompts resolve."""
    return {
        "prompts": str(inputs / "prompts.csv"),
        "text": str(inputs / "text.txt"),
        "scorer": "profanity-check",
        "samples": 4,
        "max_gap_increase": 0.15,
        "new_tokens": 6,
        "text_tokens": 600,
        "seed": 3,
    }


@pytest.fixture(scope="session")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model without its biased head, saved as any other model would be."""
    folder = tmp_path_factory.mktemp("without")
    planted = planted_model()
    layer, head = planted.head
    prune_heads(planted.model, {layer: [head]})
    save_pruned(planted.model, folder / "model", "zeroed", planted.tokenizer)
    (folder / "model" / "levelhead.json").unlink()
    return folder / "model"


@pytest.fixture(scope="session")
def wrong_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model without a head that does nothing, as levelhead saves it."""
    folder = tmp_path_factory.mktemp("wrong") / "model"
    planted = planted_model()
    layer, head = planted.head
    prune_heads(planted.model, {layer: [(head + 1) % 6]})
    save_pruned(planted.model, folder, "compact", planted.tokenizer)
    return folder


def edited(path: Path, **values: Any) -> None:
    """Change fields of a JSON file."""
    runs.write_text(path, json.dumps(json.loads(path.read_text()) | values))
