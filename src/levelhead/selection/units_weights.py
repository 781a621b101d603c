"""Which single weights to zero: FASP's rule over weights, or 2 of every 4.

    protect the floor(gamma N) weights whose zeroing would cost most; of the others zero the
    floor(sparsity N) with the largest fall of bias

With a pattern 2:4 as many go everywhere, so that protection cannot forbid: it orders. Of each four
inputs of an output unprotected weights go first, by fall of bias, then protected ones, those that
cost least first. Pure: knows arrays, no models.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from levelhead.errors import SelectionError
from levelhead.scores import head_count

Scores = Mapping[str, Float[np.ndarray, "*shape"]]
Chosen = dict[str, Bool[np.ndarray, "*shape"]]


def select_weights(fall: Scores, cost: Scores, *, gamma: float, sparsity: float) -> Chosen:
    """Masks of the weights to zero, by matrix.

    Raises:
        SelectionError: shares out of range, together too large, or none to zero.
    """
    total = sum(values.size for values in fall.values())
    count = _check(gamma, sparsity, total)
    falls, costs = (np.concatenate([s[name].ravel() for name in fall]) for s in (fall, cost))
    protected = _largest(costs, head_count(gamma, total))
    falls = np.where(protected, -np.inf, falls)
    return _split(_largest(falls, count), fall)


def select_two_of_four(
    fall: Scores, cost: Scores, input_dims: Mapping[str, int], *, gamma: float
) -> Chosen:
    """Masks that zero 2 of every 4 consecutive inputs of each output.

    Raises:
        SelectionError: gamma out of range, or a matrix whose inputs are no multiple of 4.
    """
    total = sum(values.size for values in fall.values())
    _check(gamma, 0.5, total, together=False)
    costs = np.concatenate([cost[name].ravel() for name in fall])
    protected = _split(_largest(costs, head_count(gamma, total)), fall)
    chosen: Chosen = {}
    for name, values in fall.items():
        size = values.shape[input_dims[name]]
        if size % 4:
            raise SelectionError(f"2:4 needs inputs in fours; {name} has {size}")
        own = (values, cost[name], protected[name])
        fours = [np.moveaxis(a, input_dims[name], -1).reshape(-1, 4) for a in own]
        # The last key counts most: unprotected first; among equals by what the first keys say.
        by_fall = np.where(fours[2], fours[1], -fours[0])
        order = np.lexsort((by_fall, fours[2]), axis=-1)[:, :2]
        mask = np.zeros(fours[0].shape, dtype=bool)
        np.put_along_axis(mask, order, True, axis=-1)
        moved = np.moveaxis(values, input_dims[name], -1).shape
        chosen[name] = np.moveaxis(mask.reshape(moved), -1, input_dims[name])
    return chosen


def _check(gamma: float, sparsity: float, total: int, *, together: bool = True) -> int:
    for name, share in (("gamma", gamma), ("sparsity", sparsity)):
        if not 0 <= share <= 1:
            raise SelectionError(f"{name}={share} is not a share of weights between 0 and 1")
    count, left = head_count(sparsity, total), total - head_count(gamma, total)
    if count == 0:
        raise SelectionError(f"sparsity={sparsity} zeroes none of {total} weights; raise it")
    if together and count > left:
        raise SelectionError(
            f"sparsity={sparsity} zeroes {count:,} weights but gamma={gamma} leaves {left:,} "
            "unprotected; lower one of them"
        )
    return count


def _largest(values: Float[np.ndarray, " weights"], count: int) -> Bool[np.ndarray, " weights"]:
    """Exactly the `count` largest; ties go to the earlier weight."""
    mask = np.zeros(len(values), dtype=bool)
    if count == 0:
        return mask
    last = np.partition(values, len(values) - count)[len(values) - count]
    mask[values > last] = True
    mask[np.flatnonzero(values == last)[: count - int(mask.sum())]] = True
    return mask


def _split(mask: Bool[np.ndarray, " weights"], like: Scores) -> Chosen:
    ends = np.cumsum([values.size for values in like.values()])[:-1]
    parts = np.split(mask, ends)
    return {n: p.reshape(like[n].shape) for n, p in zip(like, parts, strict=True)}
