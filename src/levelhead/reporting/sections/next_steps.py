"""What to do next with this very result, as commands to copy."""

from __future__ import annotations

from levelhead.reporting.content import Section
from levelhead.reporting.findings import Findings
from levelhead.reporting.next_steps import next_steps as steps


def next_steps(findings: Findings) -> Section | None:
    """A list of reasons and commands; None where there is no run folder to name."""
    if not findings.run or not findings.evaluation:
        return None
    found = steps(
        findings.run,
        findings.evaluation,
        findings.details,
        findings.selection.to_json(),
        findings.config,
    )
    if not found:
        return None
    return Section(
        key="next",
        title="What to do next",
        commands=True,
        points=tuple((step.why, step.command) for step in found),
    )
