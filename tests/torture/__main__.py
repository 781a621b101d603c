"""make torture: kill, damage and starve a tiny run, and count what came of it.

    python -m tests.torture [--kills 200] [--seed 0] [--only kills|damage|disk]

Ends with 1 where anything came out otherwise than it should.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from tests.pipeline.conftest import run_options, write_inputs
from tests.torture.faults import KINDS, attempt_damage, damage, files_of, fill, small_disk, told
from tests.torture.harness import Torture, commands, digests, start, wait

SHARE = {"score": 0.35, "evaluate": 0.2, "compare": 0.25, "prune": 0.1, "report": 0.1}
"""Of the kills, by command."""


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def prepare(folder: Path) -> Torture:
    """Inputs, and an uninterrupted run with a copy of it before every command."""
    (folder / "inputs").mkdir()
    inputs = write_inputs(folder / "inputs")
    torture = Torture(folder, commands(inputs, run_options(inputs)))
    torture.prepare()
    return torture


def kill(torture: Torture, kills: int, rng: np.random.Generator) -> list[str]:
    """Kills at random moments until there were so many of each command; what went wrong."""
    wrong = []
    for name, share in SHARE.items():
        while torture.kills.get(name, 0) < share * kills:
            differing = torture.attempt(name, rng)
            if differing:
                wrong.append(f"{name}: {', '.join(differing)} differ")
    for name, count in torture.kills.items():
        say(f"kill -9 of {name}: {count}")
    say(f"kills: {sum(torture.kills.values())}; runs that came out otherwise: {len(wrong)}")
    return wrong


def damage_all(torture: Torture, rng: np.random.Generator) -> list[str]:
    """Every file of a run folder cut, emptied and bit-flipped in turn; what went wrong."""
    wrong, counts = [], Counter[str]()
    for name in torture.commands:
        before = torture.folder / f"before-{name}"
        if not before.exists():
            continue
        for file in files_of(before):
            if file.startswith("compare/units/") and name != "compare":
                continue  # no other command reads them
            for kind in KINDS:
                came = attempt_damage(torture, before, name, file, kind, rng)
                if came not in ("same results", "error"):
                    wrong.append(f"{name} with {file} {kind}: {came}")
                    came = "wrong"
                counts[came] += 1
    say(f"damaged files: {sum(counts.values())}; {dict(counts)}")
    return wrong


def damage_journal(torture: Torture, times: int, rng: np.random.Generator) -> list[str]:
    """The journals of killed stages cut and bit-flipped; what went wrong."""
    wrong, tried = [], 0
    for name in ("score", "evaluate", "compare"):
        for _ in range(times):
            run = torture.folder / "journal" / "run"
            shutil.rmtree(run.parent, ignore_errors=True)
            run.parent.mkdir()
            if (torture.folder / f"before-{name}").exists():
                shutil.copytree(torture.folder / f"before-{name}", run)
            child = start(torture.commands[name], run, torture.log, commit_every=0.0)
            time.sleep(float(rng.uniform(0.3, 0.9)) * torture.seconds[name])
            os.kill(child, signal.SIGKILL)
            wait(child)
            for file in sorted((run / "work").glob("*.sqlite*")):
                damage(file, KINDS[int(rng.integers(3))], rng)
                tried += 1
            code = wait(start(torture.commands[name], run, torture.log))
            found = digests(run)
            differing = [f for f, sha in torture.wanted[name].items() if found.get(f) != sha]
            if code or differing:
                wrong.append(f"{name} with a damaged journal: exit {code}, {differing}")
    say(f"damaged journal files: {tried}; wrong: {len(wrong)}")
    return wrong


def starve(torture: Torture, rng: np.random.Generator) -> list[str]:
    """Every command on a disk that fills up, then with room again; what went wrong."""
    wrong, full, tried = [], 0, 0
    disk = torture.folder / "disk"
    for name in torture.commands:
        for leave in (0, 3_000, 10_000, 30_000, 80_000, 200_000, 400_000):
            try:
                with small_disk(disk, "16m"):
                    run = disk / "run"
                    if (torture.folder / f"before-{name}").exists():
                        shutil.copytree(torture.folder / f"before-{name}", run)
                    fill(disk, leave)
                    tried += 1
                    said = torture.folder / "error.txt"
                    code = wait(start(told(torture.commands[name], said), run, torture.log))
                    full += said.exists()
                    if code or (said.exists() and "no space" not in said.read_text()):
                        end = (said if said.exists() else torture.log).read_text()[-500:]
                        wrong.append(f"{name} with {leave} bytes: exit {code}: {end}")
                    (disk / "filler").unlink(missing_ok=True)
                    code = wait(start(torture.commands[name], run, torture.log))
                    found = digests(run)
                    wanted = torture.wanted[name]
                    differing = [f for f in wanted if found.get(f) != wanted[f]]
                    if code or differing:
                        wrong.append(f"{name} after {leave} bytes: exit {code}, {differing}")
            except OSError as error:
                say(f"full disks: skipped, no tmpfs can be mounted here ({error})")
                return []
    say(f"full disks: {tried}, of which {full} ended in an error; wrong: {len(wrong)}")
    return wrong


def main() -> int:
    """Everything, or what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("kills", "damage", "disk"))
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    begun = time.monotonic()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="levelhead-torture-") as name:
        torture = prepare(Path(name))
        if given.only in (None, "kills"):
            wrong += kill(torture, given.kills, rng)
        if given.only in (None, "damage"):
            wrong += damage_journal(torture, 10, rng)
            wrong += damage_all(torture, rng)
        if given.only in (None, "disk"):
            wrong += starve(torture, rng)
    for line in wrong:
        say(f"WRONG {line}")
    say(f"{time.monotonic() - begun:.0f} s; {'all survived' if not wrong else 'NOT all survived'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
