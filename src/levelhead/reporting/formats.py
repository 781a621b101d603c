"""The report in the formats there are: a page, Markdown, and JSON for machines."""

from __future__ import annotations

import json
from typing import Literal, get_args

from levelhead.errors import ConfigError
from levelhead.reporting.build import build
from levelhead.reporting.findings import Findings
from levelhead.reporting.markdown import render_markdown
from levelhead.reporting.render import render_report

ReportFormat = Literal["html", "md", "json"]
PLOTS = "plots"
"""The folder, beside the report, of plots as files."""


def check_format(name: str) -> None:
    """Raise ConfigError for a format that there is not."""
    if name not in get_args(ReportFormat):
        known = ", ".join(get_args(ReportFormat))
        raise ConfigError(f"a report as {name!r}: choose from {known}")


def render(findings: Findings, name: ReportFormat, *, images: str = "") -> str:
    """The report's text.

    Args:
        findings: what the run's files say.
        name: the format.
        images: kind of the image files in `PLOTS` that Markdown is to show; empty: none.
    """
    check_format(name)
    if name == "html":
        return render_report(findings)
    if name == "md":
        return render_markdown(findings, images=images)
    facts = build(findings).facts
    return json.dumps(facts, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
