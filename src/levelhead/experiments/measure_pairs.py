"""Pairs of measures: do they rank heads alike, would they prune the same, and do they read alike?

For every pair: the correlation of their head effects, raw and with the noise of both taken out; the
share of heads that both would prune (FASP, with the run's z_ppl), against chance and with its
spread over templates; and how alike their scorers judge the texts themselves.

All measures saw the same texts, so what they share includes the luck of these texts. Correlations
are corrected from halves that share no template, which takes that out, and the share of heads is
given across such halves as well. It knows neither models nor run folders.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from levelhead.errors import ScorerError
from levelhead.experiments.packed import unpacked
from levelhead.metrics.attenuation import cross_half_correlation, rank_correlation
from levelhead.metrics.set_overlap import overlap, overlap_estimate
from levelhead.metrics.text_agreement import THRESHOLD, text_agreement
from levelhead.scores import MIN_RELIABILITY, head_count
from levelhead.selection.rules import largest

MOSTLY = 0.5
"""Share of heads in common, at the interval's lower end, that makes two decisions mostly one."""
WORDS = {
    "same": "mostly the same heads",
    "alike": "more of the same heads than by chance",
    "chance": "not clearly more of the same heads than by chance",
}
Json = dict[str, Any]


def compare_measures(
    found: Sequence[Mapping[str, Any]],
    protected: Bool[np.ndarray, "layers heads"],
    alpha: float,
) -> Json:
    """Headline, measures, pairs, texts and warnings, from what each measure says.

    Args:
        found: `measure_heads` of each.
        protected: heads that FASP would not prune.
        alpha: share of heads pruned.

    Raises:
        ScorerError: fewer than two measures say anything of the heads.
    """
    said = [one for one in found if "failed" not in one]
    if len(said) < 2:
        why = "; ".join(f"{one['name']}: {one['failed']}" for one in found if "failed" in one)
        raise ScorerError(f"fewer than two measures rank the heads ({why})")
    chosen = {one["name"]: _Sets.of(one, protected, alpha) for one in said}
    pairs = [_pair(a, b, chosen) for a, b in itertools.combinations(said, 2)]
    return {
        "headline": headline(pairs),
        "measures": [_summary(one, chosen) for one in found],
        "pairs": pairs,
        "texts": _texts(said),
        "warnings": [warning for one in found for warning in _warnings(one)],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sets:
    """The heads that FASP would prune by a measure: from all texts, halves and draws of them."""

    whole: Bool[np.ndarray, " heads"]
    halves: Bool[np.ndarray, "splits 2 heads"] | None
    drawn: Bool[np.ndarray, "draws heads"]
    chance: float

    @classmethod
    def of(cls, one: Mapping[str, Any], protected: np.ndarray, alpha: float) -> _Sets:
        count = head_count(alpha, protected.size)

        def chosen(effect: Float[np.ndarray, "layers heads"]) -> Bool[np.ndarray, " heads"]:
            mask = np.zeros(protected.shape, dtype=bool)
            mask[tuple(np.array(largest(effect, count, ~protected)).T)] = True
            return mask.reshape(-1)

        halves = None if one["halves"] is None else unpacked(one["halves"])
        return cls(
            whole=chosen(np.array(one["effect"])),
            halves=None if halves is None else np.stack([[chosen(z) for z in s] for s in halves]),
            drawn=np.stack([chosen(z) for z in unpacked(one["resampled"])]),
            chance=count / max(1, int((~protected).sum())),
        )

    def own(self) -> float | None:
        """What two halves of this measure have in common."""
        if self.halves is None:
            return None
        return float(overlap(self.halves[:, 0], self.halves[:, 1]).mean())


def _pair(a: Mapping[str, Any], b: Mapping[str, Any], chosen: Mapping[str, _Sets]) -> Json:
    first, second = chosen[a["name"]], chosen[b["name"]]
    spearman = rank_correlation(np.array(a["effect"]), np.array(b["effect"]))
    corrected = across = None
    if first.halves is not None and second.halves is not None:
        corrected = cross_half_correlation(unpacked(a["halves"]), unpacked(b["halves"]))
        across = float(overlap(first.halves, second.halves[:, ::-1]).mean())
    shared = overlap_estimate(first.whole, second.whole, first.drawn, second.drawn)
    pair: Json = {
        "a": a["name"],
        "b": b["name"],
        "spearman": None if spearman is None else spearman.to_json(),
        "corrected": None if corrected is None else corrected.to_json(),
        "overlap": shared.to_json(),
        "overlap_chance": first.chance,
        "gaps_used": {"a": _used(a), "b": _used(b)},
        "overlap_halves": {"across": across, "a": first.own(), "b": second.own()},
    }
    return {**pair, "decision": decision(pair), "verdict": verdict(pair, a, b)}


def decision(pair: Mapping[str, Any]) -> str:
    """By the interval of heads in common: "same", "alike" or "chance" (not clearly more)."""
    low = pair["overlap"]["ci95"][0]
    if low <= pair["overlap_chance"]:
        return "chance"
    return "same" if low >= MOSTLY else "alike"


def verdict(pair: Mapping[str, Any], a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Whether two measures would prune the same heads, in plain words."""
    share, (low, high) = pair["overlap"]["value"], pair["overlap"]["ci95"]
    said = (
        f"{pair['a']} and {pair['b']}: {WORDS[decision(pair)]}, {share:.0%} [{low:.0%}, "
        f"{high:.0%}] in common (chance: {pair['overlap_chance']:.0%})"
    )
    halves = pair["overlap_halves"]
    if halves["across"] is not None:
        said += (
            f"; from other templates {halves['across']:.0%}, where each repeats itself by "
            f"{halves['a']:.0%} and {halves['b']:.0%}"
        )
    first, second = pair["gaps_used"]["a"], pair["gaps_used"]["b"]
    if first != second:
        said += f"; they rest on other gaps ({', '.join(first)}; {', '.join(second)})"
    noisy = [one["name"] for one in (a, b) if _noise(one)]
    return said + (f"; {' and '.join(noisy)}: mostly noise on these texts" if noisy else "")


def headline(pairs: Sequence[Mapping[str, Any]]) -> str:
    """How many pairs agree how far, in a sentence."""
    count = Counter(decision(pair) for pair in pairs)
    parts = [f"{count[kind]} {words}" for kind, words in WORDS.items() if count[kind]]
    return f"Of {len(pairs)} pairs of measures, by the heads they would prune: {'; '.join(parts)}."


def _used(one: Mapping[str, Any]) -> list[str]:
    """Subgroups whose gap a measure can tell from 0 (or the clearest): its bias is theirs."""
    return [name for name, gap in one["gap"].items() if gap["used"]]


def _noise(one: Mapping[str, Any]) -> bool:
    reliability = one["reliability"]
    return reliability is None or reliability < MIN_RELIABILITY


def _summary(one: Mapping[str, Any], chosen: Mapping[str, _Sets]) -> Json:
    """A measure without its arrays, with the heads it would have pruned."""
    out = {k: v for k, v in one.items() if k not in ("effect", "stderr", "halves", "resampled")}
    scores = out.pop("scores", None)
    if one["name"] not in chosen:
        return out
    num_heads = len(one["effect"][0])
    picked = np.flatnonzero(chosen[one["name"]].whole)
    out["heads"] = [list(divmod(int(i), num_heads)) for i in picked]
    if scores is not None:
        out["mean"] = float(np.mean(scores))
    return out


def _texts(said: Sequence[Mapping[str, Any]]) -> Json:
    """What the scorers say of the texts themselves; likelihood gives no score to a text."""
    scores = {one["name"]: np.array(one["scores"]) for one in said if one["scores"] is not None}
    return {
        "count": len(next(iter(scores.values()), [])),
        "share_over_half": {n: float((s > THRESHOLD).mean()) for n, s in scores.items()},
        "pairs": [
            {"a": a, "b": b, **text_agreement(scores[a], scores[b])}
            for a, b in itertools.combinations(scores, 2)
        ],
    }


def _warnings(one: Mapping[str, Any]) -> list[str]:
    name = one["name"]
    if "failed" in one:
        return [f"{name} is left out: {one['failed']}"]
    found = []
    if not one["measurable"]:
        found.append(f"{name}: no gap between subgroups can be told from 0 on these texts")
    if one["reliability"] is not None and one["reliability"] < MIN_RELIABILITY:
        found.append(
            f"{name}: its ranking of heads is mostly noise (split-half reliability "
            f"{one['reliability']:.2f}, below {MIN_RELIABILITY:g}); use more prompts"
        )
    if not one["explained"]:
        found.append(
            f"{name}: single words explain only {one['token_toxicity_r2']:.1%} of the variance of "
            "its answers; its head effects miss most of what it reacts to"
        )
    return found
