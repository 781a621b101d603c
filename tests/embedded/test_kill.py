"""A real kill -9 of the command on the embedded model, and the same command again."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from levelhead.data.embedded import fetch_embedded_model
from levelhead.journal.status import read_status

pytestmark = pytest.mark.slow
FINAL = ("scores.csv", "details.json", "halves.safetensors", "continuations.jsonl", "config.json")


def test_a_killed_score_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    fetch_embedded_model()
    assert _score(tmp_path / "whole").wait() == 0
    whole = read_status(tmp_path / "whole")["stages"]["score"]["done"]
    kept = 0
    for share in (0.3, 0.6):
        child = _score(tmp_path / "killed")
        while child.poll() is None and kept < share * whole:
            time.sleep(0.1)
            if (tmp_path / "killed/config.json").exists():
                kept = read_status(tmp_path / "killed")["stages"]["score"]["kept"]
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert read_status(tmp_path / "killed")["state"] == "killed"
    assert _score(tmp_path / "killed").wait() == 0
    found = read_status(tmp_path / "killed")["stages"]["score"]
    assert found["done"] == whole
    assert found["reused"] >= kept > 0.5 * whole
    assert _digests(tmp_path / "killed") == _digests(tmp_path / "whole")
    log = (tmp_path / "killed/work/log.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["event"] == "begins" for line in log) == 3


def _score(out: Path) -> subprocess.Popen[bytes]:
    options = ["--max-prompts", "24", "--new-tokens", "8", "--text-tokens", "1024"]
    options += ["--max-samples", "1", "--threads", "1", "--quiet"]
    options += ["--dtype", "float32"]  # bytes are compared, and a calibration's timing is in them
    return subprocess.Popen(
        [sys.executable, "-m", "levelhead", "score", "--out", str(out), *options],
        stderr=subprocess.DEVNULL,
    )


def _digests(run: Path) -> dict[str, str]:
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in FINAL}
