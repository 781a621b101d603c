"""Faults during work: scorers that break, signals, disks, and what the log says of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from levelhead import runs
from levelhead.cli import cli
from levelhead.cli.progress_options import LONG
from levelhead.config import RunConfig
from levelhead.errors import RunFolderError, ScorerError
from levelhead.journal import sums, watch
from levelhead.journal.store import unwritable
from levelhead.runs import RunFolder
from levelhead.toxicity import base
from levelhead.toxicity.base import score_texts

TEXTS = [f"text {n}" for n in range(600)]


class Scorer:
    """Answers by a function of the texts."""

    name, identity = "broken", "broken:1"

    def __init__(self, answer: Callable[[Sequence[str]], Any], cost: Any = "expensive") -> None:
        self.answer, self.cost, self.calls = answer, cost, 0

    def __call__(self, texts: Sequence[str]) -> Any:
        self.calls += 1
        return self.answer(texts)


def fails_on(bad: str, error: Exception) -> Callable[[Sequence[str]], Any]:
    def answer(texts: Sequence[str]) -> Any:
        if bad in texts:
            raise error
        return np.zeros(len(texts))

    return answer


@pytest.mark.parametrize("cost", ["cheap", "expensive"])
def test_a_scorer_that_raises_is_told_with_the_text(cost: str) -> None:
    bad = "text 333"
    with pytest.raises(ScorerError, match=r"ValueError: 'no'.*'text 333'; all finished"):
        score_texts(Scorer(fails_on(bad, ValueError("no")), cost), TEXTS)


def test_texts_are_escaped_and_shortened() -> None:
    bad = "\x1b[31mred \u202e" + "x" * 500
    with pytest.raises(ScorerError) as error:
        score_texts(Scorer(fails_on(bad, ValueError("\x1b[2J"))), [*TEXTS, bad])
    said = str(error.value)
    assert said.isprintable()
    assert said.isascii()
    assert len(said) < 400


def test_a_scorer_that_fails_now_and_then_names_what_it_was_asked() -> None:
    calls = []

    def answer(texts: Sequence[str]) -> Any:
        calls.append(texts)
        if len(calls) == 1:
            raise ValueError("once")
        return np.zeros(len(texts))

    with pytest.raises(ScorerError, match="3 texts, the first of them 'a', 'b', 'c'"):
        score_texts(Scorer(answer), ["a", "b", "c"])


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5, np.inf])
def test_scores_out_of_range_are_told_with_their_texts(value: float) -> None:
    def answer(texts: Sequence[str]) -> Any:
        return np.where([text in ("text 5", "text 7") for text in texts], value, 0.5)

    with pytest.raises(ScorerError, match=r"2 texts, the first of them 'text 5', 'text 7'"):
        score_texts(Scorer(answer), TEXTS)


def test_the_wrong_number_of_scores_is_told() -> None:
    with pytest.raises(ScorerError, match=r"shape \(255,\) for 256 texts"):
        score_texts(Scorer(lambda texts: np.zeros(len(texts) - 1)), TEXTS)


def test_texts_that_do_not_fit_in_memory_are_halved() -> None:
    sizes = []

    def answer(texts: Sequence[str]) -> Any:
        sizes.append(len(texts))
        if len(texts) > 100:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return np.array([int(text.split()[1]) / 1000 for text in texts])

    assert np.array_equal(score_texts(Scorer(answer), TEXTS), np.arange(600) / 1000)
    assert max(size for size in sizes if size <= 100) == 88  # 600 = 256 + 256 + 88


def test_answers_before_a_fault_are_kept(tmp_path: Path) -> None:
    from levelhead import journal

    fails = Scorer(fails_on("text 599", ValueError("no")))
    good = Scorer(lambda texts: np.zeros(len(texts)))
    with pytest.raises(ScorerError), journal.stage(tmp_path, "score", {}):
        score_texts(fails, TEXTS)
    with journal.stage(tmp_path, "score", {}):
        score_texts(good, TEXTS)
    assert good.calls == 1 == len(TEXTS) // base.CHUNK - 1


@pytest.mark.parametrize("number", [28, 122])
def test_a_full_disk_is_called_that(tmp_path: Path, number: int) -> None:
    error = unwritable(tmp_path / "file", OSError(number, os.strerror(number)))
    assert f"no space left on the disk of {tmp_path}" in str(error)
    assert "goes on" in str(error)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    runs.write_json(path, {"old": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="no space left"):
        runs.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_between_a_file_and_its_checksum_leaves_neither_wrong(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig(model="m"))
    path = folder.path / "file.json"
    with runs.working(folder.path, "test"):
        runs.write_json(path, {"old": 1})
        sums.record(path, b"what was never renamed into place")
        assert sums.is_whole(path)
        sums.record(path, b"nor this")
        assert sums.is_whole(path)
        runs.write_json(path, {"new": 2})
        assert sums.is_whole(path)
        path.write_text('{"old": 1}')
        assert not sums.is_whole(path)


def test_what_a_killed_process_left_is_tidied_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RunConfig(model="m")).path
    left = [
        folder / ".scores.csv.ab3_x9zz",
        folder / ".model-12345678",
        folder / "work/.x.00000012",
    ]
    kept = [folder / ".gitignore", folder / ".notes.txt", folder / "own.csv"]
    left[1].mkdir()
    (folder / "work").mkdir()
    for path in (left[0], left[2], *kept):
        path.write_text("x")
    with runs.working(folder, "test"):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_the_log_is_bounded_and_every_line_is_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOG_BYTES", 2000)
    with watch.watching(tmp_path, "score"):
        for number in range(100):
            watch.event("event", number=number, text="\x1b[31m\n")
    lines = [
        json.loads(line)
        for name in (watch.OLDER_LOG, watch.LOG)
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert lines[-1]["event"] == "done"
    assert {"time", "level", "event", "command", "pid", "stage"} <= set(lines[0])
    assert (tmp_path / watch.LOG).stat().st_size < 2500


def test_every_long_command_can_be_quiet() -> None:
    for name in LONG:
        flags = {option for param in cli.commands[name].params for option in param.opts}
        assert {"--quiet", "--progress"} <= flags, name


@pytest.mark.parametrize(("flag", "lines"), [(["--quiet"], 0), (["--progress", "json"], 1)])
def test_progress_for_machines_and_for_nobody(
    inputs: Path, options: dict[str, Any], tmp_path: Path, flag: list[str], lines: int
) -> None:
    given = ["--prompts", options["prompts"], "--text", options["text"], "--axis", "gender"]
    given += ["--samples", "1", "--new-tokens", "4", "--text-tokens", "300"]
    given += ["--scorer", "profanity-check", "--max-samples", "1"]
    done = CliRunner().invoke(
        cli, ["score", str(inputs / "model"), "--out", str(tmp_path / "run"), *given, *flag]
    )
    assert done.exit_code == 0, done.output
    said = [line for line in done.stderr.splitlines() if line and "Loading weights" not in line]
    if not lines:
        assert not any(word in done.stderr for word in ("plan:", "sampling (", "gradients ("))
        return
    events = [json.loads(line) for line in said if line.startswith("{")]
    assert events[0]["event"] == "begins"
    assert {"task", "done", "total", "seconds", "seconds_left"} <= set(events[0])
    last = [event for event in events if event["event"] == "ends"]
    assert all(event["done"] == event["total"] for event in last)
    told = CliRunner().invoke(cli, ["status", str(tmp_path / "run"), "--json"])
    found = json.loads(told.stdout)
    assert found["stages"]["score"]["state"] == "done"
    assert found["stages"]["score"]["done"] > 0
    assert found["stages"]["evaluate"]["state"] == "to do"
    assert found["reliability"]["gender"]["samples"] == 1
    assert "score" in CliRunner().invoke(cli, ["status", str(tmp_path / "run")]).stdout


PROGRAM = """
import signal, sys, time
from levelhead.cli.app import cli, main

@cli.command()
def wait():
    print("ready", flush=True)
    {body}

sys.argv = ["levelhead", "wait"]
main()
"""
POLITE = "time.sleep(60)"
# A call that does not come back to Python for many seconds, as one of torch's may not.
DEAF = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'x', b'y', 100_000_000)"


@pytest.mark.parametrize(
    ("body", "number", "code"),
    [
        (POLITE, signal.SIGINT, 130), (POLITE, signal.SIGTERM, 143),
        (DEAF, signal.SIGINT, 130), (DEAF, signal.SIGTERM, 143),
    ],
)  # fmt: skip
def test_signals_end_within_two_seconds(body: str, number: int, code: int) -> None:
    child = _started(body)
    begun = time.monotonic()
    child.send_signal(number)
    _, said = child.communicate(timeout=30)
    assert time.monotonic() - begun < 2
    assert child.returncode == code
    assert said.count("the same command goes on from there") == 1
    assert "Traceback" not in said


def test_a_second_ctrl_c_ends_at_once() -> None:
    child = _started(DEAF)
    child.send_signal(signal.SIGINT)
    time.sleep(0.2)
    begun = time.monotonic()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert time.monotonic() - begun < 0.5
    assert child.returncode == 130


def _started(body: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Whoever runs the tests in the background has it ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child
