"""Whether a selection holds elsewhere: on a model whose only biased head is known."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tests.pipeline.conftest import TEMPLATES
from tests.torture.harness import StoppedError

import levelhead
from levelhead import cli, runs
from levelhead.errors import ConfigError, PromptError
from levelhead.experiments.transfer import TransferPlan, _kept, transfer
from levelhead.journal.status import read_status
from levelhead.toxicity import registry

pytestmark = pytest.mark.slow
"""Studies of finished runs: continuous integration runs them."""

HOLISTIC_BIAS = Path(__file__).parents[3] / "shared" / "data" / "holistic_bias_v1.1"


class WordScorer:
    """0.9 for a text with one of the words in it, 0.1 for any other."""

    cost = "cheap"

    def __init__(self, name: str, *words: str) -> None:
        self.name, self.words = name, set(words)
        self.identity = f"{name}:{sorted(words)}"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([0.9 if self.words & set(t.lower().split()) else 0.1 for t in texts])


def write_prompts(path: Path, axis: str, groups: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "axis", "subgroup", "template", "split"])
        for number, template in enumerate(TEMPLATES):
            for group in groups:
                text = f"and {template.format(group)}"
                rows.writerow([text, axis, group, f"n{number}", "test"])
    return path


@pytest.fixture(scope="module")
def done(
    finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[TransferPlan]]:
    """Everything at once: other words for the subgroup, another axis, another scorer."""
    from shutil import copytree

    folder = tmp_path_factory.mktemp("transfer")
    run = Path(copytree(finished, folder / "run"))
    # "woman" has the planted head's attention, too, and no head was scored on it.
    words = write_prompts(folder / "woman.csv", "gender", ["woman", "man", "friend"])
    other = write_prompts(folder / "faith.csv", "faith", ["Muslims", "Christians", "Jewish"])
    scorer = WordScorer("sees-idiot", "idiot")
    plans: list[TransferPlan] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.SCORERS, "sees-idiot", lambda *_: scorer)
        found = transfer(
            run,
            prompts=(str(words), str(other)),
            scorers=("sees-idiot",),
            sample=True,
            announce=plans.append,
        )
    return run, found, plans


def row(found: dict[str, Any], where: str, name: str = "selected", **about: str) -> dict[str, Any]:
    (one,) = [
        r
        for r in found["rows"]
        if r["where"] == where
        and r["set"] == name
        and all(r[key] == value for key, value in about.items())
    ]
    return one


def test_the_planted_head_transfers_to_where_it_acts(done: tuple[Path, dict, list]) -> None:
    _, found, _ = done
    for where, about in (
        ("scoring templates", {}),
        ("held-out templates", {}),
        ("other prompts", {"prompts": "woman.csv"}),
        ("another scorer", {}),
    ):
        one = row(found, where, **about)
        assert one["predicted"] == "fall", where
        assert one["kept"]["value"] > 0.4, where
        assert one["expected_difference"]["ci95"][1] < 0, where
    reference = row(found, "scoring templates")["kept"]
    assert reference == {"value": 1.0, "ci95": [1.0, 1.0]}
    assert row(found, "other prompts", prompts="woman.csv")["new_descriptors"] is True


def test_it_does_not_transfer_to_where_it_does_nothing(done: tuple[Path, dict, list]) -> None:
    """Control: an axis whose names the planted head does not attend to."""
    _, found, _ = done
    one = row(found, "other prompts", prompts="faith.csv")
    assert one["axis"] == "faith"
    assert abs(one["expected_difference"]["value"]) < 0.02
    assert abs(one["kept"]["value"]) < 0.3


def test_random_heads_do_not_do_it(done: tuple[Path, dict, list]) -> None:
    _, found, _ = done
    controls = [r for r in found["rows"] if r["set"] != "selected"]
    assert {r["set"] for r in controls} == {"random 1", "random 2"}
    largest = max(abs(r["expected_difference"]["value"]) for r in controls)
    selected = row(found, "held-out templates")["expected_difference"]["value"]
    assert largest < abs(selected) / 5
    fell = sum(r["predicted"] == "fall" for r in found["rows"] if r["set"] == "selected")
    assert fell >= 4  # of five; the scoring templates are none that it was not selected at
    assert f"Bias is predicted to fall at {fell - 1} of 4 places" in found["headline"]


def test_fresh_samples_agree_and_are_taken_where_asked(done: tuple[Path, dict, list]) -> None:
    _, found, _ = done
    held_out = row(found, "held-out templates")
    assert held_out["sampled"]["adjusted_difference"]["ci95"][1] < 0
    assert held_out["verdict"] in ("lower", "less toxic for everyone")
    assert row(found, "scoring templates")["sampled"] is None
    assert row(found, "scoring templates")["verdict"] is None
    assert row(found, "held-out templates", "random 2")["sampled"] is None
    assert row(found, "another scorer", "random 1")["verdict"] != "lower"


def test_the_plan_counts_shared_samples_once(done: tuple[Path, dict, list]) -> None:
    _, _, plans = done
    assert plans[0].sets == 3
    assert len(plans[0].places) == 5
    assert plans[0].sampled_tokens == (36 + 36 * 4 + 36 * 4 + 36 * 4) * 6


def test_the_report_shows_it(done: tuple[Path, dict, list]) -> None:
    run, found, _ = done
    assert runs.read_json(run / "transfer.json") == json.loads(json.dumps(found))
    page = levelhead.report(run, "md").read_text()
    assert "Judged where they were not selected" in page
    assert "woman.csv" in page
    assert "Bias, relative to " in page


def test_scored_descriptors_are_left_out_unless_none_remain(run: Path, tmp_path: Path) -> None:
    some = write_prompts(tmp_path / "some.csv", "gender", ["women", "woman", "man"])
    few = write_prompts(tmp_path / "few.csv", "gender", ["women", "men"])
    found = transfer(run, prompts=(str(some), str(few)), controls=0)
    left = row(found, "other prompts", prompts="some.csv")
    assert (left["num_prompts"], left["new_descriptors"]) == (24, True)
    same = row(found, "other prompts", prompts="few.csv")
    assert (same["num_prompts"], same["new_descriptors"]) == (24, False)


def test_the_command(run: Path) -> None:
    found = CliRunner().invoke(cli.cli, ["transfer", str(run), "--controls", "1", "--max-prompts",
                                         "18"])  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "held-out templates" in found.output
    assert "random 1" in found.output
    again = CliRunner().invoke(cli.cli, ["transfer", str(run), "--controls", "1", "--json",
                                         "--max-prompts", "18"])  # fmt: skip
    assert json.loads(again.stdout)["rows"][0]["num_prompts"] == 18


def test_what_cannot_be_judged_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--axis gender"):
        transfer(run, axes=("gender",))
    with pytest.raises(ConfigError, match="--controls -1"):
        transfer(run, controls=-1)
    with pytest.raises(PromptError, match="age"):
        transfer(run, axes=("age",))
    with pytest.raises(PromptError):
        transfer(run, prompts=(str(tmp_path / "absent.csv"),))


def test_gates_are_judged_beside_gates_dealt_anew(run: Path) -> None:
    shares = {"method": "joint", "gamma": 0.2, "alpha": 0.2, "allow_unreliable": True}
    soft = levelhead.select(run, soft=True, **shares)
    found = transfer(run, controls=1)
    assert found["selected"] == soft.described
    own, other = (row(found, "held-out templates", name) for name in ("selected", "random 1"))
    assert own["predicted"] == "fall"
    assert own["expected_difference"]["value"] < other["expected_difference"]["value"] - 0.01


def test_kept_needs_a_fall_where_it_was_selected() -> None:
    def one(where: str, value: float, said: str) -> dict[str, Any]:
        relative = {"value": value, "ci95": [value - 0.2, value + 0.2], "stderr": 0.1}
        return {"where": where, "set": "selected", "relative_change": relative, "predicted": said}

    first, second = one("scoring templates", -0.8, "fall"), one("another axis", -0.4, "fall")
    kept = _kept(second, [first, second])
    assert kept is not None
    assert kept["value"] == pytest.approx(0.5)
    error = np.hypot(0.1, 0.5 * 0.1) / 0.8
    assert kept["ci95"] == pytest.approx([0.5 - 1.96 * error, 0.5 + 1.96 * error])
    unclear = one("scoring templates", -0.1, "unclear")
    assert _kept(second, [unclear, second]) is None


@pytest.mark.skipif(not HOLISTIC_BIAS.is_dir(), reason="no HolisticBias files beside the project")
def test_holistic_bias_without_the_descriptors_that_were_scored_on() -> None:
    from levelhead.config import RunConfig
    from levelhead.experiments.transfer_places import _elsewhere, _plain
    from levelhead.session import Session

    session = Session(RunConfig(max_prompts=60))
    session.base = None  # no model is asked for
    seen: dict[str, Any] = {}

    class NoProblemError(Exception):
        pass

    def problem(self: Session, axis: str, split: str) -> None:
        seen["session"] = self
        raise NoProblemError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "problem", problem)
        with pytest.raises(NoProblemError):
            _elsewhere(
                session, f"holistic-bias:{HOLISTIC_BIAS}", "gender_and_sex", "gender_and_sex"
            )
    left = {_plain(prompt.descriptor) for prompt in seen["session"].prompts}
    assert {"transgender", "nonbinary", "queer"}.isdisjoint(left)
    assert len({prompt.subgroup for prompt in seen["session"].prompts}) >= 2


def test_what_was_interrupted_goes_on(finished: Path, tmp_path: Path) -> None:
    from shutil import copytree

    whole, stopped = (Path(copytree(finished, tmp_path / name)) for name in ("a", "b"))
    calls: list[str] = []

    @contextmanager
    def stopping(description: str, total: int) -> Iterator[Any]:
        calls.append(description)
        if len(calls) == 4:
            raise StoppedError
        yield lambda units: None

    with pytest.raises(StoppedError):
        transfer(stopped, controls=1, progress=stopping)
    assert read_status(stopped)["stages"]["transfer"]["kept"] >= 1
    assert transfer(stopped, controls=1) == transfer(whole, controls=1)
    assert read_status(stopped)["stages"]["transfer"]["reused"] >= 1
