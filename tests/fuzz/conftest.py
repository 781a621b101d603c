"""Valid inputs to damage, and counts of what was tried (`make fuzz` prints them)."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from tests.experiments.conftest import _one_thread, finished, inputs, options

__all__ = ["_one_thread", "finished", "inputs", "options"]

DEFAULT = 150
INPUTS = int(os.environ.get("FUZZ_INPUTS", DEFAULT))
"""Inputs per parser; `make fuzz` sets more."""
TRIED: dict[str, Counter[str]] = {}


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TRIED:
        return
    terminalreporter.write_sep("-", "inputs tried per parser")
    for name, counts in sorted(TRIED.items()):
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
        terminalreporter.write_line(f"{name:<34} {counts.total():>8,}: {kinds}")
    total = sum(counts.total() for counts in TRIED.values())
    terminalreporter.write_line(f"{'all':<34} {total:>8,}")
