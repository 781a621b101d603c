"""What pruning for one axis does to every other axis (arXiv 2312.15398, experiment 3).

For each scored axis FASP's set, and beside it a random set of as many unprotected heads; each read
on the TEST prompts of every scored axis, teacher-forced on the base model's continuations, which
are sampled once per axis. Expected differences are first-order: fresh sampling is the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from levelhead import journal, runs
from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import ConfigError
from levelhead.experiments.joint import GROUPS, JointEvaluator, units_of
from levelhead.experiments.scored import heads_only
from levelhead.metrics.bias import bias
from levelhead.progress import Progress, silent
from levelhead.records import Head
from levelhead.runs import RunFolder
from levelhead.sampling import derived_seed
from levelhead.scores import ScoreTable
from levelhead.selection import select_heads
from levelhead.selection.rules import largest, protected_heads
from levelhead.stages.fingerprints import experiment_fingerprint
from levelhead.stages.run_session import session_of

FOLDER = "axes"
"""Where a run folder keeps finished units."""
METHODS = ("fasp", "random")
Json = dict[str, Any]
Sets = Mapping[tuple[str, str], tuple[Head, ...]]
"""Heads by (method, axis they are chosen for)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossPlan:
    """The work there is, at most: finished parts are not done again."""

    axes: tuple[str, ...]
    sets: int
    """Sets of heads, each read on every axis."""
    sampled_tokens: int
    """Tokens that the base model samples."""
    read_tokens: int
    """Tokens that the models without heads read."""


def cross_axes(
    run: str | Path,
    *,
    gamma: float | None = None,
    alpha: float | None = None,
    progress: Progress = silent,
    announce: Callable[[CrossPlan], None] | None = None,
) -> Json:
    """Expected difference of bias on every scored axis, for the heads chosen for each of them.

    Args:
        run: a run folder whose heads are scored on two axes or more.
        gamma: share protected; none: the run's.
        alpha: share pruned; none: the run's.
        progress: where to report progress.
        announce: called with the plan when every input has been checked.

    Returns:
        {"alpha", "gamma", "method": "fasp", "rows", "random", "of"}: a row for every pair of axes,
        {"selected_for", "measured_on", "expected_difference": {"value", "ci95"} (without minus
        with the heads; negative: bias falls), "base_bias", "num_heads", "overlap" (share of the
        set that is in the set for the measured axis)}. `random`: the same for the random sets.

    Raises:
        RunFolderError: not a scored run.
        ConfigError: one axis only.
        SelectionError: gamma and alpha that cannot be satisfied together.
    """
    folder = RunFolder.open(run)
    table = ScoreTable.read(folder.require(runs.SCORES, f"score --out {run}"))
    heads_only(table.unit, "axes --cross")
    config = folder.config
    gamma = config.gamma if gamma is None else gamma
    alpha = config.alpha if alpha is None else alpha
    if len(config.axis) < 2:
        raise ConfigError(
            f"{run} has scores of one axis ({config.axis[0]}); to prune for one and measure "
            "others, score at least two (--axis A --axis B)"
        )
    sets = _sets(table, config.axis, gamma, alpha, config.seed)
    session = session_of(folder, config)
    judge = JointEvaluator(
        session=session,
        units=units_of(session, folder.path / FOLDER),
        split="test",
        progress=progress,
    )
    if announce:
        announce(_plan(judge, config.axis, sets))
    with journal.stage(folder.path, "axes", experiment_fingerprint(session)):
        rows = _rows(judge, config.axis, sets)
    return {
        "alpha": alpha,
        "gamma": gamma,
        "method": "fasp",
        "rows": rows["fasp"],
        "random": rows["random"],
        "of": runs.read_json(folder.path / runs.DETAILS)["of"],
    }


def _rows(judge: JointEvaluator, axes: tuple[str, ...], sets: Sets) -> dict[str, list[Json]]:
    """A row per axis that heads are selected for and axis that is measured, by method."""
    rows: dict[str, list[Json]] = {method: [] for method in METHODS}
    for measured in axes:
        base_bias = _base_bias(judge, measured)
        for (method, axis), heads in sets.items():
            difference = judge.expected(measured, heads)
            shared = set(heads) & set(sets["fasp", measured])
            rows[method].append(
                {
                    "selected_for": axis,
                    "measured_on": measured,
                    "expected_difference": {k: difference[k] for k in ("value", "ci95")},
                    "base_bias": base_bias,
                    "num_heads": len(heads),
                    "overlap": len(shared) / len(heads),
                }
            )
    return rows


def _sets(
    table: ScoreTable, axes: tuple[str, ...], gamma: float, alpha: float, seed: int
) -> dict[tuple[str, str], tuple[Head, ...]]:
    """FASP's set for each axis, and a draw of as many of the heads it may prune."""
    sets: dict[tuple[str, str], tuple[Head, ...]] = {}
    free = ~protected_heads(table, gamma)
    for axis in axes:
        chosen = select_heads(table, axis=axis, gamma=gamma, alpha=alpha).heads
        rng = np.random.default_rng(derived_seed(seed, axis, "random set"))
        sets["fasp", axis] = chosen
        sets["random", axis] = tuple(sorted(largest(rng.random(free.shape), len(chosen), free)))
    return sets


def _base_bias(judge: JointEvaluator, axis: str) -> float:
    """bias(S) of the base model as sampled, kept so that a finished axis is not read again."""

    def make() -> float:
        base = judge.base(axis)
        problem, texts = base.problem, base.texts
        return bias(texts.toxicity, problem.subgroup[texts.prompt], len(problem.subgroups))

    problem = judge.problem(axis)
    of = {"axis": axis, "seed": problem.seed, "samples": problem.samples}
    return float(judge.units.get("base_bias", of, make))


def _plan(judge: JointEvaluator, axes: tuple[str, ...], sets: Sets) -> CrossPlan:
    sampled = read = 0
    for axis in axes:
        problem = judge.problem(axis)
        sampled += len(problem.prompts) * problem.samples * problem.new_tokens
        groups = min(len(matched_groups(problem.prompts)), GROUPS["test"])
        rows = groups * len(problem.subgroups) or len(problem.prompts)
        length = np.mean([len(ids) for ids in problem.prompt_ids]) + problem.new_tokens
        read += round(rows * float(length)) * len(sets)
    return CrossPlan(axes=axes, sets=len(sets), sampled_tokens=sampled, read_tokens=read)
