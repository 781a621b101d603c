"""What to do next with this very result, as commands to copy."""

from __future__ import annotations

from levelhead.reporting.content import Section
from levelhead.reporting.findings import Findings
from levelhead.reporting.next_steps import steps_of

KEY = "next"


def next_steps(findings: Findings) -> Section | None:
    """A list of reasons and commands; None where there is no run folder to name."""
    found = steps_of(findings)
    if not found:
        return None
    points = tuple((step.why, step.command) for step in found)
    return Section(key=KEY, title="What to do next", commands=True, points=points)
