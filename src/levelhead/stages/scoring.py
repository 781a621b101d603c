"""The score stage: a run folder is started, and every head of its model scored in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Int
from torch import Tensor

from levelhead import journal, runs
from levelhead.config import AVERAGE, SCORE, RunConfig
from levelhead.evaluation.averaging import check_averaging
from levelhead.evaluation.divergence import check_text
from levelhead.journal import sums, watch
from levelhead.models.architectures import head_counts
from levelhead.models.repair import NONE
from levelhead.models.units import refuse_unprunable_units
from levelhead.plan import Plan
from levelhead.progress import Progress
from levelhead.records import Unit
from levelhead.runs import RunFolder
from levelhead.sampling import derived_seed
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.scoring.adaptive import SamplingBudget, score_axis
from levelhead.scoring.effects import SPLITS, AxisEffects
from levelhead.scoring.fisher import cost_warnings
from levelhead.scoring.method_scores import MASK_GRADIENT_TOKENS, magnitude, mask_gradient
from levelhead.scoring.perplexity_effects import PerplexityEffects, paper_windows, text_windows
from levelhead.scoring.problem import EstimatorOptions
from levelhead.scoring.score_table import concentration_warnings, score_details, score_table
from levelhead.scoring.stability import Stability, resampled_name, stability
from levelhead.scoring.units import UNIT_BIAS_ESTIMATORS, UNIT_PPL_ESTIMATORS
from levelhead.selection.agreement import (
    agreement_warnings,
    effect_halves,
    gap_halves,
    split_half_agreement,
)
from levelhead.selection.inclusion import Rule, overlap
from levelhead.selection.rules import check_shares, protected_heads
from levelhead.session import Session
from levelhead.stages.fingerprints import fingerprint, stamp
from levelhead.stages.number_format import choose_format, dtype_name, take_format_of
from levelhead.stages.tables import scored_table
from levelhead.stages.versions import versions

Announce = Callable[[Plan], None]
"""Called with the plan when every input has been checked, before long work starts."""


def start(
    session: Session, out: str | Path, announce: Announce | None, *, prunes: bool = False
) -> RunFolder:
    """Check everything that can be wrong, then make or reopen the folder.

    Where `--dtype auto` is left open, it is settled here, for good: `session.config` and the
    folder's hold the format that was chosen.

    Args:
        prunes: whether heads are to be removed, which not every model allows that can be scored.
    """
    take_format_of(session, out)
    config = session.config
    _check_method(config)
    begun = RunFolder.check(out, config)
    session.check()
    calibration = None if begun else choose_format(session)
    config = session.config
    plan = session.plan()
    _check_method(config, plan.heads)
    if config.method == AVERAGE:
        check_averaging(session)
    if prunes:
        refuse_unprunable_units(session.base.model, unit_of(config))
        check_text(session, "test")
        if config.repair != NONE:
            session.repairer.check_inputs(unit_of(config))
    folder = RunFolder.create(out, config, None if calibration is None else calibration.to_json())
    if announce:
        announce(plan)
    return folder


def _check_method(config: RunConfig, heads: int | None = None) -> None:
    """`check_shares`, of a method that has shares."""
    if config.method != AVERAGE:
        check_shares(config.method, config.gamma, config.alpha, heads)


def score_stage(session: Session, folder: RunFolder, progress: Progress) -> ScoreTable:
    of = stamp(session, "validation", session.config.axis, SCORE)
    if (folder.path / runs.SCORES).exists() and _is_whole(folder) and _read_stamp(folder) == of:
        return scored_table(folder)
    with journal.stage(folder.path, "score", fingerprint(session, of)):
        return _score(session, folder, progress, of)


def _is_whole(folder: RunFolder) -> bool:
    """Whether the files of a finished stage are as they were written; else it is repeated."""
    names = [runs.SCORES, runs.DETAILS, runs.HALVES, runs.CONTINUATIONS]
    names += [name for name in (runs.FISHER, runs.STABILITY) if sums.has_entry(folder.path / name)]
    damaged = [name for name in names if not sums.is_whole(folder.path / name)]
    if damaged:
        watch.event(
            "damaged",
            level="warning",
            files=damaged,
            message=f"{', '.join(damaged)} of {folder.path}: missing or not as written; the heads "
            "are scored again",
        )
    return not damaged


def _read_stamp(folder: RunFolder) -> Any:
    found = runs.read_json(folder.path / runs.DETAILS)
    return found.get("of") if isinstance(found, dict) else None


def _score(
    session: Session, folder: RunFolder, progress: Progress, of: dict[str, Any]
) -> ScoreTable:
    config, path = session.config, folder.path / runs.SCORES
    cut = {"every-token": text_windows, "paper": paper_windows}[config.text_windows]
    windows = cut(session.text_ids("validation"), session.base.model, config.text_tokens)
    unit = unit_of(config)
    perplexity = UNIT_PPL_ESTIMATORS[unit][config.ppl_estimator](
        session.base.model, windows, progress, config.seed, config.gamma
    )
    axes, rests_on = _score_axes(session, folder, progress, perplexity)
    table = score_table(perplexity, axes, _method_scores(session, windows, progress))
    table = replace(table, unit=unit)
    rng = np.random.default_rng(derived_seed(config.seed, "halves"))
    halves = {PPL: perplexity.halves(rng, SPLITS)}
    for one in axes:
        halves |= _halves_of(one, unit)
    text = session.text("validation")
    agreement = {
        axis: split_half_agreement(halves, axis, "fasp", config.gamma, config.alpha, 0)
        for axis in config.axis
    }
    details = score_details(perplexity, axes)
    for effects, under in zip(axes, rests_on, strict=True):
        found = details["axes"][effects.axis]
        found |= under.to_json()
        _add_overlaps(found["leave_one_out"], perplexity, effects, under, config)
        details["warnings"] += concentration_warnings(effects.axis, found)
    details["warnings"] += agreement_warnings(agreement[config.axis[0]])
    details |= {
        "of": of,
        "model": session.model_name,
        "revision": session.base.revision,
        "scorer": session.scorer.identity,
        "text": {"name": text.name, "sha256": text.sha256, "licence": text.licence},
        "agreement": agreement,
        "versions": versions(),
        "dtype": dtype_name(session.base.model),
    }
    if perplexity.cost is not None:
        runs.write_arrays(folder.path / runs.FISHER, perplexity.cost.arrays())
        details["warnings"] += cost_warnings(len(perplexity.cost.slope))
    runs.write_arrays(folder.path / runs.HALVES, halves)
    runs.write_arrays(folder.path / runs.STABILITY, _stability_arrays(perplexity, rests_on, config))
    runs.write_json(folder.path / runs.DETAILS, details)
    runs.write_text(path, table.to_csv())  # last: where it is, the stage is done
    return table.with_cost(perplexity.cost)


def _add_overlaps(
    left: dict[str, dict[str, Any]],
    perplexity: PerplexityEffects,
    effects: AxisEffects,
    rests_on: Stability,
    config: RunConfig,
) -> None:
    """Of every ranking with something left out: the share of FASP's heads that it selects too."""
    rule = Rule(axis=effects.axis, method="fasp", gamma=config.gamma, alpha=config.alpha)
    metric = bias_metric(effects.axis)
    whole = {PPL: perplexity.effect, metric: effects.effect}
    without = {"subgroup": rests_on.without_subgroup, "word": rests_on.without_word}
    for kind, rankings in without.items():
        for one in rankings:
            left[kind][one.name]["overlap"] = overlap(rule, whole, whole | {metric: one.z_bias})


def _stability_arrays(
    perplexity: PerplexityEffects, rests_on: Sequence[Stability], config: RunConfig
) -> dict[str, np.ndarray]:
    """As stability.safetensors holds them; perplexity is resampled where bias is."""
    found: dict[str, np.ndarray] = {}
    for one in rests_on:
        found |= one.arrays()
    drawn = [one.resampled for one in rests_on if one.resampled is not None]
    if drawn:
        rng = np.random.default_rng(derived_seed(config.seed, "resamples"))
        found[resampled_name(PPL)] = perplexity.resampled(rng, max(map(len, drawn)))
    return found


def _halves_of(effects: AxisEffects, unit: str) -> dict[str, np.ndarray]:
    """Of an axis, as halves.safetensors holds them; gaps for what is chosen as a set."""
    if effects.halves is None or effects.gap_halves is None:
        return {}
    found = {bias_metric(effects.axis): effects.halves}
    if unit == "head":
        found[gap_halves(effects.axis)] = effects.gap_halves.gap
        found[effect_halves(effects.axis)] = -effects.gap_halves.change
    return found


def _method_scores(
    session: Session, windows: Int[Tensor, "windows time"], progress: Progress
) -> dict[str, Any]:
    """Scores of the baselines, which are defined for heads; of layers how many heads they have."""
    model = session.base.model
    if session.config.unit == "layer":
        num_layers, num_heads = head_counts(model)
        return {"heads": np.full((num_layers, 1), num_heads)}
    if session.config.unit == "neuron":
        return {}
    few = windows[: max(1, MASK_GRADIENT_TOKENS // windows.shape[1])]
    return {
        "magnitude": magnitude(model),
        "mask_gradient": mask_gradient(model, few, progress),
    }


def unit_of(config: RunConfig) -> Unit:
    """What the run scores and prunes."""
    return cast(Unit, config.unit)  # one of the choices


def _score_axes(
    session: Session, folder: RunFolder, progress: Progress, perplexity: PerplexityEffects
) -> tuple[list[AxisEffects], list[Stability]]:
    """Effects on every axis and what they rest on; texts are kept as soon as an axis is done."""
    config = session.config
    known = ScoreTable.of_effects({PPL: perplexity.effect})
    options = EstimatorOptions(
        matched=not config.unmatched,
        common_random_numbers=config.common_random_numbers,
        alpha=config.alpha,
        protected=protected_heads(known, config.gamma),
    )
    end = None if config.time_budget is None else journal.now("begin") + 60 * config.time_budget
    axes, rests_on, rows = [], [], []
    for number, axis in enumerate(config.axis):
        problem = session.problem(axis, "validation")
        left = None if end is None else (end - journal.now(axis)) / (len(config.axis) - number)
        budget = SamplingBudget(
            reliability=config.reliability, most_samples=config.most_samples, seconds=left
        )
        estimator = UNIT_BIAS_ESTIMATORS[unit_of(config)][config.estimator]
        texts, shifts, effects = score_axis(problem, estimator, budget, progress, options)
        axes.append(effects)
        rests_on.append(stability(problem, texts, shifts, effects))
        rows += texts.records(problem)
        runs.write_continuations(folder.path / runs.CONTINUATIONS, rows)
    return axes, rests_on
