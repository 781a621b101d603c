"""Do two halves of a run choose the same heads? Overlap of their sets, against chance.

Knows score tables and selection rules, nothing of how halves were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from levelhead.errors import SelectionError
from levelhead.records import HeadSelection
from levelhead.scores import PPL, ScoreTable, bias_metric, column, gap_column, head_count
from levelhead.selection.joint import JOINT, JointOptions
from levelhead.selection.rules import PROTECTING, protected_heads, ranked_by, select_heads

MIN_PROTECTED_OVERLAP = 0.8
"""Below it the perplexity text is too short to say which heads language modelling needs."""


def split_half_agreement(
    halves: Mapping[str, np.ndarray],
    axis: str,
    method: str,
    gamma: float,
    alpha: float,
    seed: int,
    per_layer_equal: bool = False,
    groups: int = 1,
    whole: ScoreTable | None = None,
    joint: JointOptions = JOINT,
) -> dict[str, Any]:
    """Shares of heads that two halves of the run have in common, and what chance would give.

    Each half has only half of the data, so the whole run repeats itself more closely than this.

    Args:
        halves: effects z from random halves of the run, by metric ("ppl", "bias:AXIS"), with
            `gap_halves` and `effect_halves` for method `joint`.
        axis: the axis heads are selected for.
        method: a name in `METHODS`.
        gamma: share of heads protected.
        alpha: share of heads pruned.
        seed: of method `random`.
        per_layer_equal, groups: as in `select_heads`.
        whole: the table of the run, of method `joint`: its costs are every half's.
        joint: how method `joint` chose, with the lambda that it came to.

    Returns:
        `overlap` of the pruned sets and `overlap_chance` (a draw from the heads that may be
        pruned); `protected_overlap` and its `protected_chance`, for methods that protect.
        Only what the halves allow: none without both metrics (for `joint`: without gaps, or with
        no lambda), or for a method that ranks by neither.
    """
    if method == "joint":
        pairs = _joint_tables(halves, whole, axis, joint)
    else:
        pairs = _tables(halves, axis) if ranked_by(method, axis) else []
    pruned, protected, chance = [], [], []
    for tables in pairs:
        try:
            sets = [
                select_heads(
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
                for table in tables
            ]
        except SelectionError:  # a half protects nearly all of some layer, the whole run does not
            continue
        pruned.append(_shared(*map(_heads, sets)))
        kept = [protected_heads(table, gamma) for table in tables]
        most = max(1, max(int(k.sum()) for k in kept))
        protected.append(float((kept[0] & kept[1]).sum() / most))
        free = ~kept[0] if method in PROTECTING else np.ones_like(kept[0])
        size = free.shape[1] // groups
        left = free.reshape(-1, size).sum(axis=1)
        chance.append(float((head_count(alpha, size) / left.clip(1)).mean()))
    if not pruned:
        return {}
    total = halves[PPL].shape[-1] * halves[PPL].shape[-2]
    guarded = head_count(gamma, total) if method in PROTECTING else 0
    found = {
        "overlap": float(np.mean(pruned)),
        "overlap_chance": float(np.mean(chance))
        if per_layer_equal
        else head_count(alpha, total) / max(1, total - guarded),
    }
    if guarded:
        found["protected_overlap"] = float(np.mean(protected))
        found["protected_chance"] = guarded / total
    return found


def _tables(halves: Mapping[str, np.ndarray], axis: str) -> list[list[ScoreTable]]:
    """Both halves of every split, as tables that rank as they do."""
    metric = bias_metric(axis)
    if PPL not in halves or metric not in halves:
        return []
    return [
        [ScoreTable.of_effects({PPL: p, metric: b}) for p, b in zip(z_ppl, z_bias, strict=True)]
        for z_ppl, z_bias in zip(halves[PPL], halves[metric], strict=False)
    ]


def _joint_tables(
    halves: Mapping[str, np.ndarray], whole: ScoreTable | None, axis: str, joint: JointOptions
) -> list[list[ScoreTable]]:
    """The same with gaps and signed effects of every axis; costs and standard errors are shared."""
    if whole is None or whole.cost is None or joint.kl_weight is None or PPL not in halves:
        return []
    known = [a for a in whole.axes if whole.subgroups(a) and gap_halves(a) in halves]
    if not set(joint.axes or (axis,)) <= set(known):
        return []
    splits = range(len(halves[PPL]))
    return [[_joint_table(halves, whole, known, (s, half)) for half in (0, 1)] for s in splits]


def _joint_table(
    halves: Mapping[str, np.ndarray], whole: ScoreTable, axes: list[str], at: tuple[int, int]
) -> ScoreTable:
    """One half, `at` (split, half)."""
    columns = {column(PPL, "without"): -halves[PPL][at]}
    for axis in axes:
        metric = bias_metric(axis)
        columns[column(metric, "without")] = -halves[metric][at]
        for place, name in enumerate(whole.subgroups(axis)):
            error, base, effect = (
                gap_column(part, axis, name, axes) for part in ("base_se", "base", "effect")
            )
            columns[error] = whole.gap("base_se", axis, name)
            columns[base] = halves[gap_halves(axis)][at][place]
            columns[effect] = halves[effect_halves(axis)][at][place]
    return ScoreTable.build(columns, whole.num_layers, whole.num_heads).with_cost(whole.cost)


def gap_halves(axis: str) -> str:
    """Name of the gaps that halves of a run measured, `[splits, 2, subgroups]`."""
    return f"gap:{axis}"


def effect_halves(axis: str) -> str:
    """Name of heads' effects on them, `[splits, 2, subgroups, layers, heads]`."""
    return f"gap_effect:{axis}"


def agreement_warnings(agreement: Mapping[str, Any]) -> list[str]:
    """A warning where the halves protect rather different heads."""
    found = agreement.get("protected_overlap")
    if found is None or found >= MIN_PROTECTED_OVERLAP:
        return []
    return [
        f"two halves of the perplexity text protect only {found:.0%} of the same heads (chance: "
        f"{agreement['protected_chance']:.0%}; at least {MIN_PROTECTED_OVERLAP:.0%} is wanted): "
        "raise --text-tokens, or use a longer --text"
    ]


def _heads(selection: HeadSelection) -> set[tuple[int, int]]:
    return set(selection.heads)


def _shared(first: set[tuple[int, int]], second: set[tuple[int, int]]) -> float:
    return len(first & second) / max(1, len(first))
