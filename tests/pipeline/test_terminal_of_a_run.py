"""What a run shows: captured from a terminal of 80 and of 60 columns, and piped."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from levelhead import cli
from levelhead.journal.status import STAGES

NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*%?")


class Terminal:
    """A pseudo-terminal and what stands on it; it knows what progress lines use."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        self.file = os.fdopen(slave, "w", encoding="utf-8", newline="")
        self.sent = b""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        while True:
            try:
                got = os.read(self.master, 65536)
            except OSError:  # Linux says so where the other end is closed
                return
            if not got:
                return
            self.sent += got

    def close(self) -> list[str]:
        """The lines on the screen when all is said."""
        self.file.close()
        self.reader.join(30)
        os.close(self.master)
        lines, row = [""], 0
        for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.sent.decode()):
            if part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif part == "\x1b[2K":
                lines[row] = ""
            elif up := re.fullmatch(r"\x1b\[(\d+)A", part):
                row -= int(up[1])
            elif part != "\r" and not part.startswith("\x1b"):
                lines[row] += part
        return [line.rstrip() for line in lines]


def command(arguments: list[str], monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    """The screen after a command on a terminal that is so wide."""
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, terminal.file)
    monkeypatch.setattr(sys, "argv", ["levelhead", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    screen = terminal.close()
    assert stop.value.code == 0, screen
    return screen


def piped(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Standard output and standard error of a command without a terminal."""
    streams = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr(sys, "argv", ["levelhead", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0, streams[1].getvalue()
    return streams[0].getvalue(), streams[1].getvalue()


@pytest.fixture(scope="module")
def flags(inputs: Path, options: dict[str, Any]) -> list[str]:
    given = options | {"axis": "gender"}
    named = {"--" + name.replace("_", "-"): str(value) for name, value in given.items()}
    return [str(inputs / "model"), *(part for pair in named.items() for part in pair)]


@pytest.fixture(scope="module")
def first(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A run without a terminal: its folder, standard output and standard error."""
    run = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield run, *piped(["run", *flags, "--out", str(run)], monkeypatch)


def stage_lines(lines: list[str]) -> list[str]:
    states = r": done|  +(done|kept)"
    return [line for line in lines if re.match(rf"({'|'.join(STAGES)})({states})", line)]


def test_piped_every_message_is_one_line(first: tuple[Path, str, str]) -> None:
    _, out, err = first
    lines = err.splitlines()
    assert [line.split(":")[0] for line in stage_lines(lines)] == list(STAGES)
    beginnings = ("plan: ", "evaluation tells ", "warning: ", "report: ", "model: ", "next: ",
                  "      levelhead ", "Ready", "Your decision", "Not ready",
                  "levelhead: --")  # fmt: skip
    rest = [line for line in lines if line not in stage_lines(lines)]
    assert all(line.startswith(beginnings) for line in rest), rest
    assert max(map(len, lines)) > 120, "the control: there are messages longer than a terminal"
    assert "\x1b" not in out + err
    headline = next(line for line in out.splitlines() if line.startswith("Removing "))
    assert headline.endswith("."), "all of it"


@pytest.mark.parametrize(("columns", "alpha"), [(80, "0.12"), (60, "0.18")])
def test_on_a_terminal_a_run_is_five_lines_and_no_number_is_broken(
    first: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch, columns: int, alpha: str
) -> None:
    run = first[0]
    screen = command(["retry", str(run), "--alpha", alpha], monkeypatch, columns)
    shown = stage_lines(screen)
    assert [line.split()[0] for line in shown] == list(STAGES), "once, and no bars"
    assert shown[0] == "score     kept"
    assert re.fullmatch(r"took \d+ s", screen[screen.index(shown[-1]) + 1])
    too_wide = [line for line in screen if len(line) > columns]
    assert all(line.startswith("      levelhead ") or str(run) in line for line in too_wide)
    # Every number that is printed without a terminal stands whole on one.
    with pytest.MonkeyPatch.context() as other:
        out, err = piped(["retry", str(run), "--alpha", alpha], other)
    said = " ".join(line for line in (out + err).splitlines() if str(run) not in line)
    said = re.sub(r"(done in|took|stopped after) .*? s\b|plan: .*? 0\.5\b", "", said)
    on_screen = set(NUMBER.findall("\n".join(screen)))
    assert len(NUMBER.findall(said)) > 50
    assert set(NUMBER.findall(said)) <= on_screen


def test_the_plan_wraps_between_words(
    flags: list[str], first: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a finished run: what it was is told, that nothing is to do, and what it found."""
    run, _, err = first
    screen = command(["run", *flags, "--out", str(run)], monkeypatch, 60)
    plan = next(line for line in err.splitlines() if line.startswith("plan: "))
    place = next(i for i, line in enumerate(screen) if line.startswith("plan: "))
    assert " ".join(screen[place:]).startswith(plan), "no word and no number was cut"
    assert "score     done before" in screen
    assert "evaluate  done before" in screen
    assert any(line.startswith("nothing to do: ") for line in screen)


def test_no_row_has_a_difference_of_other_values_than_stand_beside_it(
    first: tuple[Path, str, str],
) -> None:
    """Values as sampled beside a difference less noise do not add up, and look as if they did."""
    rows = 0
    for line in first[1].splitlines():
        found = re.fullmatch(r"  (\S.*?)  +([-+.\d]+)  +([-+.\d]+)  +([-+.\d]+)", line)
        if found:
            base, pruned, difference = (float(value) for value in found.groups()[1:])
            digits = len(found[4].partition(".")[2])
            assert pruned - base == pytest.approx(difference, abs=2.1 * 10**-digits), line
            rows += 1
    assert rows >= 4


def test_the_cut_is_at_the_end_of_a_line_not_in_its_numbers() -> None:
    from rich.console import Console

    from levelhead.console.progress import _Lines
    from levelhead.console.stages import Board

    board = Board()
    with board.stage("score"), board.task("reading " + "very " * 20 + "much", 123_456) as advance:
        advance(12_345)
        out = io.StringIO()
        Console(file=out, width=40).print(_Lines(board))
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("score     12,345 of 123,456, reading")
    assert max(map(len, lines)) <= 40
