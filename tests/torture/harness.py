"""Kill a command at a random moment, give it again, and compare what is there in the end.

A parent that has imported everything forks a child for every attempt, so that an attempt costs what
the command itself does. Nothing is simulated: the child gets a real SIGKILL.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from levelhead import pipeline
from levelhead.journal import store
from levelhead.runs import WORK

Command = Callable[[Path], Any]


class StoppedError(Exception):
    """A progress ended the run."""


LONGEST = 300.0
"""Seconds after which a child is taken for hung."""


def commands(inputs: Path, options: dict[str, Any]) -> dict[str, Command]:
    """The commands of a run in order, each a function of the run folder."""
    model = str(inputs / "model")
    return {
        "score": lambda run: pipeline.score(model, out=run, **options),
        "select": lambda run: pipeline.select(run, gamma=0.2, alpha=0.06),
        "prune": lambda run: pipeline.prune(run),
        "evaluate": lambda run: pipeline.evaluate(run),
        "compare": lambda run: pipeline.compare(
            run, methods=("fasp", "random"), alphas=(0.06, 0.12), gammas=(0.1, 0.3), draws=1,
            sample_at=(0.06,), seeds=1,
        ),
        "report": lambda run: pipeline.report(run),
    }  # fmt: skip


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of every final file; work/ is what is needed to get there, and holds times.

    The page names the folder in the commands it offers: that is taken out.
    """
    found = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and WORK not in path.relative_to(run).parts:
            content = path.read_bytes()
            if path.name.startswith("report."):
                content = content.replace(str(run).encode(), b"RUN")
            found[path.relative_to(run).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def start(command: Command, run: Path, log: Path, *, commit_every: float | None = None) -> int:
    """Run a command in a child; its process id."""
    with warnings.catch_warnings():
        # torch has threads of its own by now, which a child cannot use: it takes one.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(written, 1)
        os.dup2(written, 2)
        if commit_every is not None:
            store.COMMIT_EVERY = commit_every
        torch.set_num_threads(1)
        command(run)
        code = 0
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """Its exit code; negative: the signal that ended it."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"a child did not end within {LONGEST:g} s")


@dataclass
class Torture:
    """Snapshots of an uninterrupted run before each command, and how long each took."""

    folder: Path
    commands: dict[str, Command]
    seconds: dict[str, float] = field(default_factory=dict)
    wanted: dict[str, dict[str, str]] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    late: int = 0
    """Commands that were done before they could be killed."""

    @property
    def log(self) -> Path:
        """What the children wrote."""
        return self.folder / "log.txt"

    def prepare(self) -> None:
        """Run everything once without interruption."""
        run = self.folder / "run"
        for name, command in self.commands.items():
            if run.exists():
                shutil.copytree(run, self.folder / f"before-{name}")
            begun = time.monotonic()
            code = wait(start(command, run, self.log))
            assert code == 0, self.log.read_text()
            self.seconds[name] = time.monotonic() - begun
            self.wanted[name] = digests(run)

    def attempt(self, name: str, rng: np.random.Generator, most: int = 4) -> list[str]:
        """Kill a command up to `most` times and finish it; the files that came out otherwise."""
        run = self.folder / f"killed-{name}" / "run"  # its name is in compare.json
        shutil.rmtree(run.parent, ignore_errors=True)
        run.parent.mkdir()
        before = self.folder / f"before-{name}"
        if before.exists():
            shutil.copytree(before, run)
        command = self.commands[name]
        for _ in range(int(rng.integers(1, most + 1))):
            commit_every = 0.0 if rng.random() < 0.7 else None
            child = start(command, run, self.log, commit_every=commit_every)
            time.sleep(float(rng.uniform(0, self.seconds[name])))
            os.kill(child, signal.SIGKILL)
            code = wait(child)
            if code != -signal.SIGKILL:
                assert code == 0, self.log.read_text()[-4000:]
                self.late += 1
                break
            self.kills[name] = self.kills.get(name, 0) + 1
        code = wait(start(command, run, self.log))
        assert code == 0, self.log.read_text()[-4000:]
        found = digests(run)
        wanted = self.wanted[name]
        return sorted(file for file in {*found, *wanted} if found.get(file) != wanted.get(file))
