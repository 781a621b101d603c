"""The command line: bad input ends with exit code 2 and a message, before any long work."""

import json
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from click.testing import CliRunner

from levelhead import cli, runs
from levelhead.config import RunConfig, RunOptions
from levelhead.scores import MIN_RELIABILITY, ScoreTable


def levelhead(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command run in this process."""
    runner = CliRunner()

    def call() -> None:
        sys.argv = ["levelhead", *arguments]
        cli.main()

    with runner.isolation() as streams:
        try:
            call()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code
        return code, streams[1].getvalue().decode() + streams[0].getvalue().decode()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "scores.csv"
    built = ScoreTable.build({"ppl_without": 5.0, "bias_without_gender": 0.1}, 2, 4)
    path.write_text(built.to_csv())
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gamma", "1.5"], "gamma"),
        (["--gamma", "nan"], "gamma"),
        (["--alpha", "-0.1"], "alpha"),
        (["--alpha", "0"], "alpha"),
        (["--alpha", "0.01"], "prunes none of 8"),
        (["--alpha", "0.8", "--gamma", "0.5"], "lower one of them"),
        (["--axis", "race", "--alpha", "0.3"], "gender"),
        (["--method", "magic"], "magic"),
        (["--core", "1.5"], "--core"),
        (["--alpha", "0.3", "--core", "0.5"], "on a run folder"),
    ],
)
def test_selections_that_cannot_be(table: Path, arguments: list[str], message: str) -> None:
    code, said = levelhead("select", str(table), *arguments)
    assert code == 2
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "no/such/model"}, "no/such/model"),
        ({"axis": "race"}, "race"),
        ({"prompts": "nowhere.csv"}, "nowhere.csv"),
        ({"toxicity": "./no-scorer"}, "no-scorer"),
        ({"text": "nowhere.txt"}, "nowhere.txt"),
        ({"samples": "0"}, "0"),
        ({"max-prompts": "3"}, "3"),
        ({"gamma": "2"}, "gamma"),
        ({"alpha": "0.001"}, "prunes none of 18"),
        ({"alpha": "0.9", "gamma": "0.9"}, "lower one of them"),
        ({"new-tokens": "5000"}, "new-tokens"),
        ({"method": "magic"}, "magic"),
        ({"threads": "x"}, "x"),
    ],
)
def test_bad_input_of_run(
    inputs: Path, options: dict[str, Any], tmp_path: Path, change: dict[str, str], message: str
) -> None:
    given = {name.replace("_", "-"): str(value) for name, value in options.items()}
    given |= {"axis": "gender", "model": str(inputs / "model")} | change
    model = given.pop("model")
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    code, said = levelhead("run", model, "--out", str(tmp_path / "run"), *flags)
    assert code == 2, said
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists(), "nothing was started"


def test_a_folder_with_another_run_is_not_overwritten(
    inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    from levelhead.runs import RunFolder

    RunFolder.create(tmp_path / "run", RunConfig(model=str(inputs / "model"), **options))
    code, said = levelhead("run", str(inputs / "model"), "--out", str(tmp_path / "run"))
    assert code == 2
    assert "another run" in said
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    code, said = levelhead("run", str(inputs / "model"), "--out", str(tmp_path / "mine"))
    assert code == 2
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"


def test_an_unfetched_embedded_model_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path / "cache"))
    code, said = levelhead("demo", "--out", str(tmp_path / "run"))
    assert code == 2
    assert "levelhead fetch-model" in said


def test_a_model_that_was_forgotten_is_not_the_embedded_one(tmp_path: Path) -> None:
    code, said = levelhead("run", "--out", str(tmp_path / "run"))
    assert code == 2
    assert "Missing argument 'MODEL'" in said
    assert not (tmp_path / "run").exists()


def test_select_prints_only_what_was_chosen(table: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(
        cli.cli, ["select", str(table), "--axis", "gender", "--alpha", "0.25", "--json"]
    )
    assert json.loads(result.stdout) == {
        "method": "fasp", "gamma": 0.3, "alpha": 0.25, "heads": [[0, 0], [0, 1]],
    }  # fmt: skip


def test_help_answers_quickly_and_names_every_command() -> None:
    call = [sys.executable, "-m", "levelhead", "--help"]
    times = []
    for _ in range(3):
        start = time.monotonic()
        text = subprocess.run(call, capture_output=True, text=True, check=True).stdout
        times.append(time.monotonic() - start)
    assert min(times) < 0.5
    for command in (
        "run",
        "score",
        "select",
        "prune",
        "evaluate",
        "report",
        "diagnose",
        "fetch-model",
    ):
        assert command in text
        help_of = CliRunner().invoke(cli.cli, [command, "--help"])
        assert help_of.exit_code == 0


def test_options_are_the_same_everywhere() -> None:
    """The Python keywords, the fields of RunConfig and the flags of run agree."""
    names = {spec.name for spec in fields(RunConfig)} - {"model"}
    assert set(get_type_hints(RunOptions)) == names
    flags = {p.name: p.default for p in cli.cli.commands["run"].params}
    assert names <= set(flags)
    for spec in fields(RunConfig):
        if spec.name != "model":
            assert flags[spec.name] == spec.default, spec.name


def test_one_threshold_of_reliability() -> None:
    flags = {p.name: p.default for p in cli.cli.commands["select"].params}
    assert flags["min_reliability"] == MIN_RELIABILITY == RunConfig().reliability


def test_a_ranking_of_noise_is_refused_with_exit_code_3(
    inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    """And a ranking that is not noise is not refused."""
    from levelhead import score

    few = options | {"samples": 1, "max_prompts": 12, "new_tokens": 2, "max_samples": 1}
    score(str(inputs / "model"), out=tmp_path / "run", **few)
    details = json.loads((tmp_path / "run/details.json").read_text())
    details["axes"]["gender"] |= {"reliability": 0.6, "measurable": True}
    runs.write_text(tmp_path / "run/details.json", json.dumps(details))
    code, said = levelhead("select", str(tmp_path / "run"), "--alpha", "0.2")
    assert code == 0, said
    assert "of 3 are selected in at least 80% of 400 resamples" in said
    code, said = levelhead("select", str(tmp_path / "run"), "--alpha", "0.2", "--core", "0.01")
    assert code == 0, said
    assert "of 3 (of 3 that the method selects) are selected" in said
    strict = ("--alpha", "0.2", "--min-reliability", "0.7")
    code, said = levelhead("select", str(tmp_path / "run"), *strict)
    assert code == 3
    assert "reliability 0.60, below 0.7" in said
    assert "about 1.6 times as many" in said
    (tmp_path / "run/selection.json").unlink()
    details["axes"]["gender"] |= {"reliability": 0.1, "measurable": True}
    runs.write_text(tmp_path / "run/details.json", json.dumps(details))
    code, said = levelhead("select", str(tmp_path / "run"), "--alpha", "0.2")
    assert code == 3
    assert "mostly noise" in said
    assert "--allow-unreliable" in said
    assert not (tmp_path / "run/selection.json").exists()
    code, _ = levelhead("select", str(tmp_path / "run"), "--alpha", "0.2", "--allow-unreliable")
    assert code == 0
    selection = json.loads((tmp_path / "run/selection.json").read_text())
    assert selection["reliable"] is False
    # One rule for all that choose heads: run and retry refuse what select refuses.
    (tmp_path / "run/selection.json").unlink()
    kept = {name: str(value) for name, value in few.items() if name != "axis"}
    flags = ["--axis", "gender", "--out", str(tmp_path / "run"), "--quiet"]
    flags += [part for name, value in kept.items() for part in (f"--{_dashed(name)}", value)]
    code, said = levelhead("run", str(inputs / "model"), *flags)
    assert code == 3
    assert "mostly noise" in said
    assert "--allow-unreliable" in said
    assert not (tmp_path / "run/model").exists()
    code, said = levelhead("retry", str(tmp_path / "run"), "--alpha", "0.2")
    assert code == 3
    assert not (tmp_path / "run/attempts").exists(), "nothing is left of it"
    code, said = levelhead("run", str(inputs / "model"), *flags, "--allow-unreliable")
    assert code == 0, said
    assert json.loads((tmp_path / "run/evaluation.json").read_text())["reliable"] is False
    assert "is not reliable" in said, "who signs the result reads it"


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def test_everything_that_is_missing_is_listed_at_once_the_model_first(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline: nothing is looked for on the network, and a mistyped folder is told first."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path / "cache"))
    mistyped = inputs / "modle"
    flags = ["--out", str(tmp_path / "run"), "--offline", "--prompts", "holistic-bias"]
    flags += ["--second-toxicity", "./no-scorer", "--price-text", "no-text.txt"]
    code, said = levelhead("run", str(mistyped), *flags)
    assert code == 2
    lines = [line for line in said.splitlines() if " is called " not in line]
    assert lines[0] == "levelhead: 6 things keep this run from starting; nothing was done:"
    assert lines[1].startswith(f"  1. model: no such folder: {mistyped} (did you mean ")
    for line, (what, remedy) in zip(
        lines[2:],
        [
            ("prompts", "--prompts holistic-bias:FOLDER"),
            ("toxicity scorer detoxify", " toxicityclassifier needs no network"),
            ("second scorer ./no-scorer", " FOLDER reads a saved model"),
            ("text wikitext-2", "--text pydoc"),
            ("text no-text.txt", "give a file or one of"),
        ],
        strict=True,
    ):
        assert line[5:].startswith(what)
        assert remedy in line
    assert not (tmp_path / "run").exists()
    code, said = levelhead("run", str(mistyped), "--out", str(tmp_path / "run"), "--offline",
                           "--toxicity", "profanity-check", "--text", "pydoc")  # fmt: skip
    assert code == 2
    lines = [line for line in said.splitlines() if " is called " not in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"levelhead: no such folder: {mistyped} (did you mean ")


def test_a_folder_without_tokenizer_and_a_missing_text_are_told_together(
    inputs: Path, tmp_path: Path
) -> None:
    """The tokenizer is looked at before weights are read, as a text is."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((inputs / "model" / name).read_bytes())
    code, said = levelhead("run", str(folder), "--out", str(tmp_path / "run"), "--offline",
                           "--toxicity", "profanity-check", "--text", "no-text.txt")  # fmt: skip
    assert code == 2
    assert "1. model: " in said
    assert "no tokenizer" in said
    assert "2. text no-text.txt: " in said
