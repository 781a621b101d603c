"""Methods compared over alpha, the paper's central experiment, under one protocol.

1. FASP's gamma is chosen on VALIDATION prompts and text, for every alpha: the largest expected fall
   of bias among the gammas that keep the perplexity budget.
2. Every method's set at every alpha is judged on TEST prompts and text: the expected difference of
   bias (teacher-forced) and perplexity.
3. A few chosen points are proven by fresh sampling on the test prompts.

It only orders work that `joint` does, and puts the results into compare.json and points.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from levelhead import runs
from levelhead.config import EVALUATE, METHODS
from levelhead.errors import SelectionError, missing_extra
from levelhead.evaluation.base import BaseAxis
from levelhead.experiments.compare_tables import summary, tidy
from levelhead.experiments.grid import (
    ALPHAS,
    GAMMAS,
    Point,
    best,
    check_grid,
    points_of,
    within_budget,
)
from levelhead.experiments.joint import JointEvaluator
from levelhead.experiments.units import Units
from levelhead.metrics.bias import bias
from levelhead.metrics.bias_intervals import bias_interval
from levelhead.progress import Progress, silent
from levelhead.records import Head
from levelhead.runs import RunFolder
from levelhead.sampling import derived_seed
from levelhead.scores import ScoreTable
from levelhead.scoring.score_table import unreliable
from levelhead.session import Session

FOLDER, RESULT, TABLE = "compare", "compare.json", "points.csv"
DRAWS = 3
"""Draws of method random."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePlan:
    """The work a comparison is, at most: what an earlier one has left is not done again."""

    axes: tuple[str, ...]
    searched: int
    """Sets of heads read on validation prompts, to choose gamma."""
    judged: int
    """Sets of heads read on test prompts."""
    sampled: int
    """Models that continue the test prompts afresh, the base model among them."""
    sampled_tokens: int


def compare(
    run: str | Path,
    *,
    axis: Sequence[str] = (),
    methods: Sequence[str] = METHODS,
    alphas: Sequence[float] = ALPHAS,
    gammas: Sequence[float] = GAMMAS,
    sample_at: Sequence[float] = (0.1,),
    seeds: int = 3,
    draws: int = DRAWS,
    max_ppl_increase: float | None = None,
    max_prompts: int | None = None,
    parquet: bool = False,
    progress: Progress = silent,
    announce: Callable[[ComparePlan], None] | None = None,
) -> Json:
    """Compare selection methods on a scored run; writes RUN/compare/compare.json and points.csv.

    Args:
        run: a run folder whose heads are scored.
        axis: axes to compare on; none: the run's first.
        methods: names in `selection.METHODS`.
        alphas: shares of heads pruned; 0 is the base model.
        gammas: shares of heads protected, for fasp.
        sample_at: alphas whose points are proven by fresh sampling.
        seeds: independent continuations of every test prompt.
        draws: draws of method random, each a set of its own.
        max_ppl_increase: share by which perplexity may rise; none: the run's.
        max_prompts: test and validation prompts per axis; none: the run's.
        parquet: write points.parquet too (extra `parquet`).
        announce: called with the plan when every input has been checked, before long work.

    Returns:
        The content of compare.json (docs/experiments.md).

    Raises:
        RunFolderError: not a run folder, or its heads are not scored.
        SelectionError: methods or shares that no point could be made of.
        MissingExtraError: `parquet` without pyarrow.
    """
    if parquet and find_spec("pyarrow") is None:
        raise missing_extra("Writing Parquet", "parquet")
    folder = RunFolder.open(run)
    table = ScoreTable.read(folder.require(runs.SCORES, f"score --out {run}"))
    config = replace(folder.config, samples=seeds)
    if max_prompts is not None:
        config = replace(config, max_prompts=max_prompts)
    axes = tuple(axis) or config.axis[:1]
    for name in axes:
        check_grid(table, name, methods, alphas, gammas)
    if missing := sorted(set(sample_at) - set(alphas)):
        raise SelectionError(f"--sample-at {missing[0]:g} is none of the alphas compared")
    session = Session(config)
    budget = config.max_ppl_increase if max_ppl_increase is None else max_ppl_increase
    grids = {
        name: {m: points_of(table, name, m, alphas, gammas, draws) for m in methods}
        for name in axes
    }
    if announce:
        announce(_plan(session, grids, sample_at))
    units = Units(
        folder.path / FOLDER / "units",
        {"model": session.base.fingerprint, "config": session.config.fingerprint(EVALUATE)},
    )
    judges = {
        split: JointEvaluator(session=session, units=units, split=split, progress=progress)
        for split in ("validation", "test")
    }
    details = runs.read_json(folder.path / runs.DETAILS)
    results = [
        _compare_axis(judges, name, grids[name], sample_at, budget)
        | {"reliable": not unreliable(details, name)}
        for name in axes
    ]
    common = {
        "model": session.model_name,
        "scorer": session.scorer.identity,
        "toxicity_input": session.config.toxicity_input,
        "methods": list(methods),
        "alphas": list(alphas),
        "gammas": list(gammas),
        "sample_at": list(sample_at),
        "seeds": seeds,
        "max_ppl_increase": budget,
    }
    out = {**common, **results[0], "more": results[1:]}
    rows = tidy(results)
    runs.write_text(folder.path / FOLDER / TABLE, rows.to_csv(index=False))
    if parquet:
        target = (folder.path / FOLDER / TABLE).with_suffix(".parquet")
        runs.write_bytes(target, rows.to_parquet(index=False))
    runs.write_json(folder.path / FOLDER / RESULT, out)
    return out


def _compare_axis(
    judges: Mapping[str, JointEvaluator],
    axis: str,
    grid: Mapping[str, Sequence[Point]],
    sample_at: Sequence[float],
    budget: float,
) -> Json:
    """Everything about one axis: the search, the points, what is proven."""
    validation, test = judges["validation"], judges["test"]
    search, chosen = _search(validation, axis, grid.get("fasp", ()), budget)
    pick = chosen.get("best")
    points = [
        _point_json(test, axis, point, budget, point.alpha in sample_at or _is(point, pick))
        for point in chosen_points(grid, chosen)
    ]
    base = test.base(axis)
    return {
        "axis": axis,
        "measured_axes": [axis],
        "prompts": len(base.problem.prompts),
        "base": {axis: _base_bias(base)},
        "base_perplexity": test.text([])["perplexity"],
        "points": points,
        "search": search,
        "best": pick,
        "table": [row for alpha in sample_at for row in summary(points, axis, alpha)],
    }


def _base_bias(base: BaseAxis) -> Json:
    problem, texts = base.problem, base.texts
    subgroup, template = problem.subgroup[texts.prompt], problem.template[texts.prompt]
    count = len(problem.subgroups)
    rng = np.random.default_rng(derived_seed(problem.seed, problem.axis, "base bias"))
    ends = bias_interval(texts.toxicity, subgroup, template, count, rng)
    return {
        "bias": {"value": bias(texts.toxicity, subgroup, count), "ci95": [ends.low, ends.high]},
        "mean_toxicity": float(texts.toxicity.mean()),
    }


def _point_json(
    judge: JointEvaluator, axis: str, point: Point, budget: float, proven: bool
) -> Json:
    judged = _judge(judge, axis, point.heads)
    return point.to_json() | {
        "within_budget": within_budget(judged, budget),
        "perplexity": judged["perplexity"],
        "perplexity_increase": judged["perplexity_increase"],
        "axes": {
            axis: {
                "expected_difference": judged["expected_difference"],
                "sampled": _sampled(judge, axis, point.heads) if proven and point.heads else None,
            }
        },
    }


def _search(
    judge: JointEvaluator, axis: str, points: Sequence[Point], budget: float
) -> tuple[list[Json], dict[Any, Any]]:
    """(a row per gamma and alpha, the gamma chosen for each alpha and "best" of all)."""
    rows: list[Json] = []
    for point in points:
        if point.heads:
            judged = _judge(judge, axis, point.heads)
            rows.append(
                {
                    "gamma": point.gamma,
                    "alpha": point.alpha,
                    "expected_difference": judged["expected_difference"],
                    "perplexity_increase": judged["perplexity_increase"],
                    "within_budget": within_budget(judged, budget),
                    "chosen": False,
                }
            )
    chosen: dict[Any, Any] = {}
    for alpha in {row["alpha"] for row in rows}:
        pick: Any = best([row for row in rows if row["alpha"] == alpha], budget)
        pick["chosen"] = True
        chosen[alpha] = pick["gamma"]
    if any(row["within_budget"] for row in rows):
        pick = best(rows, budget)
        chosen["best"] = {"alpha": pick["alpha"], "gamma": pick["gamma"]}
    return rows, chosen


def chosen_points(
    grid: Mapping[str, Sequence[Point]], gammas: Mapping[Any, Any]
) -> Iterator[Point]:
    """The points to judge on test prompts: of fasp, one gamma for each alpha."""
    for method, points in grid.items():
        seen = set()
        for point in points:
            if method == "fasp" and point.heads and point.gamma != gammas[point.alpha]:
                continue
            key = (point.alpha, point.draw)
            if key not in seen:  # alpha 0 is one point, whatever the gamma
                seen.add(key)
                yield point if point.heads else replace(point, gamma=None)


def _judge(judge: JointEvaluator, axis: str, heads: Sequence[Head]) -> Json:
    if not heads:
        zero = {"value": 0.0, "ci95": [0.0, 0.0]}
        text = judge.text([])
        return {
            "expected_difference": zero,
            "perplexity": text["perplexity"],
            "perplexity_increase": zero,
        }
    expected, text = judge.expected(axis, heads), judge.text(heads)
    return {
        "expected_difference": {key: expected[key] for key in ("value", "ci95")},
        "perplexity": text["perplexity"],
        "perplexity_increase": text["increase"],
    }


def _sampled(judge: JointEvaluator, axis: str, heads: Sequence[Head]) -> Json:
    found = judge.sampled(axis, heads)
    kept = ("difference", "adjusted_difference", "expected_difference", "toxicity_difference")
    return {
        "bias": {"value": found["pruned"]["bias"], "ci95": found["pruned"]["ci95"]},
        "mean_toxicity": found["pruned"]["mean_toxicity"],
        "gaps": found["pruned"]["gaps"],
        **{key: found[key] for key in (*kept, "verdict", "degeneration")},
    }


def _is(point: Point, pick: Mapping[str, Any] | None) -> bool:
    """Whether a point is the one that the search liked best."""
    own = {"alpha": point.alpha, "gamma": point.gamma}
    return point.method == "fasp" and own == pick


def _plan(
    session: Session,
    grids: Mapping[str, Mapping[str, Sequence[Point]]],
    sample_at: Sequence[float],
) -> ComparePlan:
    searched = judged = models = tokens = 0
    for axis, grid in grids.items():
        fasp = grid.get("fasp", ())
        searched += len({point.heads for point in fasp if point.heads})
        # Any gamma does: how many sets there are, not which.
        gammas = {point.alpha: point.gamma for point in fasp}
        points = list(chosen_points(grid, gammas))
        judged += len({point.heads for point in points if point.heads})
        own = 1 + len({p.heads for p in points if p.heads and p.alpha in sample_at})
        own += bool(fasp)  # the search's favourite
        problem = session.problem(axis, "test")
        models += own
        tokens += own * len(problem.prompts) * problem.samples * problem.new_tokens
    return ComparePlan(
        axes=tuple(grids),
        searched=searched,
        judged=judged,
        sampled=models,
        sampled_tokens=tokens,
    )
