"""Method average through a whole tiny run whose biased head is known."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import levelhead
from levelhead import price

BUDGET = 1.5
"""Of a tiny model, whose own text is mostly what the planted head writes."""


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def _any_budget() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(price, "MOST_LIMIT", 10.0)
        yield


@pytest.fixture(scope="module")
def first(
    inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "averaged"
    left = {name: value for name, value in options.items() if name not in ("gamma", "alpha")}
    levelhead.run(
        str(inputs / "model"), out=out, method="average", gamma=0.0, max_ppl_increase=BUDGET, **left
    )
    return out


@pytest.fixture
def done(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "run"))


def test_a(done: Path) -> None:
    selection = read(done / "selection.json")
    print(json.dumps(selection, indent=1)[:6000])
    print(read(done / "evaluation.json")["headline"])
    assert 0
