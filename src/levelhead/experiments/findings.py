"""What the files of a run say, gathered for its report."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from levelhead import runs
from levelhead.damage import reads_run
from levelhead.errors import ScoreTableError, SelectionError
from levelhead.experiments.glance import glance
from levelhead.reporting.findings import EXPERIMENTS, Findings
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.stages.selecting import read_selection


@reads_run("gather the results")
def run_findings(folder: RunFolder) -> Findings:
    """What the files of a run say, and what its scores show at a glance."""
    path = folder.path
    found: dict[str, Any] = {
        name: runs.read_json(path / file)
        for name, file in EXPERIMENTS.items()
        if (path / file).exists()
    }
    if not found or (path / runs.EVALUATION).exists():
        evaluation = folder.require(runs.EVALUATION, f"evaluate {path}")
        selection = folder.require(runs.SELECTION, f"select {path}")
        found["evaluation"] = runs.read_json(evaluation)
        found["selection"] = read_selection(selection)
    if folder.config.unit == "head":
        with suppress(ScoreTableError, SelectionError):  # scores that it can say nothing about
            found["glance"] = glance(path)
    return Findings(
        table=ScoreTable.read(folder.require(runs.SCORES, f"score --out {path}")),
        config=folder.config.to_json(),
        details=runs.read_json(folder.require(runs.DETAILS, f"score --out {path}")),
        **found,
    )
