"""FASP and the baselines it is compared with (arXiv 2312.15398, section 3), as pure functions.

A method says in which order heads go, and which may go at all; how many is the same for all. They
know a table of head scores and nothing of models, prompts or how scores were estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from levelhead.errors import SelectionError
from levelhead.records import Head, HeadSelection
from levelhead.scores import PPL, ScoreTable, bias_metric, head_count

Grid = Float[np.ndarray, "layers heads"]
Order = tuple[Grid, Bool[np.ndarray, "layers heads"]]
"""A score by which heads go, largest first, and which of them may go at all."""


def protected_heads(table: ScoreTable, gamma: float) -> Bool[np.ndarray, "layers heads"]:
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


def largest_per_layer(
    score: Grid, count: int, allowed: Bool[np.ndarray, "layers heads"]
) -> list[Head]:
    """Of every layer the `count` allowed heads with the largest score, ties to the smaller head."""
    masked = np.where(allowed, score, -np.inf)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :count]
    return [(layer, int(head)) for layer, heads in enumerate(order) for head in heads]


def _fasp(table: ScoreTable, axis: str, gamma: float, seed: int) -> Order:
    """Of the heads language modelling does not need, those that add most bias."""
    return table.ranking(bias_metric(axis)), ~protected_heads(table, gamma)


def _bias_only(table: ScoreTable, axis: str, gamma: float, seed: int) -> Order:
    """The largest z_bias, whatever language modelling needs ("fairness only")."""
    return table.ranking(bias_metric(axis)), _any_head(table)


def _ppl_only(table: ScoreTable, axis: str, gamma: float, seed: int) -> Order:
    """The largest z_ppl: least harm to perplexity ("performance only")."""
    return table.ranking(PPL), _any_head(table)


def _magnitude(table: ScoreTable, axis: str, gamma: float, seed: int) -> Order:
    """The smallest L2 norm of the head's weights."""
    return -table.grid("magnitude"), _any_head(table)


def _mask_gradient(table: ScoreTable, axis: str, gamma: float, seed: int) -> Order:
    """The smallest gradient of the loss with respect to the head's gate."""
    return -table.grid("mask_gradient"), _any_head(table)


def _random(table: ScoreTable, axis: str, gamma: float, seed: int) -> Order:
    """A uniform draw from an explicit seed."""
    draw = np.random.default_rng(seed).random((table.num_layers, table.num_heads))
    return draw, _any_head(table)


def _any_head(table: ScoreTable) -> Bool[np.ndarray, "layers heads"]:
    return np.ones((table.num_layers, table.num_heads), dtype=bool)


Rule = Callable[[ScoreTable, str, float, int], Order]
"""(table, axis, gamma, seed) -> the order."""
METHODS: dict[str, Rule] = {
    "fasp": _fasp,
    "bias_only": _bias_only,
    "ppl_only": _ppl_only,
    "magnitude": _magnitude,
    "mask_gradient": _mask_gradient,
    "random": _random,
}


def ranked_by(method: str, axis: str) -> tuple[str, ...]:
    """The metrics a method ranks heads by; none for those that ask no sampled effect."""
    ranked: dict[str, tuple[str, ...]] = {
        "fasp": (PPL, bias_metric(axis)),
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
) -> HeadSelection:
    """The heads to prune.

    Args:
        table: scores of every head.
        axis: the social axis whose bias is to be reduced.
        method: a name in `METHODS`.
        gamma: share of heads protected for language modelling, 0 to 1 (`fasp` only).
        alpha: share of heads pruned, 0 to 1.
        seed: of method `random`.
        per_layer_equal: of every layer floor(alpha * heads per layer), each layer ranked by
            itself; which heads are protected is decided over the whole model all the same.

    Raises:
        SelectionError: an unknown method, gamma or alpha out of range or together too large (for
            one layer, where `per_layer_equal`), or an alpha that prunes nothing.
        ScoreTableError: the table lacks what the method needs.
    """
    total = table.num_layers * table.num_heads
    check_shares(method, gamma, alpha, total)
    score, allowed = METHODS[method](table, axis, gamma, seed)
    if not per_layer_equal:
        heads = largest(score, head_count(alpha, total), allowed)
        return HeadSelection.of(heads, method=method, gamma=gamma, alpha=alpha)
    count = head_count(alpha, table.num_heads)
    _check_layers(alpha, gamma, count, allowed)
    heads = largest_per_layer(score, count, allowed)
    details = {"per_layer_equal": True}
    return HeadSelection.of(heads, method=method, gamma=gamma, alpha=alpha, details=details)


def _check_layers(
    alpha: float, gamma: float, count: int, allowed: Bool[np.ndarray, "layers heads"]
) -> None:
    """Raise SelectionError unless `count` heads may go in every layer, and at least one."""
    num_heads = allowed.shape[1]
    if count == 0:
        raise SelectionError(
            f"alpha={alpha} prunes none of the {num_heads} heads of a layer; with equal numbers "
            f"per layer use at least {math.ceil(1e4 / num_heads) / 1e4:.4f}"
        )
    left = allowed.sum(axis=1)
    short = [int(layer) for layer in np.flatnonzero(left < count)]
    if short:
        others = f" (too few in {len(short) - 1} other layers, too)" if len(short) > 1 else ""
        most = math.floor(1e4 * int(left.min()) / num_heads) / 1e4
        remedy = f", or alpha to {most:.4f} at most" if most else ""
        raise SelectionError(
            f"alpha={alpha} prunes {count} of {num_heads} heads in every layer, but gamma={gamma} "
            f"leaves {left[short[0]]} unprotected in layer {short[0]}{others}; lower gamma{remedy}"
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
    if method == "fasp" and count > left:
        raise SelectionError(
            f"alpha={alpha} prunes {count} heads but gamma={gamma} leaves {left} unprotected; "
            "lower one of them"
        )
