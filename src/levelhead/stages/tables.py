"""The scores of a run as selection wants them: the table, with what sets of heads cost."""

from __future__ import annotations

from pathlib import Path

from levelhead import runs
from levelhead.errors import RunFolderError
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.set_cost import SetCost


def scored_table(folder: RunFolder) -> ScoreTable:
    """scores.csv with fisher.safetensors, where the run has it.

    Raises:
        RunFolderError: the heads are not scored yet, or a file is damaged.
        ScoreTableError: the table cannot be read, or the two do not fit.
    """
    table = ScoreTable.read(folder.require(runs.SCORES, f"score --out {folder.path}"))
    return table.with_cost(SetCost.of_arrays(runs.read_arrays(folder.path / runs.FISHER)))


def read_table(path: Path) -> ScoreTable:
    """A score table's CSV.

    Raises:
        RunFolderError: a folder.
        ScoreTableError: the table cannot be read.
    """
    if path.is_dir():
        raise RunFolderError(f"{path} is neither a run folder nor a score table (CSV)")
    return ScoreTable.read(path)
