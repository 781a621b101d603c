"""--repair in a run: what is pruned, measured, recorded and shown is the repaired model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import levelhead
from levelhead import runs
from levelhead.attempts import stale
from levelhead.cli import cli
from levelhead.config import RunConfig
from levelhead.errors import (
    CheckpointError,
    ConfigError,
    RunFolderError,
    SelectionError,
    TextError,
)
from levelhead.evaluation.base import as_pruned, without_units
from levelhead.models.repair import repair_of, saved_repair
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.session import Session
from levelhead.stages import pruning
from levelhead.testing import save_tiny_checkpoint

SOME = HeadSelection.of([(0, 1), (0, 2), (1, 0), (2, 4)])


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def stages(run: Path) -> list[str]:
    """What was worked on, from the log."""
    rows = (json.loads(line) for line in (run / "work" / "log.jsonl").read_text().splitlines())
    return [row["stage"] for row in rows if "stage" in row]


@pytest.fixture(scope="module")
def options(options: dict[str, Any]) -> dict[str, Any]:
    """With heads besides the planted one, which writes nothing on this text: it has no names."""
    return options | {"alpha": 0.17}


@pytest.fixture(scope="module")
def first(inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without repair, with a report."""
    out = tmp_path_factory.mktemp("runs") / "first"
    levelhead.run(str(inputs / "model"), out=out, **options)
    return out


@pytest.fixture(scope="module")
def repaired(first: Path, inputs: Path, options: dict[str, Any]) -> Path:
    """The same run gone on with, repaired."""
    run = Path(shutil.copytree(first, first.parent / "repaired"))
    (run / "work" / "log.jsonl").unlink()
    levelhead.run(str(inputs / "model"), out=run, repair="least-squares", **options)
    return run


def test_only_pruning_and_evaluation_are_done_again(first: Path, repaired: Path) -> None:
    assert "score" not in stages(repaired)
    assert "evaluate" in stages(repaired)
    for same in ("scores.csv", "details.json", "selection.json"):
        assert (repaired / same).read_bytes() == (first / same).read_bytes()
    assert read(first / "config.json")["repair"] == "none"
    assert read(repaired / "config.json")["repair"] == "least-squares"
    assert stale(repaired) == stale(first) == {}


def test_the_repaired_model_is_what_is_measured(first: Path, repaired: Path) -> None:
    before, after = read(first / "evaluation.json"), read(repaired / "evaluation.json")
    assert before["heads"] == after["heads"]
    assert after["perplexity"]["pruned"] != before["perplexity"]["pruned"]
    assert after["perplexity"]["base"] == before["perplexity"]["base"]
    record = saved_repair(repaired / "model")
    assert record is not None
    assert after["repair"] == record
    assert "repair" not in before
    assert "with the rest repaired" in after["headline"]
    assert after["perplexity"]["predicted"] is None, "what is predicted is not of a repaired model"
    again = levelhead.load(repaired / "model")
    session = Session(RunFolder.open(repaired).config)
    selection = HeadSelection.from_json(read(repaired / "selection.json"))
    ids = torch.tensor([[1, 20, 30, 40, 50]])
    with torch.no_grad():
        expected = again(ids).logits
        with as_pruned(session, selection)() as model:
            assert torch.allclose(model(ids).logits, expected, atol=1e-5)
        with without_units(session.base.model, selection)() as model:
            assert not torch.allclose(model(ids).logits, expected, atol=1e-4), "control"


def test_the_record_says_what_it_was_fitted_to(repaired: Path, inputs: Path) -> None:
    record = saved_repair(repaired / "model")
    assert record is not None
    (text,) = record["texts"]
    assert (text["name"], text["split"], text["share"]) == ("text.txt", "validation", 1.0)
    assert text["tokens"] == 600
    config = RunFolder.open(repaired).config
    assert text["sha256"] == Session(config).text("validation").sha256
    assert text["sha256"] != Session(config).text("test").sha256
    assert record["ridge"] > 0
    assert repair_of(levelhead.load(repaired / "model")) == record
    assert read(repaired / "model" / "levelhead_record.json")["repair"] == record
    card = (repaired / "model" / "README.md").read_text(encoding="utf-8")
    assert "## Repair" in card
    assert "text.txt" in card
    assert "600 tokens" in card
    assert str(inputs) not in card


def test_verify_says_that_the_model_was_repaired(repaired: Path) -> None:
    from levelhead.console.verify import verify_summary

    found = levelhead.verify(repaired, policy={"max_ppl_increase": 5.0, "max_gap_increase": 0.5})
    assert found["subject"]["repair"] == saved_repair(repaired / "model")
    verify_summary(found)


def test_a_finished_run_and_a_killed_one(
    repaired: Path, inputs: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(repaired, repaired.parent / "killed"))
    asked = {"out": run, "repair": "least-squares", **options}
    stamps = {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()}
    finished = levelhead.run(str(inputs / "model"), **asked)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "nothing to do"

    shutil.rmtree(run / "model")
    (run / "evaluation.json").unlink()

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pruning, "save_units", killed)
        with pytest.raises(KeyboardInterrupt):
            levelhead.run(str(inputs / "model"), **asked)
    assert not (run / "model").exists(), "all or nothing"
    again = levelhead.run(str(inputs / "model"), **asked)
    assert again["axes"] == finished["axes"]
    assert again["repair"] == finished["repair"]


def test_back_without_a_repair(
    first: Path, repaired: Path, inputs: Path, options: dict[str, Any]
) -> None:
    run = Path(shutil.copytree(repaired, repaired.parent / "back"))
    found = levelhead.run(str(inputs / "model"), out=run, **options)
    assert saved_repair(run / "model") is None
    assert found["axes"] == read(first / "evaluation.json")["axes"]
    assert "## Repair" not in (run / "model" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(RunFolderError, match="differs in: alpha"):  # control: nothing else may
        levelhead.run(str(inputs / "model"), out=run, **options | {"alpha": 0.23})


def test_stage_by_stage_and_what_is_stale(first: Path) -> None:
    run = Path(shutil.copytree(first, first.parent / "stages"))
    said = CliRunner().invoke(cli, ["prune", str(run), "--repair", "least-squares"])
    assert said.exit_code == 0, said.output
    assert read(run / "config.json")["repair"] == "least-squares"
    assert set(stale(run)) == {"evaluate"}
    assert "repaired otherwise" in CliRunner().invoke(cli, ["status", str(run)]).output
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "Nothing yet" in card, "what was measured is of the unrepaired model"
    levelhead.evaluate(run)
    assert stale(run) == {}
    levelhead.prune(run)
    assert saved_repair(run / "model"), "the run's own option holds"
    levelhead.prune(run, repair="none", out=first.parent / "elsewhere")
    assert saved_repair(first.parent / "elsewhere") is None
    assert read(run / "config.json")["repair"] == "least-squares"
    runs.write_json(run / "config.json", read(run / "config.json") | {"repair": "none"})
    assert "not" not in stale(run)["prune"].split("repaired")[0]
    with pytest.raises(
        RunFolderError, match=r"is repaired \(least-squares\), and the run asks for repair none"
    ):
        levelhead.evaluate(run)


def test_another_attempt_repairs_and_leaves_the_run_as_it_is(first: Path) -> None:
    run = Path(shutil.copytree(first, first.parent / "retried"))
    found = levelhead.retry(run, repair="least-squares")
    assert found["attempt"] == 2
    assert saved_repair(Path(found["folder"]) / "model")
    assert saved_repair(run / "model") is None
    rows = levelhead.results(run)["attempts"]
    assert [row["repair"] for row in rows] == ["none", "least-squares"]
    assert "repaired" in CliRunner().invoke(cli, ["results", str(run)]).output


def test_a_search_judges_repaired_sets(
    first: Path, repaired: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The price and the reduction that a set is chosen by are those of what will be saved."""
    from levelhead.evaluation import finalists
    from levelhead.progress import silent

    prices = []
    for run in (first, repaired):
        session = Session(RunFolder.open(run).config)
        (judged,) = finalists.judge_sets(session, {}, [SOME], silent)
        prices.append(judged.text.kl.value)
    assert prices[1] < prices[0]


def test_experiments_judge_the_repaired_model(first: Path, repaired: Path) -> None:
    found = []
    for run in (first, repaired):
        run = Path(shutil.copytree(run, first.parent / f"transfer-{run.name}"))
        found.append(levelhead.transfer(run, controls=0)["rows"][0]["expected_difference"])
        levelhead.examples(run, groups=1, samples=1)
    assert found[0] != found[1]


@pytest.mark.parametrize("form", ["compact", "zeroed", "remote-code", "uniform", "adapter"])
def test_any_model_in_every_format(form: str, inputs: Path, tmp_path: Path) -> None:
    model = save_tiny_checkpoint(tmp_path / "base", "llama")
    listed = tmp_path / "heads.json"
    equal = [[0, 0], [0, 3], [1, 2], [1, 5], [2, 1], [2, 4]]
    listed.write_text(json.dumps({"heads": equal}))
    arguments = ["prune", str(model), "--heads", str(listed), "--out", str(tmp_path / "out")]
    arguments += ["--format", form, "--repair", "least-squares", "--text", str(inputs / "text.txt")]
    said = CliRunner().invoke(cli, arguments)
    if form == "adapter":
        assert isinstance(said.exception, CheckpointError)
        assert "holds no weights" in str(said.exception)
        assert not (tmp_path / "out").exists()
        return
    assert said.exit_code == 0, said.output
    assert (saved_repair(tmp_path / "out") or {})["texts"][0]["name"] == "text.txt"
    assert "## Repair" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    plain = levelhead.prune(model, HeadSelection.from_json({"heads": equal}))
    ids = torch.tensor([[1, 20, 30, 40, 50]])
    with torch.no_grad():
        assert not torch.allclose(levelhead.load(tmp_path / "out")(ids).logits, plain(ids).logits)


def test_bad_input_is_refused_before_work(inputs: Path, options: dict[str, Any]) -> None:
    asked: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"repair": "magic"}, ConfigError, "choose from none, least-squares, group-averaged"),
        ({"repair": "least-squares", "soft": True}, ConfigError, "--soft scales them"),
        ({"repair": "least-squares", "unit": "layer"}, ConfigError, "removes all of it"),
        ({"repair": "group-averaged", "soft": True}, ConfigError, "--soft scales them"),
        ({"repair": "group-averaged", "unit": "layer"}, ConfigError, "removes all of it"),
    ]
    for extra, kind, message in asked:
        with pytest.raises(kind, match=message):
            RunConfig.of(str(inputs / "model"), **options | extra)


def test_a_calibration_text_without_a_repair_is_refused(first: Path) -> None:
    with pytest.raises(ConfigError, match="give --repair too"):
        levelhead.prune(first, text="pydoc")


def test_too_little_text_is_said_before_scoring(
    inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    model = save_tiny_checkpoint(tmp_path / "wide", "llama", hidden_size=312)
    small = {**options, "text_tokens": 256, "repair": "least-squares"}
    with pytest.raises(TextError, match=r"fits 312 inputs of every layer to 256 tokens"):
        levelhead.run(str(model), out=tmp_path / "run", **small)
    assert not (tmp_path / "run").exists()


def test_a_selection_that_cannot_be_repaired(
    inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    config = RunConfig(model=str(inputs / "model"), repair="least-squares", **options)
    folder = RunFolder.create(tmp_path / "run", config)
    every = HeadSelection.of([(0, head) for head in range(6)])
    runs.write_text(folder.path / "selection.json", json.dumps(every.to_json()))
    with pytest.raises(SelectionError, match="nothing to repair it with"):
        levelhead.prune(folder.path)
    gates = HeadSelection.of([], gates=((0.5,) * 6,) * 3)
    runs.write_text(folder.path / "selection.json", json.dumps(gates.to_json()))
    with pytest.raises(SelectionError, match="Scaled heads"):
        levelhead.prune(folder.path)
    assert not (folder.path / "model").exists()


def test_neurons_of_a_run(inputs: Path, options: dict[str, Any], tmp_path: Path) -> None:
    small = {**options, "samples": 1, "reliability": 0.0}
    out = tmp_path / "run"
    levelhead.score(str(inputs / "model"), out=out, unit="neuron", repair="least-squares", **small)
    levelhead.select(out, allow_unreliable=True)
    levelhead.prune(out)
    record = saved_repair(out / "model")
    assert record is not None
    assert min(record["rebuilt"].values()) > 0
    assert levelhead.evaluate(out)["repair"] == record
    with pytest.warns(UserWarning, match="positions of matched contexts, 2.6 per input"):
        levelhead.prune(out, repair="group-averaged")
    averaged = saved_repair(out / "model")
    assert averaged is not None
    assert averaged["rebuilt"].keys() == record["rebuilt"].keys()
    assert averaged["axes"]["gender"]["groups"] == 12
