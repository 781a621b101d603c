"""What a toxicity scorer reacts to, measured on sentences with known answers, and which to take.

A scorer of texts that a model wrote should react to insults and not to names. Both are measured:
the reaction to names on neutral sentences that name a group or "a person", the separation on rude
and harmless sentences. It knows neither models nor runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from levelhead.metrics.intervals import linear_difference_interval
from levelhead.metrics.separation import auc, mean_difference
from levelhead.progress import Progress
from levelhead.records import Estimate, Interval
from levelhead.toxicity import ToxicityScorer, score_texts
from levelhead.toxicity.base import CHUNK
from levelhead.toxicity.controls import controls
from levelhead.toxicity.registry import ScorerFacts, scorer_facts

AUC_LIMIT = 0.8
"""The lower end of both areas under the curve has to be above this."""
DIFFERENCE_LIMIT = 0.2
"""So has, of the mean of toxic controls minus that of harmless ones, the lower end."""
RULE = (
    "the smallest reaction to names, divided by what separates insults from harmless sentences, "
    "among the offline toxicity scorers whose areas under the curve (insults against harmless "
    f"sentences, and against sad ones alone) have 95% intervals above {AUC_LIMIT:g} and whose "
    f"difference of means has one above {DIFFERENCE_LIMIT:g}"
)
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerMeasurement:
    """What a scorer answers; scores in [0, 1], intervals of 95% over sentences."""

    name: str
    identity: str
    cost: str
    facts: ScorerFacts
    names: Mapping[str, Estimate]
    """Of each identity phrase: score of neutral sentences with it minus that with "a person"."""
    reaction: Estimate
    """Mean over phrases of the absolute value; noise of few frames adds to it."""
    signed: Estimate
    """The same mean with signs: above 0, naming any group reads as more toxic."""
    relative: Estimate | None
    """`reaction` divided by `difference`, so that no scale is favoured; None: nothing to divide."""
    by_frame: Float[np.ndarray, " frames"]
    """`reaction` without each frame in turn, for comparisons of scorers."""
    toxic: float
    ordinary: float
    sad: float
    """Means of the control sentences."""
    difference: Estimate
    """Mean of the toxic controls minus that of all harmless ones."""
    auc: Estimate
    auc_sad: Estimate
    """Of toxic controls against all harmless ones, and against the sad ones alone."""
    floor: float
    """The score of an empty text."""
    texts_per_second: float
    """On this machine, by the clock."""

    @property
    def largest(self) -> str:
        """The phrase with the largest absolute reaction; the first of equals."""
        return max(self.names, key=lambda phrase: abs(self.names[phrase].value))

    @property
    def refusal(self) -> str | None:
        """Why it cannot be the embedded default; None: it can."""
        facts = self.facts
        if facts.composite:
            return "it is a form of another scorer"
        if facts.measures != "toxicity":
            return f"it measures {facts.measures}, not toxicity"
        if not facts.offline:
            return "it is not part of an offline package"
        for what, found in (("harmless", self.auc), ("sad", self.auc_sad)):
            if not found.interval.low > AUC_LIMIT:
                return (
                    f"it does not separate insults from {what} sentences: area {found.value:.2f}, "
                    f"lower end {found.interval.low:.2f}, limit {AUC_LIMIT:g}"
                )
        low = self.difference.interval.low
        if not low > DIFFERENCE_LIMIT or self.relative is None:
            return (
                f"insults score only {self.difference.value:.2f} above harmless sentences: lower "
                f"end {low:.2f}, limit {DIFFERENCE_LIMIT:g}"
            )
        return None

    def to_json(self, axes: Mapping[str, str]) -> Json:
        """The form of `levelhead scorers --json`; `axes`: of each phrase."""
        worst = sorted(self.names, key=lambda phrase: -abs(self.names[phrase].value))
        named = [{"word": w, "axis": axes[w], **self.names[w].to_json()} for w in worst]
        return {
            "name": self.name,
            "identity": self.identity,
            "measures": self.facts.measures,
            "cost": self.cost,
            "offline": self.facts.offline,
            "language": self.facts.language,
            "licence": self.facts.licence,
            "extra": self.facts.extra,
            "reaction": {
                "mean": self.reaction.to_json(),
                "signed": self.signed.to_json(),
                "relative": None if self.relative is None else self.relative.to_json(),
                "largest": named[0],
                "words": named,
            },
            "controls": {
                "toxic": self.toxic,
                "ordinary": self.ordinary,
                "sad": self.sad,
                "difference": self.difference.to_json(),
                "auc": self.auc.to_json(),
                "auc_sad": self.auc_sad.to_json(),
                "separates": self.separates,
            },
            "floor": self.floor,
            "texts_per_second": self.texts_per_second,
            "refused_as_default": self.refusal,
        }

    @property
    def separates(self) -> bool:
        """Whether it tells insults from harmless sentences, by the limits of the rule."""
        areas = min(self.auc.interval.low, self.auc_sad.interval.low)
        return areas > AUC_LIMIT and self.difference.interval.low > DIFFERENCE_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerChoice:
    """Which scorer `RULE` takes."""

    name: str | None
    """None: none of them separates insults from harmless sentences."""
    runner_up: str | None
    advantage: Estimate | None
    """Relative reaction of the choice minus that of the runner-up, at most 0."""
    refused: Mapping[str, str]

    def to_json(self) -> Json:
        """The form of `levelhead scorers --json`."""
        return {
            "name": self.name,
            "runner_up": self.runner_up,
            "advantage": None if self.advantage is None else self.advantage.to_json(),
            "refused": dict(self.refused),
            "rule": RULE,
            "limits": {"auc": AUC_LIMIT, "difference": DIFFERENCE_LIMIT},
        }


def measure_scorer(
    scorer: ToxicityScorer, phrases: Sequence[str], progress: Progress
) -> ScorerMeasurement:
    """Ask a scorer about the control sentences, and every frame with every phrase.

    Args:
        scorer: any, already checked (`check_scorer`).
        phrases: what names groups, as it stands after a verb ("a young woman").
        progress: where to report progress.

    Raises:
        ScorerError: it breaks the contract of a scorer.
    """
    held = controls()
    toxic, ordinary, sad = (score_texts(scorer, t) for t in (held.toxic, held.ordinary, held.sad))
    floor = float(score_texts(scorer, [""])[0])
    texts = [frame.format(who=who) for who in (held.neutral, *phrases) for frame in held.frames]
    size = CHUNK if scorer.cost == "expensive" else len(texts)
    parts = [texts[i : i + size] for i in range(0, len(texts), size)]
    scores = []
    start = time.perf_counter()
    with progress(f"{scorer.name} on neutral sentences", len(texts)) as advance:
        for part in parts:
            scores.append(score_texts(scorer, part))
            advance(len(part))
    seconds = max(time.perf_counter() - start, 1e-9)
    table = np.concatenate(scores).reshape(1 + len(phrases), len(held.frames))
    rises: Float[np.ndarray, "phrases frames"] = table[1:] - table[0]
    frames = np.arange(len(held.frames))
    harmless = np.concatenate([ordinary, sad])
    difference = mean_difference(toxic, harmless)
    reaction, by_frame = _reaction(rises)
    return ScorerMeasurement(
        name=scorer.name,
        identity=scorer.identity,
        cost=scorer.cost,
        facts=scorer_facts(scorer.name),
        names={
            phrase: linear_difference_interval(row, frames)
            for phrase, row in zip(phrases, rises, strict=True)
        },
        reaction=reaction,
        signed=linear_difference_interval(rises.mean(axis=0), frames),
        relative=_relative(reaction, difference, len(frames)),
        by_frame=by_frame,
        toxic=float(toxic.mean()),
        ordinary=float(ordinary.mean()),
        sad=float(sad.mean()),
        difference=difference,
        auc=auc(toxic, harmless),
        auc_sad=auc(toxic, sad),
        floor=floor,
        texts_per_second=len(dict.fromkeys(texts)) / seconds,
    )


def choose_scorer(measurements: Sequence[ScorerMeasurement]) -> ScorerChoice:
    """The embedded default among these, by `RULE`; the first by name of equal ones."""
    refused = {m.name: m.refusal for m in measurements if m.refusal is not None}
    able = [m for m in measurements if m.refusal is None]
    able.sort(key=lambda m: (_value(m.relative), m.name))
    second = able[1] if len(able) > 1 else None
    return ScorerChoice(
        name=able[0].name if able else None,
        runner_up=None if second is None else second.name,
        advantage=None if second is None else _advantage(able[0], second),
        refused=refused,
    )


def _reaction(
    rises: Float[np.ndarray, "phrases frames"],
) -> tuple[Estimate, Float[np.ndarray, " frames"]]:
    """Mean over phrases of the absolute reaction, and without each frame in turn (jackknife)."""
    frames = rises.shape[1]
    value = float(np.abs(rises.mean(axis=1)).mean())
    without = (rises.sum(axis=1, keepdims=True) - rises) / (frames - 1)
    by_frame: Float[np.ndarray, " frames"] = np.abs(without).mean(axis=0)
    return _estimate(value, _variance(by_frame), frames, lowest=0.0), by_frame


def _relative(reaction: Estimate, difference: Estimate, frames: int) -> Estimate | None:
    """The ratio with the errors of both (delta method); None: the difference is not above 0."""
    if not difference.interval.low > 0:
        return None
    value = reaction.value / difference.value
    variance = (_stderr(reaction) ** 2 + (value * _stderr(difference)) ** 2) / difference.value**2
    return _estimate(value, variance, frames, lowest=0.0)


def _advantage(one: ScorerMeasurement, other: ScorerMeasurement) -> Estimate:
    """Difference of relative reactions; both were asked about the same frames."""
    both = [m.by_frame / m.difference.value for m in (one, other)]
    variance = _variance(both[0] - both[1])
    for m in (one, other):  # their controls are the same too: this takes them as independent
        variance += (_value(m.relative) * _stderr(m.difference) / m.difference.value) ** 2
    value = _value(one.relative) - _value(other.relative)
    return _estimate(value, variance, len(one.by_frame))


def _variance(without: Float[np.ndarray, " frames"]) -> float:
    """Of an estimate, from its values without each frame (jackknife)."""
    frames = len(without)
    return float((frames - 1) / frames * ((without - without.mean()) ** 2).sum())


def _estimate(value: float, variance: float, frames: int, lowest: float = -math.inf) -> Estimate:
    stderr = math.sqrt(variance)
    half = float(stats.t.ppf(0.975, frames - 1)) * stderr
    interval = Interval(max(lowest, value - half), value + half)
    return Estimate(value=value, stderr=stderr, interval=interval)


def _value(estimate: Estimate | None) -> float:
    return math.inf if estimate is None else estimate.value


def _stderr(estimate: Estimate) -> float:
    return estimate.stderr or 0.0
