"""The same results whatever the batch size, up to rounding; and whatever the order of units.

Sampled tokens are compared exactly: rows draw their own noise, and every draw here is a clear one.
Numbers are means of many float32 operations whose order depends on the width of a batch; 2e-4 of
the largest effect is the tolerance that docs/reliability.md states.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.rounding import clear_draws

import levelhead
from levelhead.experiments.joint import JointEvaluator, units_of
from levelhead.runs import RunFolder
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.session import Session

TOLERANCE = 2e-4
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def by_size(
    inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[int | None, Path]:
    """Run folders of heads scored in batches of 1, of 3, and as many as it likes."""
    folder = tmp_path_factory.mktemp("sizes")
    found = {}
    for size in (1, 3, None):
        found[size] = folder / str(size)
        given = options | {"batch_size": size, "samples": 2, "text_tokens": 300}
        with clear_draws():
            levelhead.score(str(inputs / "model"), out=found[size], **given)
    return found


@pytest.mark.parametrize("size", [1, 3])
def test_batches_change_nothing_but_rounding(by_size: dict[int | None, Path], size: int) -> None:
    texts = {size: (run / "continuations.jsonl").read_text() for size, run in by_size.items()}
    assert texts[size] == texts[None]
    tables = {size: ScoreTable.read(run / "scores.csv") for size, run in by_size.items()}
    for metric in (PPL, bias_metric("gender")):
        one, other = (tables[s].effect(metric) for s in (size, None))
        assert np.abs(one - other).max() <= TOLERANCE * np.abs(other).max()
        assert np.abs(other).max() > 0


def test_the_same_size_gives_the_same_bits(
    by_size: dict[int | None, Path], inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    given = options | {"batch_size": 3, "samples": 2, "text_tokens": 300}
    levelhead.score(str(inputs / "model"), out=tmp_path / "again", **given)
    for name in ("scores.csv", "details.json", "halves.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (by_size[3] / name).read_bytes()


def test_the_order_of_units_changes_nothing(
    by_size: dict[int | None, Path], tmp_path: Path
) -> None:
    """Sets of heads judged forwards, backwards, and one of them alone."""
    sets = [[(0, 1)], [(1, 2), (2, 0)], [(0, 0), (0, 1)]]
    session = Session(RunFolder.open(by_size[3]).config)

    def judged(folder: str, order: list[int]) -> dict[int, Any]:
        units = units_of(session, tmp_path / folder)
        judge = JointEvaluator(session=session, units=units, split="test")
        return {i: (judge.text(sets[i]), judge.expected("gender", sets[i])) for i in order}

    forwards, backwards = judged("a", [0, 1, 2]), judged("b", [2, 1, 0])
    assert forwards == backwards
    assert judged("c", [1])[1] == forwards[1]
