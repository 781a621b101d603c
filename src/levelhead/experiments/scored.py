"""Scores to analyse without a model: of a run folder, a score table or a by-seed table.

It reads files, says how reliable their rankings are and correlates two of them; it knows nothing
of what the numbers are for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead import runs
from levelhead.config import RunConfig
from levelhead.diagnosis import SeedScores, diagnose_axes, read_by_seed
from levelhead.errors import ConfigError, RunFolderError, ScoreTableError
from levelhead.metrics.attenuation import (
    FEWEST_HEADS,
    Corrected,
    corrected_correlation,
    half_reliability,
    rank_correlation,
)
from levelhead.records import Estimate
from levelhead.runs import RunFolder
from levelhead.scores import PPL, ScoreTable, bias_metric, column, read_frame
from levelhead.stages.tables import scored_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Effects of the heads of one model, and what is known of their reliability."""

    name: str
    """As people call it: the run's folder or the table's file."""
    effects: Mapping[str, Float[np.ndarray, " heads"]]
    """By metric ("ppl", "bias:AXIS"): larger is a larger effect; NaN where a head has none."""
    reliability: Mapping[str, float | None]
    """Of the whole, by metric; None: unknown."""
    parts: Mapping[str, int]
    """How many replicates each reliability comes from (halves: 2)."""
    table: ScoreTable | None = None
    """None for a by-seed table."""
    halves: Mapping[str, Float[np.ndarray, "splits 2 layers heads"]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    config: RunConfig | None = None
    """None for a table."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The scored axes; a run's first is the one heads are selected for."""
        found = tuple(name.removeprefix("bias:") for name in self.effects if name != PPL)
        first = self.config.axis[0] if self.config else None
        return tuple(sorted(found, key=lambda axis: axis != first))

    @property
    def num_heads(self) -> int:
        """Heads of the model."""
        return max(len(effect) for effect in self.effects.values())


def read_scored(path: str | Path, *, by_seed: bool = True) -> Scored:
    """Read a run folder that has scores, or a CSV of head scores.

    Args:
        path: the folder or file.
        by_seed: whether a by-seed table will do.

    Raises:
        RunFolderError: a folder that is no run, or one without scores.
        ScoreTableError: a table that cannot be read, or a by-seed one where it will not do.
    """
    path = Path(path)
    if runs.is_run(path):
        return _of_run(RunFolder.open(path, old=True))
    if path.is_dir():
        raise RunFolderError(f"{path} is neither a run folder nor a score table (CSV)")
    if by_seed and {"axis", "seed"} <= set(read_frame(path).columns):
        return _of_seeds(path, read_by_seed(path))
    table = ScoreTable.read(path)
    metrics = _metrics(table)
    return Scored(
        name=path.stem,
        effects=_effects(table, metrics),
        reliability=dict.fromkeys(metrics),
        parts=dict.fromkeys(metrics, 2),
        table=table,
    )


def differing(first: Scored, other: Scored, options: Sequence[str]) -> list[str]:
    """What two runs measure differently: of these options, the scorer, and axes' subgroups."""
    pairs: list[tuple[str, Any, Any]] = [
        (name, getattr(first.config, name), getattr(other.config, name)) for name in options
    ]
    pairs.append(("toxicity", first.details["scorer"], other.details["scorer"]))
    for axis in (axis for axis in first.axes if axis in other.axes):
        x, y = (", ".join(s.details["axes"][axis]["subgroups"]) for s in (first, other))
        pairs.append((f"subgroups of {axis}", x, y))
    return [f"{name} ({x} / {y})" for name, x, y in pairs if x != y]


def heads_only(unit: str, command: str) -> None:
    """Raise ConfigError where a command that knows attention heads alone is given another unit."""
    if unit != "head":
        raise ConfigError(
            f"levelhead {command} knows attention heads only; this run is one of {unit}s "
            "(--unit); compare, report and tasks know those, too"
        )


def _of_run(folder: RunFolder) -> Scored:
    table = scored_table(folder)
    details = runs.read_json(folder.require(runs.DETAILS, f"score --out {folder.path}"))
    halves = runs.read_arrays(folder.path / runs.HALVES)
    metrics = _metrics(table)
    reliability: dict[str, float | None] = {
        metric: half_reliability(halves[metric]) if metric in halves else None for metric in metrics
    }
    for axis, found in details["axes"].items():
        reliability[bias_metric(axis)] = found["reliability"]
    return Scored(
        name=folder.path.name,
        effects=_effects(table, metrics),
        reliability=reliability,
        parts=dict.fromkeys(metrics, 2),
        table=table,
        halves=halves,
        details=details,
        config=folder.config.resolved(),
    )


def _of_seeds(path: Path, axes: tuple[SeedScores, ...]) -> Scored:
    """Means over seeds; the order of heads is that of all heads that any axis has."""
    heads = sorted({head for scores in axes for head in scores.heads})
    place = {head: i for i, head in enumerate(heads)}
    found = diagnose_axes(axes)["axes"]
    effects, reliability, parts = {}, {}, {}
    for scores in axes:
        metric = bias_metric(scores.axis)
        effect = np.full(len(heads), np.nan)
        effect[[place[head] for head in scores.heads]] = -np.nanmean(scores.bias, axis=0)
        effects[metric] = effect
        reliability[metric] = found[scores.axis]["reliability"]
        parts[metric] = max(2, len(scores.seeds))
    return Scored(name=path.stem, effects=effects, reliability=reliability, parts=parts)


def _metrics(table: ScoreTable) -> list[str]:
    metrics = [bias_metric(axis) for axis in table.axes]
    if column(PPL, "without") in table.frame.columns:
        metrics.append(PPL)
    if not table.axes:
        raise ScoreTableError("the score table has no bias_without_AXIS column to analyse")
    return metrics


def _effects(table: ScoreTable, metrics: list[str]) -> dict[str, Float[np.ndarray, " heads"]]:
    return {metric: table.ranking(metric).reshape(-1) for metric in metrics}


def correlated(
    first: Scored, a: str, second: Scored, b: str
) -> tuple[Estimate | None, Corrected | None, int]:
    """(Spearman correlation of metric a of one with b of the other, corrected, how many heads).

    Over the heads that have both; None for fewer than `FEWEST_HEADS` of them or a constant metric,
    and for the corrected one where a reliability is unknown or too low to correct for.
    """
    x, y = first.effects[a], second.effects[b]
    both = np.isfinite(x) & np.isfinite(y)
    heads = int(both.sum())
    found = rank_correlation(x[both], y[both]) if heads >= FEWEST_HEADS else None
    if found is None:
        return None, None, heads
    corrected = corrected_correlation(
        found,
        first.reliability[a],
        second.reliability[b],
        heads=heads,
        parts=max(first.parts[a], second.parts[b]),
    )
    return found, corrected, heads


def base_value(table: ScoreTable, metric: str) -> tuple[float, bool]:
    """(the metric of the whole model, whether the table has it): else the median over heads."""
    name = column(metric, "base")
    if name in table.frame.columns:
        return float(table.grid(name)[0, 0]), True
    return float(np.median(table.grid(column(metric, "without")))), False


def effect_of(table: ScoreTable, metric: str) -> Float[np.ndarray, "layers heads"]:
    """z of every head; where the table has no base, relative to the median head."""
    out: Float[np.ndarray, "layers heads"] = base_value(table, metric)[0] - table.grid(
        column(metric, "without")
    )
    return out
