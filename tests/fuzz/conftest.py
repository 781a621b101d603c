"""Valid inputs to damage, and counts of what was tried (`make fuzz` prints them)."""

from __future__ import annotations

import pytest
from tests.experiments.conftest import finished, inputs, options
from tests.fuzz.counts import TRIED

__all__ = ["finished", "inputs", "options"]


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
