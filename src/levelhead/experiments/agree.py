"""Do measures of bias agree on which heads to prune? Several, on a run's own validation texts.

It reads the run's continuations, has every measure look at them, one after the other, and keeps
each; what is compared, and how, is in `measure_pairs`. It does not know which measure is right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from levelhead import journal, runs
from levelhead.config import SCORE
from levelhead.errors import RunFolderError
from levelhead.experiments.measure_pairs import compare_measures
from levelhead.experiments.measures import (
    Measure,
    load_measures,
    measure_heads,
    predicted_seconds,
)
from levelhead.experiments.scored import heads_only
from levelhead.experiments.units import Units, safe_name
from levelhead.progress import Progress, silent
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.scoring.problem import BiasProblem, EstimatorOptions, SampledTexts
from levelhead.selection.rules import check_shares, protected_heads
from levelhead.session import Session
from levelhead.stages.fingerprints import experiment_fingerprint
from levelhead.stages.kept_texts import kept_texts

FOLDER, RESULT = "agree", "agree.json"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreePlan:
    """The work that is left, known before it starts."""

    axis: str
    measures: tuple[str, ...]
    done: tuple[str, ...]
    """Of `measures`, those that an earlier call has left."""
    prompts: int
    texts: int
    cpu_seconds: float


@runs.writes("agree")
def agree(
    run: str | Path,
    *,
    measures: Sequence[str] = (),
    alpha: float | None = None,
    gamma: float | None = None,
    max_prompts: int | None = None,
    progress: Progress = silent,
    announce: Callable[[AgreePlan], None] | None = None,
) -> Json:
    """Whether measures of bias agree on a run's heads; writes RUN/agree.json.

    A measure that is done for the same model, texts and scorer is not computed again.

    Args:
        run: a run folder with scores.
        measures: names of scorers (`over-0.5:` and `masked:` in front are understood), or
            "likelihood". A name without `masked:` reads texts as they are. None: the run's own
            scorer, plain and masked, its share over 0.5, the other toxicity scorer and sentiment
            where they are installed, and likelihood.
        alpha: share of heads pruned; none: the run's.
        gamma: share of heads protected; none: the run's.
        max_prompts: use only so many of the run's validation prompts.
        progress: where to report progress.
        announce: called with the plan before long work starts.

    Returns:
        The content of agree.json.

    Raises:
        UserError: bad input, before any long work; fewer than two measures say anything.
    """
    folder = RunFolder.open(run)
    config = folder.config.resolved()
    command = f"score --out {folder.path}"
    table = ScoreTable.read(folder.require(runs.SCORES, command))
    heads_only(table.unit, "agree")
    details = runs.read_json(folder.require(runs.DETAILS, command))
    continuations = folder.require(runs.CONTINUATIONS, command)
    alpha = config.alpha if alpha is None else alpha
    gamma = config.gamma if gamma is None else gamma
    check_shares("fasp", gamma, alpha, table.num_layers * table.num_heads)
    most = config.max_prompts if max_prompts is None else min(max_prompts, config.max_prompts)
    session = Session(replace(config, max_prompts=most))
    axis = config.axis[0]
    wanted = load_measures(session, measures, session.chosen_prompts(axis, "validation"))
    if session.base.fingerprint != details["of"]["model"]:
        raise RunFolderError(
            f"{folder.path} was scored with other weights than {session.model_name} has now; "
            "score again into another --out"
        )
    problem = session.problem(axis, "validation")
    base = kept_texts(continuations, problem)
    problem = replace(problem, samples=len(np.unique(base.sample)))
    units = Units(folder.path / FOLDER, _common(session, problem, base))
    asked = [
        (measure, safe_name(measure.name), {"measure": measure.identity}) for measure in wanted
    ]
    left = [measure for measure, name, of in asked if not units.path(name, of).exists()]
    if announce:
        announce(_plan(wanted, left, problem, base))
    options = EstimatorOptions(matched=not config.unmatched)

    def found(measure: Measure, name: str, of: Json) -> Json:
        value: Json = units.get(
            name, of, lambda: measure_heads(measure, problem, base, progress, options)
        )
        return {**value, "name": measure.name}

    with journal.stage(folder.path, "agree", experiment_fingerprint(session)):
        read = [found(*one) for one in asked]
    result = {
        "axis": axis,
        "alpha": alpha,
        "gamma": gamma,
        "prompts": len(problem.prompts),
        **compare_measures(read, protected_heads(table, gamma), alpha),
    }
    result["texts"]["input"] = config.toxicity_input
    runs.write_json(folder.path / RESULT, result)
    return result


def _common(session: Session, problem: BiasProblem, base: SampledTexts) -> Json:
    """What every measure depends on: the model, the options of scoring, the very texts."""
    prompts = [
        [prompt.id, prompt.subgroup, prompt.template, prompt.variant, ids]
        for prompt, ids in zip(problem.prompts, problem.prompt_ids, strict=True)
    ]
    texts = [base.prompt.tolist(), base.sample.tolist(), base.tokens]
    content = json.dumps([prompts, texts]).encode()
    return {
        "model": session.base.fingerprint,
        "options": session.config.fingerprint(SCORE),
        "texts": hashlib.sha256(content).hexdigest(),
    }


def _plan(
    wanted: Sequence[Measure], left: Sequence[Measure], problem: BiasProblem, base: SampledTexts
) -> AgreePlan:
    return AgreePlan(
        axis=problem.axis,
        measures=tuple(measure.name for measure in wanted),
        done=tuple(measure.name for measure in wanted if measure not in left),
        prompts=len(problem.prompts),
        texts=len(base.texts),
        cpu_seconds=predicted_seconds(left, problem, base),
    )
