"""Methods compared over alpha, the paper's central experiment, under one protocol.

1. FASP's gamma is chosen on VALIDATION prompts and text, for every alpha: the largest expected fall
   of bias among the gammas that keep the perplexity budget.
2. Every method's set at every alpha is judged on TEST prompts and text: the expected difference of
   bias (teacher-forced) and perplexity.
3. A few chosen points are proven by fresh sampling on the test prompts.

It only orders work that `joint` does, and puts the results into compare.json and points.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from levelhead import journal, runs
from levelhead.config import AVERAGE, HEAD_METHODS
from levelhead.errors import SelectionError, missing_extra
from levelhead.evaluation.base import BaseAxis
from levelhead.evaluation.verdict import judged_together
from levelhead.experiments.compare_plan import (
    ComparePlan,
    Grid,
    changes_of,
    chosen_points,
    comparable_tables,
    method_grids,
    plan_of,
    searched_points,
)
from levelhead.experiments.compare_tables import change_row, summary, tidy
from levelhead.experiments.grid import (
    Point,
    best,
    check_grid,
    within_budget,
)
from levelhead.experiments.joint import Chosen, JointEvaluator, units_of
from levelhead.metrics.bias import bias
from levelhead.metrics.bias_intervals import bias_interval
from levelhead.progress import Progress, silent
from levelhead.records import HeadSelection
from levelhead.reporting.escape import spreadsheet_safe
from levelhead.runs import RunFolder
from levelhead.sampling import derived_seed
from levelhead.scoring.score_table import unreliable
from levelhead.selection.budget import ALPHAS, GAMMAS
from levelhead.stages.fingerprints import experiment_fingerprint
from levelhead.stages.run_session import session_of

FOLDER, RESULT, TABLE = "compare", "compare.json", "points.csv"
DRAWS = 3
"""Draws of method random."""
ALSO = ("masked", "common_factor", "plain", "echo", "own_group_mentions", "second_scorer")
"""What a verdict rests on, and what stands beside it."""
Json = dict[str, Any]


@runs.writes("compare")
def compare(
    run: str | Path,
    *others: str | Path,
    axis: Sequence[str] = (),
    methods: Sequence[str] = HEAD_METHODS,
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

    Changes of weights that the run and its attempts selected (method average) stand beside heads.

    Args:
        run: a run folder whose heads are scored; the result is written there.
        others: further runs of the same model, prompts, scorer and text, whose scores are
            compared with the first's under its protocol (another seed or estimator, say).
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
        ConfigError: runs that do not measure the same; the fields that differ are named.
        MissingExtraError: `parquet` without pyarrow.
    """
    if parquet and find_spec("pyarrow") is None:
        raise missing_extra("Writing Parquet", "parquet")
    folder = RunFolder.open(run)
    scored = comparable_tables([run, *others])
    config = replace(folder.config, samples=seeds)
    if max_prompts is not None:
        config = replace(config, max_prompts=max_prompts)
    axes = tuple(axis) or config.axis[:1]
    for name, table in product(axes, scored.values()):
        check_grid(table, name, methods, alphas, gammas)
    if missing := sorted(set(sample_at) - set(alphas)):
        raise SelectionError(f"--sample-at {missing[0]:g} is none of the alphas compared")
    session = session_of(folder, config)
    session.plan()  # every input is checked
    budget = config.max_ppl_increase if max_ppl_increase is None else max_ppl_increase
    grids = {name: method_grids(scored, name, methods, alphas, gammas, draws) for name in axes}
    changes = changes_of(folder.path)
    if announce:
        announce(plan_of(session, grids, sample_at, len(changes)))
    units = units_of(session, folder.path / FOLDER / "units")
    judges = {
        split: JointEvaluator(session=session, units=units, split=split, progress=progress)
        for split in ("validation", "test")
    }
    details = runs.read_json(folder.path / runs.DETAILS)
    with journal.stage(folder.path, "compare", experiment_fingerprint(session)):
        results = [
            _compare_axis(judges, name, grids[name], changes, sample_at, budget)
            | {"reliable": not unreliable(details, name)}
            for name in axes
        ]
    common = {
        "model": session.model_name,
        "runs": [name for name in scored if name is not None],
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
    runs.write_text(folder.path / FOLDER / TABLE, rows.map(spreadsheet_safe).to_csv(index=False))
    if parquet:
        target = (folder.path / FOLDER / TABLE).with_suffix(".parquet")
        runs.write_bytes(target, rows.to_parquet(index=False))
    runs.write_json(folder.path / FOLDER / RESULT, out)
    return out


def _compare_axis(
    judges: Mapping[str, JointEvaluator],
    axis: str,
    grids: Sequence[Grid],
    changes: Mapping[int, HeadSelection],
    sample_at: Sequence[float],
    budget: float,
) -> Json:
    """Everything about one axis: the search, the points, what is proven."""
    test = judges["test"]
    search: list[Json] = []
    points: list[Json] = []
    picks = []
    for grid in grids:
        rows, chosen = _search(judges["validation"], axis, searched_points(grid), budget)
        pick = chosen.get("best")
        search += rows
        picks.append(pick)
        points += [
            _point_json(test, axis, point, budget, point.alpha in sample_at or _is(point, pick))
            for point in chosen_points(grid, chosen)
        ]
    changed = [_changed(test, axis, n, change, budget) for n, change in changes.items()]
    _judge_together([one["axes"][axis]["sampled"] for one in (*points, *changed)])
    base = test.base(axis)
    return {
        "axis": axis,
        "measured_axes": [axis],
        "prompts": len(base.problem.prompts),
        "base": {axis: _base_bias(base)},
        "base_perplexity": test.text([])["perplexity"],
        "points": points,
        "changes": changed,
        "search": search,
        "best": picks[0],
        "table": [
            *(row for alpha in sample_at for row in summary(points, axis, alpha)),
            *(change_row(one, axis) for one in changed),
        ],
    }


def _changed(
    judge: JointEvaluator, axis: str, attempt: int, change: HeadSelection, budget: float
) -> Json:
    """A change of weights in the form of a point, proven by fresh sampling."""
    about = {"attempt": attempt, "method": AVERAGE, "gamma": change.gamma}
    return about | change.chosen_json() | _found(judge, axis, change, budget, True)


def _judge_together(sampled: Sequence[Json | None]) -> None:
    """Verdicts at one error over all sampled points of an axis, not at one each."""
    proven = {str(place): one for place, one in enumerate(sampled) if one is not None}
    for place, verdict in judged_together(proven).items():
        proven[place]["verdict"] = verdict


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
    proves = proven and bool(point.heads)
    return point.to_json() | _found(judge, axis, point.chosen, budget, proves)


def _found(judge: JointEvaluator, axis: str, heads: Chosen, budget: float, proven: bool) -> Json:
    """What reading with heads, or a change, showed; and fresh sampling, where it is proven."""
    judged = _judge(judge, axis, heads)
    return {
        "within_budget": within_budget(judged, budget),
        "perplexity": judged["perplexity"],
        "perplexity_increase": judged["perplexity_increase"],
        "price_text": judged["price_text"],
        "axes": {
            axis: {
                "expected_difference": judged["expected_difference"],
                "sampled": _sampled(judge, axis, heads) if proven else None,
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
            judged = _judge(judge, axis, point.chosen)
            rows.append(
                {
                    "run": point.run,
                    "gamma": point.gamma,
                    "alpha": point.alpha,
                    "expected_difference": judged["expected_difference"],
                    "perplexity_increase": judged["perplexity_increase"],
                    "price_text": judged["price_text"],
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


def _judge(judge: JointEvaluator, axis: str, heads: Chosen) -> Json:
    if not (heads.heads or heads.average if isinstance(heads, HeadSelection) else heads):
        zero = {"value": 0.0, "ci95": [0.0, 0.0]}
        text = judge.text([])
        return {
            "expected_difference": zero,
            "perplexity": text["perplexity"],
            "perplexity_increase": zero,
            "price_text": None,
        }
    expected, text, price = judge.expected(axis, heads), judge.text(heads), judge.price(heads)
    return {
        "expected_difference": {key: expected[key] for key in ("value", "ci95")},
        "perplexity": text["perplexity"],
        "perplexity_increase": price["increase"],
        "price_text": price["text"],
    }


def _sampled(judge: JointEvaluator, axis: str, heads: Chosen) -> Json:
    found = judge.sampled(axis, heads)
    kept = ("difference", "adjusted_difference", "expected_difference", "toxicity_difference")
    return {
        "bias": {"value": found["pruned"]["bias"], "ci95": found["pruned"]["ci95"]},
        "mean_toxicity": found["pruned"]["mean_toxicity"],
        "gaps": found["pruned"]["gaps"],
        **{key: found[key] for key in (*kept, *ALSO, "verdict", "degeneration")},
    }


def _is(point: Point, pick: Mapping[str, Any] | None) -> bool:
    """Whether a point is the one that the search liked best."""
    own = {"alpha": point.alpha, "gamma": point.gamma}
    return point.method == "fasp" and own == pick
