"""Runs of tiny models, stopped and killed: what is there in the end is the same to the last bit."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from tests.torture.harness import StoppedError, Torture, commands, digests, start, wait

import levelhead
from levelhead import runs
from levelhead.errors import LevelheadError, RunFolderError
from levelhead.journal.lock import holder
from levelhead.journal.status import read_status
from levelhead.progress import silent


def slow(name: str) -> Any:
    """A case that only the slow tier takes."""
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def torture(
    inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Torture:
    """An uninterrupted run, with a copy of it before every command."""
    found = Torture(tmp_path_factory.mktemp("torture"), commands(inputs, options))
    found.prepare()
    return found


@pytest.mark.parametrize("name", ["score", slow("evaluate"), slow("compare"), "prune", "report"])
def test_what_is_killed_goes_on_and_ends_the_same(torture: Torture, name: str) -> None:
    """One to two kills each; `make torture` does hundreds."""
    rng = np.random.default_rng(len(name))
    assert torture.attempt(name, rng, most=2) == []


@pytest.mark.parametrize(
    "estimator", [slow("token-gradient"), slow("finite"), "hybrid", slow("ablate")]
)
def test_every_estimator_goes_on(
    inputs: Path, options: dict[str, Any], tmp_path: Path, stops: Any, estimator: str
) -> None:
    given = options | {"estimator": estimator, "samples": 2, "text_tokens": 300}
    model, seen = str(inputs / "model"), []

    def score(out: Path, progress: Any = silent) -> None:
        levelhead.score(model, out=out, progress=progress, **given)

    score(tmp_path / "whole")
    for count in (7, 3):  # stopped twice, at other places
        with pytest.raises(StoppedError):
            score(tmp_path / "stopped", stops(count))
        seen.append(read_status(tmp_path / "stopped")["stages"]["score"])
    score(tmp_path / "stopped")
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")
    done = read_status(tmp_path / "stopped")["stages"]["score"]
    assert done["reused"] >= seen[0]["kept"] > 0
    assert (done["state"], done["left"], done["kept"]) == ("done", 0, 0)


@pytest.mark.slow
def test_a_changed_prompt_reuses_nothing(
    inputs: Path, options: dict[str, Any], tmp_path: Path, stops: Any
) -> None:
    """The same command and config.json, but the file behind --prompts is another now."""
    prompts = tmp_path / "prompts.csv"
    prompts.write_text((inputs / "prompts.csv").read_text())
    given = options | {"prompts": str(prompts), "samples": 1, "text_tokens": 300}
    model = str(inputs / "model")
    with pytest.raises(StoppedError):
        levelhead.score(model, out=tmp_path / "run", progress=stops(9), **given)
    prompts.write_text(prompts.read_text().replace("they say", "we say"))
    levelhead.score(model, out=tmp_path / "run", **given)
    levelhead.score(model, out=tmp_path / "fresh", **given)
    assert read_status(tmp_path / "run")["stages"]["score"]["reused"] == 0
    for name in (runs.SCORES, runs.CONTINUATIONS):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    # And a finished stage is not taken for that of other prompts.
    prompts.write_text(prompts.read_text().replace("we say", "you say"))
    before = (tmp_path / "run" / runs.SCORES).read_bytes()
    levelhead.score(model, out=tmp_path / "run", **given)
    assert (tmp_path / "run" / runs.SCORES).read_bytes() != before


def test_another_processor_reuses_no_batch_of_an_unfinished_stage(
    inputs: Path, options: dict[str, Any], tmp_path: Path, stops: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its rounding is another; batches of both would be the bits of neither."""
    given = options | {"samples": 1, "text_tokens": 300}
    model, run = str(inputs / "model"), tmp_path / "run"
    with pytest.raises(StoppedError):
        levelhead.score(model, out=run, progress=stops(9), **given)
    assert read_status(run)["stages"]["score"]["kept"] > 0
    other = {"processor": "another", "instructions": "AVX2"}
    monkeypatch.setattr("levelhead.stages.fingerprints.arithmetic", lambda: other)
    levelhead.score(model, out=run, **given)
    assert read_status(run)["stages"]["score"]["reused"] == 0


@pytest.mark.slow
def test_time_budgets_decide_alike(
    inputs: Path, options: dict[str, Any], tmp_path: Path, stops: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """How many samples a clock allowed is not asked again."""
    given = options | {"samples": 1, "reliability": 0.99, "max_samples": 2, "time_budget": 5.0}
    given |= {"text_tokens": 300}
    model = str(inputs / "model")
    levelhead.score(model, out=tmp_path / "whole", **given)
    asked = json.loads((tmp_path / "whole" / runs.DETAILS).read_text())["axes"]["gender"]
    assert asked["samples"] == 2
    with pytest.raises(StoppedError):
        levelhead.score(model, out=tmp_path / "run", progress=stops(50), **given)
    kept = read_status(tmp_path / "run")["stages"]["score"]["kept"]
    assert kept > 10
    levelhead.score(model, out=tmp_path / "run", **given)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")


def test_two_processes_do_not_work_on_one_run(torture: Torture, tmp_path: Path) -> None:
    run = tmp_path / "run"
    copytree(torture.folder / "before-evaluate", run)
    child = start(lambda _: _hold(run), run, tmp_path / "log")
    try:
        end = time.monotonic() + 30
        while holder(run / "work") != child and time.monotonic() < end:
            time.sleep(0.01)
        with pytest.raises(RunFolderError, match=f"pid {child}"):
            levelhead.evaluate(run)
        with pytest.raises(RunFolderError, match="levelhead status"):
            levelhead.select(run)
        found = read_status(run)  # reading is no work
        assert found["running"]
        assert found["pid"] == child
        assert levelhead.heads(run)
    finally:
        os.kill(child, signal.SIGKILL)
        wait(child)
    assert read_status(run)["state"] == "killed"
    levelhead.select(run, gamma=0.2, alpha=0.06)  # the lock died with its holder


def _hold(run: Path) -> None:
    with runs.working(run, "test"):
        time.sleep(60)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "bit flip": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
}


@pytest.mark.parametrize("kind", [slow("cut"), "bit flip"])
@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("select", "scores.csv"), ("select", "details.json"), ("select", "halves.safetensors"),
        ("prune", "selection.json"), ("evaluate", "selection.json"),
        ("evaluate", "model/model.safetensors"), ("evaluate", "model/generation_config.json"),
        ("evaluate", "continuations.jsonl"), ("evaluate", "config.json"),
        ("report", "evaluation.json"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_never_used(
    torture: Torture, tmp_path: Path, command: str, file: str, kind: str
) -> None:
    run = tmp_path / "run"
    copytree(torture.folder / f"before-{command}", run)
    path = run / file
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    with pytest.raises(LevelheadError):
        torture.commands[command](run)
    assert file in read_status(run)["damaged"] or file.endswith(".safetensors")


def test_scoring_again_mends_a_damaged_score(torture: Torture, tmp_path: Path) -> None:
    run = tmp_path / "run"
    copytree(torture.folder / "before-select", run)
    (run / runs.HALVES).write_bytes(b"")
    child = start(torture.commands["score"], run, torture.log)  # as it was scored at first
    assert wait(child) == 0, torture.log.read_text()[-4000:]
    assert digests(run) == torture.wanted["score"]


def test_a_file_changed_on_purpose_can_be_used_when_that_is_said(
    torture: Torture, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    copytree(torture.folder / "before-prune", run)
    path = run / runs.SELECTION
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data))
    with pytest.raises(RunFolderError, match="if it was changed on purpose, delete") as error:
        levelhead.prune(run)
    entry = Path(str(error.value).rsplit("delete ", 1)[1])
    assert entry.is_relative_to(run)
    entry.unlink()
    levelhead.prune(run)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(torture: Torture, tmp_path: Path) -> None:
    run = tmp_path / "run"
    copytree(torture.folder / "before-evaluate", run)
    (run / "work").chmod(0o500)
    with pytest.raises(RunFolderError, match="cannot write to"):
        levelhead.evaluate(run)
