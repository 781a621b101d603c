"""What the files of a run say, gathered for its report."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from levelhead import runs
from levelhead.attempts import results, stale
from levelhead.damage import reads_run
from levelhead.errors import ScoreTableError, SelectionError
from levelhead.experiments.glance import glance
from levelhead.reporting.findings import EXPERIMENTS, Findings
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.search_result import nothing_found
from levelhead.stages.selecting import read_selection

OF_PLAIN_TEXTS = (
    "an older levelhead made this run: its scorer read identity words too, so the measured bias "
    "and its difference hold what the scorer makes of the words themselves; a new run tells the "
    "two apart"
)


@reads_run("gather the results")
def run_findings(folder: RunFolder) -> Findings:
    """What the files of a run say, and what its scores show at a glance."""
    path = folder.path
    found: dict[str, Any] = {
        name: runs.read_json(path / file)
        for name, file in EXPERIMENTS.items()
        if (path / file).exists()
    }
    held = path / runs.SELECTION
    chosen = read_selection(held) if held.exists() else None
    if chosen is not None and nothing_found(chosen.details) and not (path / runs.MODEL).exists():
        found["selection"] = chosen
    elif not found or (path / runs.EVALUATION).exists():
        evaluation = folder.require(runs.EVALUATION, f"evaluate {path}")
        folder.require(runs.SELECTION, f"select {path}")
        found["selection"] = chosen
        found["evaluation"] = _evaluation(folder, evaluation)
    if folder.config.unit == "head":
        with suppress(ScoreTableError, SelectionError):  # scores that it can say nothing about
            found["glance"] = glance(path)
    if len(attempted := results(path)["attempts"]) > 1:
        found["attempts"] = attempted
    return Findings(
        table=ScoreTable.read(folder.require(runs.SCORES, f"score --out {path}")),
        run=str(path),
        date=_date(path / runs.EVALUATION) or _date(path / runs.SELECTION),
        config=folder.config.to_json(),
        details=runs.read_json(folder.require(runs.DETAILS, f"score --out {path}")),
        **found,
    )


def _date(path: Path) -> str:
    """The day that a file was written, in UTC; empty where there is none."""
    if not path.exists():
        return ""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()


def _evaluation(folder: RunFolder, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = runs.read_json(path)
    if "evaluate" in stale(folder.path):
        return {
            "headline": "Nothing was measured of this selection yet.",
            "warnings": [
                f"{runs.EVALUATION} is of another selection than {runs.SELECTION}, so it is not "
                f"shown; to measure this one: levelhead prune {path.parent}, then levelhead "
                f"evaluate {path.parent}"
            ],
        }
    if not folder.old:
        return found
    return found | {"warnings": [OF_PLAIN_TEXTS, *found.get("warnings", ())]}
