"""FASP and the baselines it is compared with (arXiv 2312.15398, section 3), as pure functions.

A method says in which order heads go, and which may go at all; or, in `SETS`, it chooses a set as a
whole. How many is the same for all. They know a table of head scores and nothing of models, prompts
or how scores were estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float

from levelhead.errors import SelectionError
from levelhead.records import Head, HeadSelection
from levelhead.scores import PPL, ScoreTable, bias_metric, head_count
from levelhead.selection.joint import (
    JOINT,
    JointOptions,
    SetChoice,
    cheapest_set,
    joint_set,
    pairs_of,
)
from levelhead.selection.set_search import SetSpace

Grid = Float[np.ndarray, "layers heads"]
Order = tuple[Grid, Bool[np.ndarray, "layers heads"]]
"""A score by which heads go, largest first, and which of them may go at all."""


class Ranked(Protocol):
    """What a ranking asks of a score table."""

    @property
    def num_layers(self) -> int:
        """Of the model."""
        ...

    @property
    def num_heads(self) -> int:
        """Of each layer."""
        ...

    def ranking(self, metric: str) -> Grid:
        """As `ScoreTable.ranking`."""
        ...

    def grid(self, name: str) -> Grid:
        """As `ScoreTable.grid`."""
        ...


def protected_heads(table: Ranked, gamma: float) -> Bool[np.ndarray, "layers heads"]:
    """The floor(gamma N) heads with the smallest z_ppl, by the authors' threshold rule.

    A head whose z_ppl equals that of the last unprotected head is not protected either, so ties
    at the boundary protect fewer heads, never more.
    """
    z_ppl = table.ranking(PPL)
    count = head_count(gamma, z_ppl.size)
    if count >= z_ppl.size:
        return np.ones(z_ppl.shape, dtype=bool)
    last_unprotected = np.sort(z_ppl, axis=None)[count]
    protected: Bool[np.ndarray, "layers heads"] = z_ppl < last_unprotected
    return protected


def largest(score: Grid, count: int, allowed: Bool[np.ndarray, "layers heads"]) -> list[Head]:
    """The `count` allowed heads with the largest score, ties to the smaller (layer, head)."""
    flat = np.where(allowed, score, -np.inf).reshape(-1)
    order = np.argsort(-flat, kind="stable")[:count]
    return [(int(i) // score.shape[1], int(i) % score.shape[1]) for i in order]


def largest_per_group(
    score: Grid, count: int, allowed: Bool[np.ndarray, "layers heads"], groups: int
) -> list[Head]:
    """Of every group of a layer's heads the `count` allowed ones with the largest score.

    Ties go to the smaller head. With one group a layer is ranked as a whole.
    """
    size = score.shape[1] // groups
    masked = np.where(allowed, score, -np.inf).reshape(-1, size)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :count]
    return [
        (group // groups, group % groups * size + int(head))
        for group, heads in enumerate(order)
        for head in heads
    ]


def _fasp(table: Ranked, axis: str, gamma: float, seed: int) -> Order:
    """Of the heads language modelling does not need, those that add most bias."""
    return table.ranking(bias_metric(axis)), ~protected_heads(table, gamma)


def _bias_only(table: Ranked, axis: str, gamma: float, seed: int) -> Order:
    """The largest z_bias, whatever language modelling needs ("fairness only")."""
    return table.ranking(bias_metric(axis)), _any_head(table)


def _ppl_only(table: Ranked, axis: str, gamma: float, seed: int) -> Order:
    """The largest z_ppl: least harm to perplexity ("performance only")."""
    return table.ranking(PPL), _any_head(table)


def _magnitude(table: Ranked, axis: str, gamma: float, seed: int) -> Order:
    """The smallest L2 norm of the head's weights."""
    return -table.grid("magnitude"), _any_head(table)


def _mask_gradient(table: Ranked, axis: str, gamma: float, seed: int) -> Order:
    """The smallest gradient of the loss with respect to the head's gate."""
    return -table.grid("mask_gradient"), _any_head(table)


def _random(table: Ranked, axis: str, gamma: float, seed: int) -> Order:
    """A uniform draw from an explicit seed."""
    draw = np.random.default_rng(seed).random((table.num_layers, table.num_heads))
    return draw, _any_head(table)


def _any_head(table: Ranked) -> Bool[np.ndarray, "layers heads"]:
    return np.ones((table.num_layers, table.num_heads), dtype=bool)


Rule = Callable[[Ranked, str, float, int], Order]
"""(table, axis, gamma, seed) -> the order."""
RANKINGS: dict[str, Rule] = {
    "fasp": _fasp,
    "bias_only": _bias_only,
    "ppl_only": _ppl_only,
    "magnitude": _magnitude,
    "mask_gradient": _mask_gradient,
    "random": _random,
}


SetRule = Callable[[ScoreTable, str, SetSpace, JointOptions], tuple[SetChoice, dict[str, Any]]]
"""(table, axis, what sets are allowed, options) -> the set, and what to remember of the choice."""
SETS: dict[str, SetRule] = {"joint": joint_set, "fisher_only": cheapest_set}
METHODS = (
    "fasp", "joint", "bias_only", "ppl_only", "fisher_only", "magnitude", "mask_gradient", "random",
)  # fmt: skip
"""All methods by name: of `RANKINGS` and of `SETS`."""
PROTECTING = ("fasp", "joint")
"""Methods that never take a head that gamma protects."""


def ranked_by(method: str, axis: str) -> tuple[str, ...]:
    """The metrics a method ranks heads by; none for those that ask no sampled effect."""
    ranked: dict[str, tuple[str, ...]] = {
        "fasp": (PPL, bias_metric(axis)),
        "joint": (PPL, bias_metric(axis)),
        "bias_only": (bias_metric(axis),),
        "ppl_only": (PPL,),
    }
    return ranked.get(method, ())


def select_heads(
    table: ScoreTable,
    *,
    axis: str,
    method: str = "fasp",
    gamma: float = 0.3,
    alpha: float = 0.1,
    seed: int = 0,
    per_layer_equal: bool = False,
    groups: int = 1,
    joint: JointOptions = JOINT,
) -> HeadSelection:
    """The heads to prune.

    Args:
        table: scores of every head.
        axis: the social axis whose bias is to be reduced.
        method: a name in `METHODS`.
        gamma: share of heads protected for language modelling, 0 to 1 (`fasp`, `joint`).
        alpha: share of heads pruned, 0 to 1.
        seed: of method `random`.
        per_layer_equal: of every layer floor(alpha * heads per layer), each layer ranked by
            itself; which heads are protected is decided over the whole model all the same.
        groups: with `per_layer_equal`, how many groups of heads (those that share a key/value
            head) a layer has: floor(alpha * heads per group) go from each.
        joint: further options of method `joint`.

    Raises:
        SelectionError: an unknown method, gamma or alpha out of range or together too large (for
            one layer, where `per_layer_equal`), or an alpha that prunes nothing.
        ScoreTableError: the table lacks what the method needs.
    """
    total = table.num_layers * table.num_heads
    check_shares(method, gamma, alpha, total)
    details: dict[str, Any] = {"per_layer_equal": True} if per_layer_equal else {}
    if method in SETS:
        allowed = ~protected_heads(table, gamma) if method in PROTECTING else _any_head(table)
        cells, count = 1, head_count(alpha, total)
        if per_layer_equal:
            cells = table.num_layers * groups
            count = cells * _equal_share(alpha, gamma, allowed, groups)
        space = SetSpace(count=count, allowed=allowed.reshape(-1), cells=cells)
        choice, found = SETS[method](table, axis, space, joint)
        heads, details = pairs_of(choice.heads, table.num_heads), details | found
    else:
        heads = ranked_heads(
            table, axis, method, gamma, alpha, seed, groups if per_layer_equal else None
        )
    return HeadSelection.of(heads, method=method, gamma=gamma, alpha=alpha, details=details or None)


def ranked_heads(
    table: Ranked, axis: str, method: str, gamma: float, alpha: float, seed: int, groups: int | None
) -> list[Head]:
    """The heads that a method of `RANKINGS` prunes; `groups`: as many of each group of a layer.

    Raises:
        SelectionError: some group has too few heads that may go.
    """
    score, allowed = RANKINGS[method](table, axis, gamma, seed)
    if groups is None:
        return largest(score, head_count(alpha, score.size), allowed)
    return largest_per_group(score, _equal_share(alpha, gamma, allowed, groups), allowed, groups)


def _equal_share(
    alpha: float, gamma: float, allowed: Bool[np.ndarray, "layers heads"], groups: int
) -> int:
    """How many heads go from every group, where as many can."""
    count = head_count(alpha, allowed.shape[1] // groups)
    _check_groups(alpha, gamma, count, allowed, groups)
    return count


def _check_groups(
    alpha: float, gamma: float, count: int, allowed: Bool[np.ndarray, "layers heads"], groups: int
) -> None:
    """Raise SelectionError unless `count` heads may go in every group, and at least one."""
    size = allowed.shape[1] // groups
    where = (
        "of a layer" if groups == 1 else f"that share a key/value head ({groups} groups a layer)"
    )
    if count == 0:
        raise SelectionError(
            f"alpha={alpha} prunes none of the {size} heads {where}; with equal numbers "
            f"per layer use at least {math.ceil(1e4 / size) / 1e4:.4f}"
        )
    left = allowed.reshape(-1, size).sum(axis=1)
    short = sorted({int(group) // groups for group in np.flatnonzero(left < count)})
    if short:
        others = f" (too few in {len(short) - 1} other layers, too)" if len(short) > 1 else ""
        most = math.floor(1e4 * int(left.min()) / size) / 1e4
        remedy = f", or alpha to {most:.4f} at most" if most else ""
        part, of = ("layer", "") if groups == 1 else ("group of heads", " a group")
        least = left.reshape(-1, groups)[short[0]].min()
        raise SelectionError(
            f"alpha={alpha} prunes {count} of {size} heads in every {part}, but gamma={gamma} "
            f"leaves {least} unprotected in{of and of + ' of'} layer {short[0]}{others}; lower "
            f"gamma{remedy}"
        )


def check_shares(method: str, gamma: float, alpha: float, total: int | None = None) -> None:
    """Raise SelectionError for what no table could satisfy; with `total` heads, if it is known."""
    if method not in METHODS:
        raise SelectionError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    for name, share in (("gamma", gamma), ("alpha", alpha)):
        if not 0 <= share <= 1:  # also false for NaN
            raise SelectionError(f"{name}={share} is not a share of heads between 0 and 1")
    if alpha == 0:
        raise SelectionError("alpha=0 prunes nothing; give a share of heads above 0")
    if total is None:
        return
    count = head_count(alpha, total)
    if count == 0:
        raise SelectionError(
            f"alpha={alpha} prunes none of {total} heads; use at least {1 / total:.4f}"
        )
    left = total - head_count(gamma, total)
    if method in PROTECTING and count > left:
        raise SelectionError(
            f"alpha={alpha} prunes {count} heads but gamma={gamma} leaves {left} unprotected; "
            "lower one of them"
        )
