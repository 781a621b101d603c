"""Other selections from a run's scores, kept beside it; and results that are of another one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import levelhead
from levelhead.attempts import attempts, root_of, stale
from levelhead.cli import cli
from levelhead.errors import ConfigError, RunFolderError
from levelhead.testing import planted_model


@pytest.fixture(scope="module")
def first(inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nothing is done to."""
    out = tmp_path_factory.mktemp("runs") / "first"
    levelhead.run(str(inputs / "model"), out=out, **options)
    return out


@pytest.fixture
def done(first: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(first, tmp_path / "run"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def test_another_attempt_stands_beside_the_run_and_scores_nothing(done: Path) -> None:
    before = {name: (done / name).read_bytes() for name in ("selection.json", "evaluation.json")}
    found = levelhead.retry(done, alpha=0.12)
    assert found["attempt"] == 2
    attempt = done / "attempts" / "2"
    assert found["folder"] == str(attempt)
    assert {name: (done / name).read_bytes() for name in before} == before
    assert (attempt / "scores.csv").read_bytes() == (done / "scores.csv").read_bytes()
    chosen = read(attempt / "selection.json")["heads"]
    assert len(chosen) > len(read(done / "selection.json")["heads"])
    assert list(planted_model().head) in chosen
    assert read(attempt / "evaluation.json")["heads"] == chosen
    assert root_of(attempt) == done
    log = (attempt / "work" / "log.jsonl").read_text(encoding="utf-8")
    assert '"stage": "evaluate"' in log
    assert '"stage": "score"' not in log


def test_the_same_options_are_the_same_attempt_and_others_the_next(done: Path) -> None:
    first = levelhead.retry(done, alpha=0.12)
    again = levelhead.retry(done, alpha=0.12)
    assert again == first
    third = levelhead.retry(done / "attempts" / "2", method="bias_only")
    assert third["attempt"] == 3
    assert [number for number, _ in attempts(done)] == [1, 2, 3]
    assert levelhead.retry(done)["attempt"] == 1, "the run's own options are the run"


def test_results_and_the_report_have_every_attempt(done: Path) -> None:
    assert "Attempts" not in page(done)
    levelhead.retry(done, alpha=0.12)
    rows = levelhead.results(done)["attempts"]
    assert [row["attempt"] for row in rows] == [1, 2]
    assert [row["alpha"] for row in rows] == [0.06, 0.12]
    for row in rows:
        evaluation = read(Path(row["folder"]) / "evaluation.json")
        assert row["verdict"] == evaluation["axes"]["gender"]["verdict"]
        assert row["stale"] == {}
    assert "Attempts" in page(done), "the run's page is made anew"
    shown = CliRunner().invoke(cli, ["results", str(done)])
    assert shown.exit_code == 0
    assert "alpha 0.12" in shown.output
    listed = CliRunner().invoke(cli, ["results", str(done), "--json"])
    assert json.loads(listed.output) == levelhead.results(done)


def test_an_attempt_cannot_change_what_was_scored(done: Path) -> None:
    with pytest.raises(ConfigError, match="seed changes what is scored"):
        levelhead.retry(done, seed=3)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        levelhead.retry(done / "model", alpha=0.1)
    assert not (done / "attempts").exists()


def test_a_new_selection_makes_the_results_stale_until_they_are_made_again(done: Path) -> None:
    assert stale(done) == {}
    before = read(done / "evaluation.json")["headline"]
    assert before[:40] in page(done)
    levelhead.select(done, alpha=0.12)
    assert set(stale(done)) == {"prune", "evaluate", "report"}
    said = CliRunner().invoke(cli, ["status", str(done)]).output
    assert said.count("stale") == 3
    levelhead.report(done)
    heads = len(read(done / "selection.json")["heads"])
    assert f"{heads} of " in page(done)
    assert "Nothing was measured of this selection yet" in page(done)
    assert before[:40] not in page(done), "what was measured of other heads is not shown"
    levelhead.prune(done)
    assert set(stale(done)) == {"evaluate"}
    levelhead.evaluate(done)
    assert stale(done) == {}, "evaluate makes the page anew where there is one"
    assert f"Removing {heads} heads" in page(done)
    assert "stale" not in CliRunner().invoke(cli, ["status", str(done)]).output


def test_run_does_not_replace_a_selection_of_the_users(
    done: Path, inputs: Path, options: dict[str, Any]
) -> None:
    levelhead.select(done, method="bias_only", alpha=0.12)
    chosen = (done / "selection.json").read_bytes()
    with pytest.raises(RunFolderError, match=r"method bias_only.*levelhead retry"):
        levelhead.run(str(inputs / "model"), out=done, **options)
    assert (done / "selection.json").read_bytes() == chosen
    (done / "selection.json").unlink()
    levelhead.run(str(inputs / "model"), out=done, **options)
    assert stale(done) == {}


def test_a_core_can_be_asked_of_a_run(done: Path) -> None:
    found = levelhead.retry(done, core=0.5)
    selection = read(Path(found["folder"]) / "selection.json")
    assert selection["core"] == 0.5
    assert min(selection["inclusion"]) >= 0.5


def test_the_size_is_that_of_the_model_as_it_is_saved(done: Path) -> None:
    compact = read(done / "evaluation.json")
    said = CliRunner().invoke(cli, ["prune", str(done), "--format", "zeroed"]).output
    base = compact["parameters"]["base"]
    assert f"{base:,} parameters, {base - compact['parameters']['pruned']:,} of them zeros" in said
    zeroed = levelhead.evaluate(done)
    assert zeroed["parameters"]["pruned"] == zeroed["parameters"]["base"] == base
    assert zeroed["bytes"]["pruned"] == zeroed["bytes"]["base"]
    assert zeroed["axes"] == compact["axes"], "nothing is measured again"
    levelhead.prune(done)
    again = levelhead.evaluate(done)
    assert again["parameters"] == compact["parameters"]
    assert again["bytes"] == compact["bytes"]


def test_a_finished_run_says_that_there_is_nothing_to_do(
    done: Path, inputs: Path, options: dict[str, Any]
) -> None:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()
             if name != "axis"]  # fmt: skip
    call = ["run", str(inputs / "model"), "--out", str(done), "--axis", "gender", *flags]
    said = CliRunner().invoke(cli, call)
    assert said.exit_code == 0, said.output
    assert f"nothing to do: {done} is finished" in said.output
    assert "next: " in said.output
