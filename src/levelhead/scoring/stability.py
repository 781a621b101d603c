"""What a ranking of heads rests on: each word and subgroup left out, templates and words redrawn.

    share of a word    = cov(z_bias, its part) / var(z_bias)    over heads; shares add up to 1
    its part           = k_s p_w (dT_S - dT_w)                  parts add up to z_bias
    share of a subgroup = sum of its words' shares

dT_w is a head's shift of the texts about the word, p_w the word's part of its subgroup's texts, and
k_s = (|d_s| - |d_s + c_s|) / c_s what z_bias makes of a change c_s of the gap: 0 for gaps not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from levelhead.sampling import derived_seed
from levelhead.scoring.cells import Cells, cells_of, drawn, resamples, word_spread
from levelhead.scoring.effects import AxisEffects
from levelhead.scoring.problem import BiasProblem, HeadShifts, SampledTexts

DRAWS = 400
"""Resamples of templates and words: an inclusion frequency of 0.8 is then known to 0.02."""
SHARE_DRAWS = 200
"""Resamples of templates behind the interval of a share."""
MOST_UNITS = 20_000
"""With more heads (neurons, rather) nothing is redrawn: a resample is a number for each."""

Grid = Float[np.ndarray, "layers heads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Without:
    """The ranking that is left without a word or a subgroup."""

    name: str
    z_bias: Grid
    used: tuple[str, ...]
    measurable: bool
    spearman: float
    """Over heads, with the ranking of the whole; 0 where one of them ranks nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of a ranking one subgroup or word carries."""

    name: str
    share: float
    """Of the variance of z_bias over heads; shares of all add up to 1, single ones may be < 0."""
    ci95: tuple[float, float] | None
    """Percentiles over templates drawn anew, the same gaps used; None: not drawn."""

    def to_json(self) -> dict[str, Any]:
        """As `largest_share` in details.json holds it."""
        interval = None if self.ci95 is None else list(self.ci95)
        return {"name": self.name, "share": self.share, "ci95": interval}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """What the ranking of one axis rests on."""

    axis: str
    subgroup_shares: tuple[Share, ...]
    word_shares: tuple[Share, ...]
    """Empty where the estimator does not tell words apart (neurons)."""
    without_subgroup: tuple[Without, ...]
    """Empty for two subgroups: one alone has no gap."""
    without_word: tuple[Without, ...]
    resampled: Float[np.ndarray, "draws layers heads"] | None
    """z_bias from templates and words drawn anew."""
    word_spread: float
    """By how much a word's weight was redrawn, 0 to 1: `word_spread`."""

    def arrays(self) -> dict[str, np.ndarray]:
        """As stability.safetensors holds them."""
        found = {}
        for kind, left in (("subgroup", self.without_subgroup), ("word", self.without_word)):
            if left:
                found[without_name(kind, self.axis)] = np.stack([one.z_bias for one in left])
        if self.resampled is not None:
            found[resampled_name(f"bias:{self.axis}")] = self.resampled
        return found

    def to_json(self) -> dict[str, Any]:
        """As details.json holds it."""

        def largest(shares: Sequence[Share]) -> dict[str, Any] | None:
            return max(shares, key=lambda one: one.share).to_json() if shares else None

        def left(all_of: Sequence[Without]) -> dict[str, Any]:
            return {
                one.name: {
                    "spearman": one.spearman, "used": list(one.used), "measurable": one.measurable
                }
                for one in all_of
            }  # fmt: skip

        return {
            "largest_share": {
                "subgroup": largest(self.subgroup_shares),
                "word": largest(self.word_shares),
            },
            "shares": {
                "subgroup": {one.name: one.share for one in self.subgroup_shares},
                "word": {one.name: one.share for one in self.word_shares},
            },
            "leave_one_out": {
                "subgroup": left(self.without_subgroup),
                "word": left(self.without_word),
            },
            "resamples": 0 if self.resampled is None else len(self.resampled),
            "word_spread": self.word_spread,
        }


def without_name(kind: str, axis: str) -> str:
    """Name of the rankings without each "subgroup" or "word", `[left out, layers, heads]`."""
    return f"without_{kind}:{axis}"


def resampled_name(metric: str) -> str:
    """Name of a metric's effects from what was drawn anew, `[draws, layers, heads]`."""
    return f"resampled:{metric}"


def stability(
    problem: BiasProblem,
    base: SampledTexts,
    shifts: HeadShifts,
    effects: AxisEffects,
    draws: int = DRAWS,
) -> Stability:
    """What the ranking of an axis rests on.

    Args:
        shifts: of `problem` on `base`.
        effects: made of them.
        draws: of templates and words; none above `MOST_UNITS` heads.
    """
    cells, told_apart = cells_of(problem, base, shifts)
    rng = np.random.default_rng(derived_seed(problem.seed, problem.axis, "resamples"))
    few = effects.effect.size <= MOST_UNITS
    spread = word_spread(cells)
    resampled = None
    if few and draws:
        resampled = np.concatenate([one.z_bias for one in resamples(cells, draws, spread, rng)])
    words = _word_shares(cells, rng, SHARE_DRAWS if few else 0)
    groups = words @ cells.member
    every = np.ones(len(cells.names), dtype=bool)
    by_group = [(name, cells.subgroup != s) for s, name in enumerate(effects.subgroups)]
    by_word = [(name, every & (np.arange(len(every)) != w)) for w, name in enumerate(cells.names)]
    return Stability(
        axis=problem.axis,
        subgroup_shares=_shares(effects.subgroups, groups),
        word_shares=_shares(cells.names, words) if told_apart else (),
        without_subgroup=_left(cells, by_group, effects),
        without_word=_left(cells, by_word, effects) if told_apart else (),
        resampled=resampled,
        word_spread=spread,
    )


def _word_shares(
    cells: Cells, rng: np.random.Generator, draws: int
) -> Float[np.ndarray, "1+draws words"]:
    """Shares of all words: of the ranking itself, then of templates drawn anew.

    The gaps that are used stay the ranking's own: a share is of this ranking.
    """
    ones = np.ones((1, len(cells.names)))
    whole = drawn(cells, np.ones((1, len(cells.texts))), ones)
    found = [whole.shares(cells.subgroup)]
    for one in resamples(cells, draws, 0.0, rng):
        used = np.broadcast_to(whole.used, one.used.shape)
        found.append(replace(one, used=used).shares(cells.subgroup))
    return np.concatenate(found)


def _shares(names: Sequence[str], found: Float[np.ndarray, "1+draws names"]) -> tuple[Share, ...]:
    interval: list[tuple[float, float] | None] = [None] * len(names)
    if len(found) > 1:
        low, high = np.quantile(found[1:], (0.025, 0.975), axis=0)
        interval = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return tuple(
        Share(name=name, share=float(share), ci95=ci95)
        for name, share, ci95 in zip(names, found[0], interval, strict=True)
    )


def _left(
    cells: Cells,
    parts: Sequence[tuple[str, Bool[np.ndarray, " words"]]],
    effects: AxisEffects,
) -> tuple[Without, ...]:
    """The ranking of the words that stay, for each (name of what goes, words that stay)."""
    found = []
    for name, stay in parts:
        if len(set(cells.subgroup[stay])) < 2:
            continue
        one = drawn(cells, np.ones((1, len(cells.texts))), stay[None].astype(float))
        used = zip(effects.subgroups, one.used[0], strict=True)
        found.append(
            Without(
                name=name,
                z_bias=one.z_bias[0],
                used=tuple(group for group, is_used in used if is_used),
                measurable=bool(one.measurable[0]),
                spearman=_rank_correlation(one.z_bias[0], effects.effect),
            )
        )
    return tuple(found)


def _rank_correlation(first: Grid, second: Grid) -> float:
    if not (np.ptp(first) and np.ptp(second)):
        return 0.0
    return float(stats.spearmanr(first, second, axis=None).statistic)
