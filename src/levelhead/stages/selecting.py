"""The select stage: which heads to prune, by what the scores of a run say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from levelhead import runs
from levelhead.config import AVERAGE, RunConfig
from levelhead.damage import reads_run
from levelhead.errors import SelectionError, UnreliableScoresError
from levelhead.journal import sums
from levelhead.models.architectures import head_counts, key_value_heads
from levelhead.models.loading import load_config
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scores import MIN_RELIABILITY, PPL, ScoreTable, bias_metric
from levelhead.scoring.score_table import unreliable
from levelhead.scoring.stability import resampled_name
from levelhead.selection import select_heads
from levelhead.selection.agreement import agreement_warnings, split_half_agreement
from levelhead.selection.inclusion import (
    Inclusion,
    Rule,
    check_core,
    core_of,
    inclusion,
    inclusion_details,
)
from levelhead.selection.joint import JOINT, JointOptions
from levelhead.selection.rules import PROTECTING, protected_heads, ranked_by
from levelhead.selection.soft import soft_selection
from levelhead.selection.units import in_rows, in_units, listed
from levelhead.session import Session
from levelhead.stages.averaging import Averages, averaged, change_file
from levelhead.stages.joint import Judge, decided
from levelhead.stages.predicting import predicted
from levelhead.stages.searching import searched
from levelhead.stages.tables import scored_table


def chosen_heads(
    table: ScoreTable,
    axis: str | None,
    method: str,
    gamma: float,
    alpha: float,
    seed: int,
    per_layer_equal: bool = False,
    groups: int = 1,
    joint: JointOptions = JOINT,
    soft: bool = False,
    core: float | None = None,
) -> HeadSelection:
    """Choose by a table alone, which has no resamples: `core` is refused."""
    if axis is None:
        if not table.axes:
            raise SelectionError("the score table has no bias_without_AXIS column to select by")
        axis = table.axes[0]
    chosen = select_heads(
        table,
        axis=axis,
        method=method,
        gamma=gamma,
        alpha=alpha,
        seed=seed,
        per_layer_equal=per_layer_equal,
        groups=groups,
        joint=joint,
    )
    if core is not None:
        core_of(chosen, None, core)
    if soft:
        chosen = soft_selection(table, chosen, axis, joint)
    return in_units(chosen, table)


@reads_run("judge the scores")
def refuse_noise(folder: RunFolder, config: RunConfig, least: float = MIN_RELIABILITY) -> None:
    """Refuse to choose by a ranking that is mostly noise: the one rule of select, run and retry.

    Methods that do not rank by bias effects (random, magnitude, ...) are let pass, and so is a
    search that reads sets with the model: texts that no head was scored on decide there.

    Args:
        least: split-half reliability from which on a ranking counts as more than noise.

    Raises:
        UnreliableScoresError: the method is to rank by bias effects, and they are noise.
    """
    if config.budget is not None and config.finalists:
        return
    axis = config.axis[0]
    details = runs.read_json(folder.require(runs.DETAILS, f"score --out {folder.path}"))
    ranked = bias_metric(axis) in ranked_by(config.method, axis)
    if ranked and axis in details["axes"] and (why := unreliable(details, axis, least)):
        raise UnreliableScoresError(
            "; ".join([*why, "to choose heads all the same: --allow-unreliable"])
        )


@reads_run("select heads")
def select_stage(
    folder: RunFolder,
    config: RunConfig,
    least: float = MIN_RELIABILITY,
    per_layer_equal: bool = False,
    joint: JointOptions = JOINT,
    judge: Judge | None = None,
    keep: Callable[[HeadSelection], None] | None = None,
    averages: Averages | None = None,
) -> HeadSelection:
    """Choose, and write selection.json.

    Args:
        keep: called with what is chosen before it is written; it may refuse.
        averages: what method average reads with; it cannot do without.
        joint: further options of method joint.
        judge: reads finalists of method joint with the model; none: predictions decide.
    """
    of = _searched_of(folder, config)
    if (held := _held(folder, of)) is not None:
        if keep is not None:
            keep(held)
        return held
    if config.method == AVERAGE:
        return _averaged(folder, config, averages, keep, of)
    table = scored_table(folder)
    axis, core = config.axis[0], config.core
    if core is not None:
        _check_core(core, config)
    groups = _groups(config) if per_layer_equal and table.unit == "head" else 1
    if config.budget is not None:
        chosen, config = _searched(table, config, per_layer_equal, joint, judge)
        joint = replace(joint, max_ppl_increase=config.budget)
    shares = (config.method, config.gamma, config.alpha, config.seed, per_layer_equal, groups)
    if config.budget is None:
        chosen = chosen_heads(table, axis, *shares, joint)
        if config.method == "joint":
            chosen = decided(folder, chosen, axis, joint, judge, config.finalists)
    selected = len(in_rows(chosen).heads)
    found = None if config.soft else _inclusion(folder, table, axis, shares)
    if core is not None:
        chosen = in_units(core_of(in_rows(chosen), found, core), table)
    if config.soft and config.budget is None:
        chosen = soft_selection(table, chosen, axis, joint)
    details = runs.read_json(folder.require(runs.DETAILS, f"score --out {folder.path}"))
    protects = config.method in PROTECTING
    kept = listed(protected_heads(table, config.gamma), table) if protects else []
    agreement = _agreement(folder, table, chosen, axis, shares, joint)
    selection = replace(
        chosen,
        details={
            **(chosen.details or {}),
            **predicted(table, chosen),
            "axis": axis,
            "reliable": not (
                bias_metric(axis) in ranked_by(config.method, axis)
                and unreliable(details, axis, least)
            ),
            "reliability": details["axes"][axis]["reliability"],
            "agreement": agreement,
            **inclusion_details(in_rows(chosen), found, core, selected),
            "warnings": [*agreement_warnings(agreement), *_raced_for(folder, config, details)],
            "protected": kept,
        },
    )
    selection = _marked(selection, of)
    if keep is not None:
        keep(selection)
    runs.write_json(folder.path / runs.SELECTION, selection.to_json())
    return selection


def _searched_of(folder: RunFolder, config: RunConfig) -> str | None:
    """What a search with the model rests on, as a digest; None: nothing is searched by reading."""
    if config.budget is None or not config.finalists:
        return None
    found = hashlib.sha256(config.fingerprint().encode())
    found.update(folder.require(runs.SCORES, f"score --out {folder.path}").read_bytes())
    for name in (*config.price_texts, config.average_keep):  # the user's files may change
        if name is not None and Path(name).is_file():
            found.update(Path(name).read_bytes())
    return found.hexdigest()


def _held(folder: RunFolder, of: str | None) -> HeadSelection | None:
    """The selection of the very same search, where its files are as they were written."""
    path = folder.path / runs.SELECTION
    if of is None or not path.exists() or not sums.is_whole(path):
        return None
    found = read_selection(path)
    if (found.details or {}).get("search", {}).get("of") != of:
        return None
    whole = found.change is None or sums.is_whole(found.change)
    return found if whole else None


def _marked(selection: HeadSelection, of: str | None) -> HeadSelection:
    """With what its search rests on."""
    details = dict(selection.details or {})
    if of is None or "search" not in details:
        return selection
    return replace(selection, details=details | {"search": details["search"] | {"of": of}})


def _averaged(
    folder: RunFolder,
    config: RunConfig,
    averages: Averages | None,
    keep: Callable[[HeadSelection], None] | None,
    of: str | None,
) -> HeadSelection:
    """The same of method average, whose change of weights is written too."""
    assert averages is not None  # noqa: S101 - who asks for it gives them
    chosen, edit = averaged(folder, config, averages)
    chosen = _marked(chosen, of)
    if keep is not None:
        keep(chosen)
    runs.write_arrays(change_file(folder.path), edit.arrays())
    runs.write_json(folder.path / runs.SELECTION, chosen.to_json())
    return chosen


def _searched(
    table: ScoreTable,
    config: RunConfig,
    per_layer_equal: bool,
    joint: JointOptions,
    judge: Judge | None,
) -> tuple[HeadSelection, RunConfig]:
    """The set found within the budget, and the options that choose it without a search."""
    assert config.budget is not None  # noqa: S101 - the caller looked
    if per_layer_equal:
        raise SelectionError(
            "--budget searches sets of any shape: leave out --per-layer-equal, or name --alpha"
        )
    axis, count = config.axis[0], config.finalists
    chosen = searched(table, axis, config.budget, joint, judge, count, config.soft)
    gamma, alpha = cast(float, chosen.gamma), cast(float, chosen.alpha)
    soft = chosen.gates is not None
    return chosen, replace(config, method=chosen.method, gamma=gamma, alpha=alpha, soft=soft)


def _check_core(core: float, config: RunConfig) -> None:
    check_core(core)
    if config.soft:
        raise SelectionError("--core leaves heads out, --soft scales them by gates: leave one out")


def _inclusion(
    folder: RunFolder,
    table: ScoreTable,
    axis: str,
    shares: tuple[str, float, float, int, bool, int],
) -> Inclusion | None:
    """How often resamples of the run select each head; None: nothing of it was resampled."""
    method, gamma, alpha, _, per_layer_equal, groups = shares
    arrays = runs.read_arrays(folder.path / runs.STABILITY)
    metrics = (PPL, bias_metric(axis))
    drawn = {m: arrays[resampled_name(m)] for m in metrics if resampled_name(m) in arrays}
    rule = Rule(
        axis=axis,
        method=method,
        gamma=gamma,
        alpha=alpha,
        groups=groups if per_layer_equal else None,
    )
    return inclusion(table, drawn, rule)


def _agreement(
    folder: RunFolder,
    table: ScoreTable,
    chosen: HeadSelection,
    axis: str,
    shares: tuple[str, float, float, int, bool, int],
    joint: JointOptions,
) -> dict[str, Any]:
    """How far two halves of the run choose the same heads in the same way."""
    halves = runs.read_arrays(folder.path / runs.HALVES)
    if shares[0] != "joint":
        return split_half_agreement(halves, axis, *shares)
    if chosen.gates is not None:
        return {}
    method, gamma, alpha, seed, per_layer_equal, groups = shares
    if joint.max_ppl_increase is not None and not per_layer_equal:  # it may have taken fewer
        alpha = (len(chosen.heads) + 0.5) / (table.num_layers * table.num_heads)
    weight = (chosen.details or {})["lambda"]
    fixed = replace(joint, kl_weight=weight, max_ppl_increase=None)
    return split_half_agreement(
        halves, axis, method, gamma, alpha, seed, per_layer_equal, groups, table, fixed
    )


def _groups(config: RunConfig) -> int:
    """How many groups of query heads share a key/value head; 1 where none shares one."""
    model = load_config(Session(config).base_path, config.revision)
    _, num_heads = head_counts(model)
    groups = key_value_heads(model)
    return groups if groups < num_heads else 1


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
        found = HeadSelection.from_json(runs.read_json(path))
        return found if found.average is None else replace(found, change=change_file(path.parent))
    except SelectionError as error:
        raise SelectionError(f"{path}: {error}") from error
