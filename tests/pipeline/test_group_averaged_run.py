"""--repair group-averaged in a run: the run's own prompts and continuations, whoever repairs."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tests.rounding import SAME, difference

import levelhead
from levelhead.attempts import stale
from levelhead.cli import cli
from levelhead.errors import ConfigError, PromptError, RunFolderError
from levelhead.evaluation.base import as_pruned
from levelhead.evaluation.finalists import judge_sets
from levelhead.models.repair import same_repair, saved_repair
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scoring import matched_reader
from levelhead.session import Session
from levelhead.stages.run_session import session_of

IDS = torch.tensor([[1, 20, 30, 40, 50]])
ASKED = ["--repair", "group-averaged"]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("this is not to be done")


@pytest.fixture(scope="module")
def options(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"alpha": 0.17}


@pytest.fixture(scope="module")
def run(inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without repair, whose model/ is then repaired and measured."""
    out = tmp_path_factory.mktemp("runs") / "run"
    levelhead.run(str(inputs / "model"), out=out, **options)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(matched_reader, "sample_texts", forbidden)
        said = CliRunner().invoke(cli, ["prune", str(out), *ASKED])
    assert said.exit_code == 0, said.output
    assert "matched contexts" in said.output
    assert set(stale(out)) == {"evaluate"}
    levelhead.evaluate(out)
    return out


def test_the_saved_model_is_what_its_record_and_its_measurements_are_of(run: Path) -> None:
    record = saved_repair(run / "model")
    assert record is not None
    assert (record["method"], record["target"]) == ("group-averaged", "group average")
    assert record["lambda"] == 10
    of = record["axes"]["gender"]
    assert (of["groups"], of["prompts"]) == (12, 36)
    assert of["positions"] > 36
    assert read(run / "config.json")["repair"] == "group-averaged"
    assert read(run / "evaluation.json")["repair"] == record
    assert stale(run) == {}
    folder = RunFolder.open(run)
    selection = HeadSelection.from_json(read(run / "selection.json"))
    saved = levelhead.load(run / "model")
    plain = session_of(folder)
    plain.config = replace(plain.config, repair="least-squares")
    with torch.no_grad():
        with as_pruned(session_of(folder), selection)() as model:
            assert difference(model(IDS).logits, saved(IDS).logits) < SAME
        with as_pruned(plain, selection)() as model:
            assert difference(model(IDS).logits, saved(IDS).logits) > SAME, "control"


def test_people_are_told(run: Path) -> None:
    from levelhead.console.verify import verify_summary

    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "`group-averaged`" in card
    assert "gender (12 groups of prompts)" in card
    found = levelhead.verify(run, policy={"max_ppl_increase": 5.0, "max_gap_increase": 0.5})
    assert found["subject"]["repair"] == saved_repair(run / "model")
    verify_summary(found)
    said = CliRunner().invoke(cli, ["results", str(run)])
    assert "group-averaged" in said.output


def test_the_same_run_again_reads_no_contexts(
    run: Path, inputs: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matched_reader, "matched_contexts", forbidden)
    stamps = {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()}
    levelhead.run(str(inputs / "model"), out=run, repair="group-averaged", **options)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    with pytest.raises(AssertionError, match="not to be done"):  # control
        levelhead.prune(run)


def test_other_options_of_an_experiment_do_not_change_the_repair(run: Path) -> None:
    folder = RunFolder.open(run)
    own = session_of(folder).repairer.identity("head")
    other = replace(folder.config, seed=7, max_prompts=12, samples=1)
    assert session_of(folder, other).repairer.identity("head") == own
    assert not same_repair(Session(other).repairer.identity("head"), own), "control"


def test_a_search_judges_sets_with_this_repair(run: Path) -> None:
    folder, set_of = RunFolder.open(run), HeadSelection.of([(0, 1), (0, 2), (1, 0), (2, 4)])
    prices = []
    for repair in ("none", "least-squares", "group-averaged"):
        session = session_of(replace(folder, config=replace(folder.config, repair=repair)))
        (judged,) = judge_sets(session, {}, [set_of], silent)
        prices.append(judged.text.kl.value)
    assert prices[1] < prices[2] < prices[0], "some of what was lost is not to come back"


def test_heads_of_a_run_by_their_file(run: Path, inputs: Path, tmp_path: Path) -> None:
    def prune(heads: Path, out: str) -> Any:
        arguments = ["prune", str(inputs / "model"), "--heads", str(heads), *ASKED]
        return CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / out)])

    said = prune(run / "selection.json", "out")
    assert said.exit_code == 0, said.output
    assert saved_repair(tmp_path / "out") == saved_repair(run / "model")
    saved = [levelhead.load(path) for path in (tmp_path / "out", run / "model")]
    with torch.no_grad():
        assert difference(saved[0](IDS).logits, saved[1](IDS).logits) < SAME
    lonely = Path(shutil.copyfile(run / "selection.json", tmp_path / "heads.json"))
    said = prune(lonely, "none")
    assert isinstance(said.exception, ConfigError)
    assert "in no run folder: give selection.json in the folder of the run" in str(said.exception)
    assert not (tmp_path / "none").exists()


def test_continuations_of_other_prompts_are_refused(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    rows = (other / "continuations.jsonl").read_text().splitlines()
    (other / "continuations.jsonl").write_text("\n".join(rows[1:]))
    with pytest.raises(RunFolderError, match="is not what levelhead wrote"):
        levelhead.prune(other)


def test_prompts_without_matched_groups_are_refused_before_scoring(
    inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    rows = list(csv.DictReader((inputs / "prompts.csv").read_text().splitlines()))
    for number, row in enumerate(rows):
        row["template"] = f"{row['split']}{number}"
    with (tmp_path / "apart.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    asked = options | {"prompts": str(tmp_path / "apart.csv"), "repair": "group-averaged"}
    with pytest.raises(PromptError, match="axis 'gender' has no matched groups among 36 prompts"):
        levelhead.run(str(inputs / "model"), out=tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()
