"""The score stage: a run folder is started, and every head of its model scored in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from levelhead import runs
from levelhead.config import SCORE
from levelhead.models.surgery import refuse_unprunable
from levelhead.progress import Progress
from levelhead.runs import RunFolder
from levelhead.sampling import derived_seed
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.scoring import BIAS_ESTIMATORS, PPL_ESTIMATORS
from levelhead.scoring.adaptive import SamplingBudget, score_axis
from levelhead.scoring.effects import SPLITS, AxisEffects
from levelhead.scoring.method_scores import MASK_GRADIENT_TOKENS, magnitude, mask_gradient
from levelhead.scoring.perplexity_effects import PerplexityEffects, paper_windows, text_windows
from levelhead.scoring.problem import EstimatorOptions
from levelhead.scoring.score_table import score_details, score_table
from levelhead.selection.agreement import agreement_warnings, split_half_agreement
from levelhead.selection.rules import check_shares, protected_heads
from levelhead.session import Plan, Session
from levelhead.stages.versions import versions

Announce = Callable[[Plan], None]
"""Called with the plan when every input has been checked, before long work starts."""


def start(
    session: Session, out: str | Path, announce: Announce | None, *, prunes: bool = False
) -> RunFolder:
    """Check everything that can be wrong, then make or reopen the folder.

    Args:
        prunes: whether heads are to be removed, which not every model allows that can be scored.
    """
    config = session.config
    check_shares(config.method, config.gamma, config.alpha)
    RunFolder.check(out, config)
    plan = session.plan()
    check_shares(config.method, config.gamma, config.alpha, plan.heads)
    if prunes:
        refuse_unprunable(session.base.model)
    folder = RunFolder.create(out, config)
    if announce:
        announce(plan)
    return folder


def score_stage(session: Session, folder: RunFolder, progress: Progress) -> ScoreTable:
    config = session.config
    path = folder.path / runs.SCORES
    stamp = {"fingerprint": config.fingerprint(SCORE), "model": session.base.fingerprint}
    if path.exists() and runs.read_json(folder.path / runs.DETAILS).get("of") == stamp:
        return ScoreTable.read(path)
    cut = {"every-token": text_windows, "paper": paper_windows}[config.text_windows]
    windows = cut(session.text_ids("validation"), session.base.model, config.text_tokens)
    perplexity = PPL_ESTIMATORS[config.ppl_estimator](
        session.base.model, windows, progress, config.seed, config.gamma
    )
    axes = _score_axes(session, folder, progress, perplexity)
    few = windows[: max(1, MASK_GRADIENT_TOKENS // windows.shape[1])]
    table = score_table(
        perplexity,
        axes,
        {
            "magnitude": magnitude(session.base.model),
            "mask_gradient": mask_gradient(session.base.model, few, progress),
        },
    )
    rng = np.random.default_rng(derived_seed(config.seed, "halves"))
    halves = {PPL: perplexity.halves(rng, SPLITS)}
    halves |= {bias_metric(a.axis): a.halves for a in axes if a.halves is not None}
    text = session.text("validation")
    agreement = {
        axis: split_half_agreement(halves, axis, "fasp", config.gamma, config.alpha, 0)
        for axis in config.axis
    }
    details = score_details(perplexity, axes)
    details["warnings"] += agreement_warnings(agreement[config.axis[0]])
    details |= {
        "of": stamp,
        "model": session.model_name,
        "revision": session.base.revision,
        "scorer": session.scorer.identity,
        "text": {"name": text.name, "sha256": text.sha256, "licence": text.licence},
        "agreement": agreement,
        "versions": versions(),
    }
    runs.write_arrays(folder.path / runs.HALVES, halves)
    runs.write_json(folder.path / runs.DETAILS, details)
    runs.write_text(path, table.to_csv())  # last: where it is, the stage is done
    return table


def _score_axes(
    session: Session, folder: RunFolder, progress: Progress, perplexity: PerplexityEffects
) -> list[AxisEffects]:
    """Effects on every axis; what was written is kept as soon as an axis is done."""
    config = session.config
    known = ScoreTable.of_effects({PPL: perplexity.effect})
    options = EstimatorOptions(
        matched=not config.unmatched,
        common_random_numbers=config.common_random_numbers,
        alpha=config.alpha,
        protected=protected_heads(known, config.gamma),
    )
    end = None if config.time_budget is None else time.monotonic() + 60 * config.time_budget
    axes, rows = [], []
    for number, axis in enumerate(config.axis):
        problem = session.problem(axis, "validation")
        left = None if end is None else (end - time.monotonic()) / (len(config.axis) - number)
        budget = SamplingBudget(
            reliability=config.reliability, most_samples=config.most_samples, seconds=left
        )
        estimator = BIAS_ESTIMATORS[config.estimator]
        texts, effects = score_axis(problem, estimator, budget, progress, options)
        axes.append(effects)
        rows += texts.records(problem)
        runs.write_continuations(folder.path / runs.CONTINUATIONS, rows)
    return axes
