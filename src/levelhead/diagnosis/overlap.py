"""Do seeds choose the same heads? Overlap of the sets that they would prune, against chance."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from levelhead.diagnosis.by_seed import SeedScores
from levelhead.records import Head
from levelhead.scores import PPL, ScoreTable, bias_metric, column, head_count
from levelhead.selection.rules import protected_heads, select_heads

DRAWS = 1999
"""Tables of random rankings that the overlap is compared with; the least p-value is 1 / 2000."""
AT_ONCE = 2_000_000
"""Numbers held at once per array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Pruned heads that two seeds have in common, as a share of the heads pruned."""

    share: float
    """Mean over pairs of seeds."""
    chance: float
    """What two sets drawn at random from the unprotected heads would have in common."""
    range: tuple[float, float]
    """Smallest and largest of the pairs."""
    p: float
    """Share of tables of random rankings whose mean overlap is as large or larger, above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What one seed would prune of some heads."""

    seed: int
    """Its place among the seeds."""
    chosen: frozenset[Head]
    free: Bool[np.ndarray, " heads"]
    """Of all heads: those that it may choose."""


def set_overlap(scores: SeedScores, gamma: float, alpha: float) -> Overlap | None:
    """Overlap of the sets that FASP would prune by each seed's own bias and perplexity.

    Where seeds lack different heads, both choose among the heads they have in common: a head
    that one of them never scored is no disagreement. N of gamma N and alpha N is the number of
    those heads. None: no pair has enough heads to prune one.

    The p-value is of a permutation test: every seed ranks its unprotected heads at random, all
    pairs are formed of these rankings, and their mean overlap is compared. Pairs that share a seed
    depend on each other in the drawn tables as in the real one. The draws are the same every time.

    Raises:
        SelectionError: gamma and alpha that cannot be satisfied together.
    """
    present = np.isfinite(scores.bias)

    @functools.cache  # where no head lacks a seed, each seed chooses once
    def choice(seed: int, common: bytes) -> _Choice:
        return _choice(scores, seed, np.frombuffer(common, dtype=bool), gamma, alpha)

    pairs = []
    for a, b in itertools.combinations(range(len(scores.seeds)), 2):
        common = present[a] & present[b]
        if head_count(alpha, int(common.sum())):
            pairs.append((choice(a, common.tobytes()), choice(b, common.tobytes())))
    if not pairs:
        return None
    shares, chances = [], []
    for first, second in pairs:
        count = len(first.chosen)
        shares.append(len(first.chosen & second.chosen) / count)
        both = (first.free & second.free).sum()
        chances.append(float(count * both / (first.free.sum() * second.free.sum())))
    mean = float(np.mean(shares))
    drawn = _by_chance(pairs, present.shape)
    return Overlap(
        share=mean,
        chance=float(np.mean(chances)),
        range=(min(shares), max(shares)),
        p=float((1 + (drawn >= mean - 1e-9).sum()) / (1 + DRAWS)),
    )


def _by_chance(
    pairs: list[tuple[_Choice, _Choice]], shape: tuple[int, ...]
) -> Float[np.ndarray, " draws"]:
    """Mean overlap of the pairs where every seed ranks its heads at random."""
    rng = np.random.default_rng(0)  # a table has one diagnosis
    choices = {id(choice): choice for pair in pairs for choice in pair}
    size = max(1, AT_ONCE // int(np.prod(shape)))
    found = []
    for done in range(0, DRAWS, size):
        order = rng.random((min(size, DRAWS - done), *shape))
        drawn = {key: _drawn(order, choice) for key, choice in choices.items()}
        shares = [
            (drawn[id(first)] & drawn[id(second)]).sum(1) / len(first.chosen)
            for first, second in pairs
        ]
        found.append(np.mean(shares, axis=0))
    return np.concatenate(found)


def _drawn(
    order: Float[np.ndarray, "draws seeds heads"], choice: _Choice
) -> Bool[np.ndarray, "draws heads"]:
    """The heads that come first in a seed's random order, of those that it may choose."""
    place = np.where(choice.free, order[:, choice.seed], np.inf)
    last = np.partition(place, len(choice.chosen) - 1, axis=1)[:, [len(choice.chosen) - 1]]
    chosen: Bool[np.ndarray, "draws heads"] = place <= last
    return chosen


def _choice(
    scores: SeedScores, seed: int, common: Bool[np.ndarray, " heads"], gamma: float, alpha: float
) -> _Choice:
    """What a seed prunes among the common heads.

    They stand in one row of heads: selection depends on their order only, so that a table with
    gaps needs no layout.
    """
    columns = {
        column(PPL, "without"): scores.ppl[seed, common][None],
        column(bias_metric(scores.axis), "without"): scores.bias[seed, common][None],
    }
    table = ScoreTable.build(columns, 1, int(common.sum()))
    chosen = select_heads(table, axis=scores.axis, gamma=gamma, alpha=alpha)
    free = np.zeros(len(common), dtype=bool)
    free[common] = ~protected_heads(table, gamma)[0]
    return _Choice(seed=seed, chosen=frozenset(chosen.heads), free=free)
