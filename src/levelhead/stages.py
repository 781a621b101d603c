"""What each stage of a run does in a run folder; `pipeline` is their public face.

A stage whose output is there, from the same options, model and heads, is not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, PreTrainedModel

from levelhead import __version__, runs
from levelhead.config import EVALUATE, SCORE, RunConfig
from levelhead.errors import ConfigError, RunFolderError, SelectionError, UnreliableScoresError
from levelhead.evaluation import evaluate_run
from levelhead.models.checkpoint import Format, check_pruning, register, save_pruned
from levelhead.models.checksums import saved_heads
from levelhead.models.loading import load_base, load_config
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import prune_heads, refuse_unprunable
from levelhead.progress import Progress
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.sampling import derived_seed
from levelhead.scores import MIN_RELIABILITY, PPL, ScoreTable, bias_metric
from levelhead.scoring import BIAS_ESTIMATORS, PPL_ESTIMATORS
from levelhead.scoring.adaptive import SamplingBudget, score_axis
from levelhead.scoring.effects import SPLITS, AxisEffects
from levelhead.scoring.method_scores import MASK_GRADIENT_TOKENS, magnitude, mask_gradient
from levelhead.scoring.perplexity_effects import PerplexityEffects, paper_windows, text_windows
from levelhead.scoring.problem import EstimatorOptions
from levelhead.scoring.score_table import score_details, score_table, unreliable
from levelhead.selection import select_heads
from levelhead.selection.agreement import agreement_warnings, split_half_agreement
from levelhead.selection.rules import check_shares, protected_heads, ranked_by
from levelhead.session import Plan, Session

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
        "versions": _versions(),
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


def chosen_heads(
    table: ScoreTable,
    axis: str | None,
    method: str,
    gamma: float,
    alpha: float,
    seed: int,
    per_layer_equal: bool = False,
) -> HeadSelection:
    if axis is None:
        if not table.axes:
            raise SelectionError("the score table has no bias_without_AXIS column to select by")
        axis = table.axes[0]
    return select_heads(
        table,
        axis=axis,
        method=method,
        gamma=gamma,
        alpha=alpha,
        seed=seed,
        per_layer_equal=per_layer_equal,
    )


def refuse_noise(folder: RunFolder, config: RunConfig, least: float) -> None:
    """Raise UnreliableScoresError where a method is to rank by bias effects that are noise."""
    axis = config.axis[0]
    details = runs.read_json(folder.require(runs.DETAILS, f"score --out {folder.path}"))
    ranked = bias_metric(axis) in ranked_by(config.method, axis)
    if ranked and axis in details["axes"] and (why := unreliable(details, axis, least)):
        raise UnreliableScoresError(
            "; ".join([*why, "to choose heads all the same: --allow-unreliable"])
        )


def select_stage(
    folder: RunFolder,
    config: RunConfig,
    least: float = MIN_RELIABILITY,
    per_layer_equal: bool = False,
) -> HeadSelection:
    table = ScoreTable.read(folder.require(runs.SCORES, f"score --out {folder.path}"))
    axis = config.axis[0]
    shares = (config.method, config.gamma, config.alpha, config.seed, per_layer_equal)
    chosen = chosen_heads(table, axis, *shares)
    details = runs.read_json(folder.require(runs.DETAILS, f"score --out {folder.path}"))
    protects = config.method == "fasp"
    kept = np.argwhere(protected_heads(table, config.gamma)).tolist() if protects else []
    agreement = split_half_agreement(runs.read_arrays(folder.path / runs.HALVES), axis, *shares)
    selection = replace(
        chosen,
        details={
            **(chosen.details or {}),
            "axis": axis,
            "reliable": not (
                bias_metric(axis) in ranked_by(config.method, axis)
                and unreliable(details, axis, least)
            ),
            "reliability": details["axes"][axis]["reliability"],
            "agreement": agreement,
            "warnings": [*agreement_warnings(agreement), *_raced_for(folder, config, details)],
            "protected": kept,
        },
    )
    runs.write_json(folder.path / runs.SELECTION, selection.to_json())
    return selection


def _raced_for(folder: RunFolder, config: RunConfig, details: dict[str, Any]) -> list[str]:
    """A warning where the protected set was raced for another gamma."""
    scored = folder.config.gamma
    if details["perplexity"].get("estimator") != "exact" or config.gamma == scored:
        return []
    return [
        f"the exact protected set was found for gamma={scored:g}; at gamma={config.gamma:g} the "
        "heads at the boundary are estimates: score again with that --gamma, or with --exhaustive"
    ]


def read_selection(path: Path) -> HeadSelection:
    try:
        return HeadSelection.from_json(runs.read_json(path))
    except SelectionError as error:
        raise SelectionError(f"{path}: {error}") from error


def prune_stage(
    session: Session,
    folder: RunFolder,
    format: Format,  # noqa: A002 - the flag's name
    **options: Any,
) -> PreTrainedModel:
    selection = read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
    if format == "adapter":
        raise ConfigError("a run's model/ is what evaluate reads: an adapter needs another --out")
    target = folder.path / runs.MODEL
    config = load_config(session.base_path, session.config.revision)
    check_pruning(config, selection.by_layer, format)
    # A copy of its own, in the number format it was saved in: the session's base stays as it is.
    loaded = load_base(
        session.base_path, revision=session.config.revision, dtype="saved", device="cpu"
    )
    prune_heads(loaded.model, selection.by_layer)
    save_pruned(loaded.model, target, format, loaded.tokenizer, overwrite=True, **options)
    return loaded.model


def evaluate_stage(session: Session, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    selection = read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
    path = folder.path / runs.EVALUATION
    stamp = {
        "fingerprint": session.config.fingerprint(SCORE, EVALUATE),
        "model": session.base.fingerprint,
        "heads": [list(head) for head in selection.heads],
    }
    if path.exists():
        held: dict[str, Any] = runs.read_json(path)
        if held.get("of") == stamp:
            return held
    pruned = session.load(str(folder.path / runs.MODEL)).model
    # Formats with a stock config say it beside that.
    gone = removed_heads(pruned) or saved_heads(folder.path / runs.MODEL)
    if gone and gone != selection.by_layer:
        raise RunFolderError(
            f"{folder.path / runs.MODEL} lacks other heads than selection.json names; "
            f"run: levelhead prune {folder.path}"
        )
    evaluation, continuations = evaluate_run(session, pruned, selection, progress)
    data = evaluation.to_json() | {"of": stamp, "versions": _versions()}
    scoring = folder.path / runs.DETAILS
    if scoring.exists():
        chosen = (selection.details or {}).get("warnings", [])
        told = [*runs.read_json(scoring)["warnings"], *chosen, *data["warnings"]]
        data["warnings"] = list(dict.fromkeys(told))
    runs.write_continuations(folder.path / runs.CONTINUATIONS, continuations, keep="validation")
    runs.write_json(path, data)
    return data


def holds_pruned(folder: RunFolder, selection: HeadSelection) -> bool:
    """Whether model/ lacks these very heads already."""
    path = folder.path / runs.MODEL
    if not (path / "config.json").exists():
        return False
    read: Any = AutoConfig.from_pretrained
    register()
    return bool(removed_heads(read(path)) == selection.by_layer)


def _versions() -> dict[str, str]:
    """What the numbers were computed with."""
    names = ("torch", "transformers", "numpy", "scipy")
    return {"levelhead": __version__} | {name: version(name) for name in names}
