"""The report of a run folder, as a page, Markdown or JSON, and its plots as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from levelhead import runs
from levelhead.attempts import record_report
from levelhead.damage import damage_reported
from levelhead.experiments.findings import run_findings
from levelhead.reporting.formats import PLOTS, ReportFormat, check_format, render
from levelhead.reporting.images import check_kinds, plot_files
from levelhead.runs import RunFolder


@runs.writes("report")
def report(
    path: str | Path,
    format: ReportFormat = "html",  # noqa: A002 - the flag's name
    *,
    plots: Sequence[str] = (),
) -> Path:
    """Write what a run folder holds as a report; experiments are in it where they were run.

    Args:
        path: the run folder.
        format: "html" writes report.html, one page that loads nothing; "md" report.md; "json"
            report.json, all facts for machines.
        plots: also write every plot to `plots/`, as "png", "svg" (both need the extra `plots` and
            Chrome or Chromium) or "html".

    Returns:
        The report's path.

    Raises:
        RunFolderError: not a run folder, or nothing evaluated or compared in it yet.
        ConfigError: an unknown format or kind of plot.
        MissingExtraError: PNG or SVG without kaleido, or without a browser.
    """
    folder = RunFolder.open(path, old=True)
    check_format(format)
    check_kinds(plots)
    findings = run_findings(folder)
    images = next((kind for kind in ("svg", "png") if kind in plots), "")
    target = folder.path / f"report.{format}"
    with damage_reported(folder.path, "make the report"):
        drawn = plot_files(findings, plots) if plots else {}
        text = render(findings, format, images=images)
    for name, content in drawn.items():
        runs.write_bytes(folder.path / PLOTS / name, content)
    runs.write_text(target, text)
    if format == "html":
        record_report(folder.path)
    return target
