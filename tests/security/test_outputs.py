"""What people see of hostile text: terminal, tables for spreadsheets, error messages."""

from __future__ import annotations

import copy
import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.experiments.conftest import finished, inputs, options
from tests.reporting import synthetic

from levelhead.cli.progress_options import tell
from levelhead.console.axes import glance_summary
from levelhead.console.sets import examples_summary, interactions_summary
from levelhead.console.summaries import evaluation_summary, warn
from levelhead.console.transfer import transfer_summary
from levelhead.experiments.glance import glance
from levelhead.reporting.escape import spreadsheet_safe

__all__ = ["finished", "inputs", "options"]

CONTROLS = ("\x1b", "\x07", "\u202e", "\u2066", "\u200b", "\x9b")
HOSTILE = "[red]x[/red]" + "".join(CONTROLS) + "]8;;http://x\x1b\\y"


SUMMARIES: dict[str, tuple[Callable[[Any], None], Callable[[], Any]]] = {
    "evaluation": (evaluation_summary, synthetic.evaluation),
    "interactions": (interactions_summary, synthetic.interactions),
    "examples": (examples_summary, synthetic.examples),
    "transfer": (transfer_summary, synthetic.transfer),
}


def poisoned(value: Any) -> Iterator[Any]:
    """Copies with one text or one key replaced by hostile text, everywhere it occurs."""
    texts = sorted({t for t in _texts(value) if t})
    for text in texts:
        yield json.loads(json.dumps(_replaced(copy.deepcopy(value), text)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value


def _replaced(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {HOSTILE if k == text else k: _replaced(v, text) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(one, text) for one in value]
    return HOSTILE if value == text else value


@pytest.mark.parametrize("name", [*SUMMARIES, "heads"])
def test_no_result_controls_the_terminal(
    name: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show, make = SUMMARIES.get(name, (glance_summary, lambda: glance(finished)))
    found = json.loads(json.dumps(make()))
    show(found)
    assert capsys.readouterr().out.strip()
    shown = 0
    for hostile in poisoned(found):
        try:
            show(hostile)
        except (KeyError, TypeError, ValueError, IndexError, StopIteration):
            capsys.readouterr()  # the text was a field's name or one of a few words
            continue
        printed = capsys.readouterr()
        output = printed.out + printed.err
        assert not any(c in output for c in CONTROLS), hostile
        shown += "\\x1b" in "".join(output.split())
    assert shown  # control: hostile text did reach the terminal


def test_messages_before_work_and_warnings_are_visible(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"plan: {HOSTILE}")
    warn([HOSTILE])
    printed = capsys.readouterr()
    output = printed.out + printed.err
    assert not any(c in output for c in CONTROLS)
    assert output.count("\\x1b") >= 2


def test_errors_of_a_command_are_visible(tmp_path: Path) -> None:
    """They quote prompts, files and names."""
    prompts = tmp_path / "prompts.csv"
    prompts.write_text(f'text,axis,subgroup\n"a","{HOSTILE}","x"\n', encoding="utf-8")
    command = [sys.executable, "-m", "levelhead", "heads", str(tmp_path / f"no{HOSTILE[:20]}"[:60])]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == 2
    output = done.stderr.decode()
    assert output.startswith("levelhead: ")
    assert not any(c in output for c in CONTROLS)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "|", "%", " =", "\u200b="])
def test_cells_are_no_formulas(start: str) -> None:
    cell = spreadsheet_safe(f"{start}cmd|' /C calc'!A0")
    if start.strip("\u200b ")[:1] in ("=", "+", "-", "@") or start in "\t\r\n":
        assert cell.startswith("'")
    assert spreadsheet_safe(cell) == cell


@pytest.mark.parametrize("value", [-1.5, 3, None, True, "", "fasp", "gender-and-sex", "a=b"])
def test_numbers_and_ordinary_texts_stay(value: object) -> None:
    assert spreadsheet_safe(value) is value


def test_tidy_tables_are_safe_and_numbers_stay_numbers() -> None:
    frame = pd.DataFrame({"axis": ["=1+1", "ok"], "value": [-0.5, 2.0]})
    text = frame.map(spreadsheet_safe).to_csv(index=False)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["axis"] for row in rows] == ["'=1+1", "ok"]
    assert [float(row["value"]) for row in rows] == [-0.5, 2.0]
