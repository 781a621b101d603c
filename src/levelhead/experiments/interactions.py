"""Heads removed together against heads removed one by one: do their effects add up?

    interaction = effect of removing the set - sum of the effects of removing each head alone

for bias, mean toxicity (both expected, teacher-forced on test prompts) and negative log-likelihood
of text; for the selected set, and for every pair of its first few heads. Selection adds effects
up, so what is left over here is what it does not see. All by true ablation, none linearised, and
without a repair, also where the run has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from levelhead import journal, runs
from levelhead.batching import map_batches
from levelhead.errors import ConfigError
from levelhead.evaluation.axis import expected_shifts, t_reach
from levelhead.experiments.joint import TEXT_TOKENS, JointEvaluator, units_of
from levelhead.experiments.scored import heads_only
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.models.gates import ablate
from levelhead.models.repair import NONE
from levelhead.progress import Progress, silent
from levelhead.records import Estimate, Head, HeadSelection, Interval
from levelhead.runs import RunFolder
from levelhead.scoring.effects import base_gaps, delete_one, gap_change, jackknife, z_bias
from levelhead.scoring.finite import ablated_toxicity
from levelhead.scoring.perplexity_effects import ablated_nll, text_windows, window_nll
from levelhead.scoring.problem import MAIN
from levelhead.session import Session
from levelhead.stages.fingerprints import experiment_fingerprint
from levelhead.stages.selecting import read_selection

RESULT = "interactions.json"
METRICS = ("bias", "mean_toxicity", "nll")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionPlan:
    """How many sets of heads are read, each on the matched rows and on text."""

    axis: str
    heads: int
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What each set of heads does when it is ablated; sets are columns."""

    rows: Float[np.ndarray, "rows sets"]
    """Change of sum_t r_t of each matched row."""
    windows: Float[np.ndarray, "windows sets"]
    """Change of the NLL per token of each window of text."""


@runs.writes("interactions")
def interactions(
    run: str | Path,
    *,
    pairs: int = 5,
    progress: Progress = silent,
    announce: Callable[[InteractionPlan], None] | None = None,
) -> Json:
    """Single against joint effects of the selected heads; writes RUN/interactions.json.

    Args:
        run: a run folder with a selection.
        pairs: of how many heads, those with the largest effect on bias, all pairs are read.
        announce: called with the plan before long work.

    Returns:
        `metrics` (per metric `sum`, `joint`, `interaction`, all without minus with), `singles`,
        `pairs` (docs/experiments.md).

    Raises:
        RunFolderError: not a run folder, or nothing selected in it.
        ConfigError: a negative number of pairs, or a selection of fewer than two heads.
    """
    folder = RunFolder.open(run)
    selection = read_selection(folder.require(runs.SELECTION, f"select {run}"))
    heads_only(selection.unit, "interactions")
    heads = selection.heads
    if len(heads) < 2:
        raise ConfigError(
            f"{run} selects {len(heads)} head(s); an interaction needs at least 2: use a larger "
            "--alpha with levelhead select"
        )
    if pairs < 0:
        raise ConfigError(f"--pairs {pairs} is negative")
    axis = str((selection.details or {}).get("axis") or folder.config.axis[0])
    # Effects of single heads are those of ablating them: so are those of sets.
    session = Session(replace(folder.config, samples=1, repair=NONE))
    most = min(pairs, len(heads))
    if announce:
        announce(InteractionPlan(axis=axis, heads=len(heads), pairs=most * (most - 1) // 2))
    units = units_of(session, folder.path / "interactions")
    judge = JointEvaluator(session=session, units=units, split="test", progress=progress)
    with journal.stage(folder.path, "interactions", experiment_fingerprint(session)):
        found = _found(judge, axis, heads, most)
    runs.write_json(folder.path / RESULT, found)
    return found


def _found(judge: JointEvaluator, axis: str, heads: Sequence[Head], most: int) -> Json:
    """The content of interactions.json."""
    singles = _single_readings(judge, axis, heads)
    order = np.argsort(_bias(judge, axis, singles.rows)[0], kind="stable")[:most]
    first = sorted(int(i) for i in order)
    pairs_of = list(combinations(first, 2))
    joint = _joint_readings(judge, axis, [heads, *((heads[a], heads[b]) for a, b in pairs_of)])
    return {
        "axis": axis,
        "heads": [list(head) for head in heads],
        "metrics": _compared(judge, axis, singles, range(len(heads)), joint, 0),
        "singles": [
            {"head": list(head)} | _alone(judge, axis, singles, i) for i, head in enumerate(heads)
        ],
        "pairs": [
            {"a": list(heads[a]), "b": list(heads[b])}
            | _compared(judge, axis, singles, (a, b), joint, i)
            for i, (a, b) in enumerate(pairs_of, 1)
        ],
        "tokens": TEXT_TOKENS,
        "prompts": len(judge.problem(axis).prompts),
    }


def _single_readings(judge: JointEvaluator, axis: str, heads: Sequence[Head]) -> Readings:
    """Every head alone, resuming from its layer."""

    def make() -> Json:
        base, problem = judge.base(axis), judge.problem(axis)
        rows = ablated_toxicity(problem, base.matched.rows, base.token.tau, heads, judge.progress)
        _, nll = ablated_nll(problem.model, _windows(judge), heads, judge.progress)
        return {"rows": rows.tolist(), "windows": nll.tolist()}

    kept = judge.units.get("singles", {"axis": axis, "heads": [list(h) for h in heads]}, make)
    return Readings(rows=np.array(kept["rows"]), windows=np.array(kept["windows"]))


def _joint_readings(judge: JointEvaluator, axis: str, sets: Sequence[Sequence[Head]]) -> Readings:
    """Every set together; each is a unit of its own."""
    base_windows: list[list[float]] = []

    def make(heads: Sequence[Head]) -> Json:
        base = judge.base(axis)
        if not base_windows:
            with journal.scope("base windows"):
                base_windows.append(_nll(judge, ()))
        after = judge.read(axis, heads)
        windows = np.subtract(_nll(judge, heads), base_windows[0])
        return {"rows": (after - base.matched_toxicity[MAIN]).tolist(), "windows": windows.tolist()}

    kept = [
        judge.units.get(
            "joint", {"axis": axis, "heads": [list(h) for h in heads]}, partial(make, heads)
        )
        for heads in sets
    ]
    return Readings(
        rows=np.array([one["rows"] for one in kept]).T,
        windows=np.array([one["windows"] for one in kept]).T,
    )


def _windows(judge: JointEvaluator) -> torch.Tensor:
    ids = judge.session.text_ids("test")
    return text_windows(ids, judge.session.base.model, TEXT_TOKENS)


def _nll(judge: JointEvaluator, heads: Sequence[Head]) -> list[float]:
    model, windows = judge.session.base.model, _windows(judge)

    def work(batch: list[int]) -> list[float]:
        return [window_nll(model, windows[batch].to(model.device)).item()]

    with (
        torch.inference_mode(),
        ablate(model, HeadSelection.of(heads).by_layer),
        judge.progress("reading text", len(windows)) as advance,
    ):
        every = list(range(len(windows)))
        return map_batches(
            every, work, batch_size=1, length=lambda _: 0, advance=advance, of=(windows, heads)
        )


def _compared(
    judge: JointEvaluator,
    axis: str,
    singles: Readings,
    members: Sequence[int],
    joint: Readings,
    column: int,
) -> Json:
    """Per metric: sum of the members' single effects, their joint effect, and the difference."""
    own = list(members)
    rows = np.column_stack([singles.rows[:, own], joint.rows[:, column]])
    windows = np.column_stack([singles.windows[:, own], joint.windows[:, column]])
    count = len(own)
    weights = {
        "sum": np.r_[np.ones(count), 0.0],
        "joint": np.r_[np.zeros(count), 1.0],
        "interaction": np.r_[-np.ones(count), 1.0],
    }
    found: Json = {metric: {} for metric in METRICS}
    for name, weight in weights.items():
        for metric, estimate in _estimates(judge, axis, rows, windows, weight).items():
            found[metric][name] = estimate.to_json()
    return found


def _alone(judge: JointEvaluator, axis: str, singles: Readings, i: int) -> Json:
    one = _estimates(judge, axis, singles.rows[:, [i]], singles.windows[:, [i]], np.ones(1))
    return {metric: estimate.to_json() for metric, estimate in one.items()}


def _estimates(
    judge: JointEvaluator,
    axis: str,
    rows: Float[np.ndarray, "rows sets"],
    windows: Float[np.ndarray, "windows sets"],
    weight: Float[np.ndarray, " sets"],
) -> dict[str, Estimate]:
    """A weighted sum of the sets' effects, on each metric, with its interval."""
    base, problem = judge.base(axis), judge.problem(axis)
    value, without, reach = _bias(judge, axis, rows)
    error = float(jackknife(without @ weight)) * reach
    bias = float(value @ weight)
    toxicity = base.token.beta * (rows @ weight)
    return {
        "bias": Estimate(value=bias, interval=Interval(bias - error, bias + error)),
        "mean_toxicity": linear_difference_interval(
            toxicity, problem.template[base.matched.prompt]
        ),
        "nll": linear_difference_interval(windows @ weight, np.arange(len(windows))),
    }


def _bias(
    judge: JointEvaluator, axis: str, rows: Float[np.ndarray, "rows sets"]
) -> tuple[Float[np.ndarray, " sets"], Float[np.ndarray, "templates sets"], float]:
    """(change of bias by each set, the same without each template, half a t interval)."""
    base, problem = judge.base(axis), judge.problem(axis)
    read = [base.matched_toxicity[MAIN] + column for column in rows.T]
    shifts = expected_shifts(base, read)
    gap = base_gaps(problem, base.texts, shifts)
    every = np.ones(len(gap), dtype=bool)
    value = -z_bias(gap, gap_change(shifts, problem.weights), every)[0]
    without = -z_bias(gap, delete_one(shifts, problem.weights), every)[:, 0]
    return value, without, t_reach(shifts)
