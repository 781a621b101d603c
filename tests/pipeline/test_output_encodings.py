"""Standard output in an encoding that lacks the letters of a name: work is not lost to it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from levelhead import cli
from levelhead.console.terminal import output

AXIS = "الجنس"


def written_by(monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: str) -> tuple[int, str]:
    """Exit code and standard output of a command, written in an encoding."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["levelhead", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    stream.flush()
    return int(ended.value.code or 0), stream.buffer.getvalue().decode(encoding)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """A by-seed table of that axis."""
    rng = np.random.default_rng(0)
    rows = [
        (AXIS, seed, layer, head, 0.4 + 0.01 * rng.normal(), 0.14 + 0.005 * rng.normal(), 50.0)
        for seed in range(3)
        for layer in range(4)
        for head in range(6)
    ]
    names = [
        "axis",
        "seed",
        "layer",
        "head",
        "bias_without",
        "mean_toxicity_without",
        "ppl_without",
    ]
    path = tmp_path / "by_seed.csv"
    pd.DataFrame(rows, columns=names).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("encoding", ["cp1252", "iso8859-1", "koi8-r", "utf-8"])
def test_a_letter_that_cannot_be_written_is_replaced(
    monkeypatch: pytest.MonkeyPatch, table: str, encoding: str
) -> None:
    code, said = written_by(monkeypatch, encoding, "diagnose", table)
    assert code in (0, 3)
    assert AXIS.encode(encoding, "backslashreplace").decode(encoding) in said


def test_tables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich writes to the same stream, boxes and all."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(UnicodeEncodeError):
        output().print(AXIS)
    cli.app.write_any_text()
    output().print(AXIS)
    stream.flush()
    assert r"\u0627\u0644" in stream.buffer.getvalue().decode("cp1252")
