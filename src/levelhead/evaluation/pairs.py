"""What two models wrote on the same prompts, and differences of bias between them.

The proof of an evaluation and of a verification: both models sampled afresh with common random
numbers. It knows nothing of heads; the other model may be any with the same tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from levelhead.evaluation.base import BaseReading, Variant
from levelhead.evaluation.results import Beside
from levelhead.metrics.bias import bias, bias_of_means
from levelhead.metrics.clusters import cluster_codes, mean_contributions, sum_variance
from levelhead.metrics.differences import (
    BiasDifference,
    CommonFactor,
    bias_difference,
    common_factor,
    harmless_floor,
    relative_difference_interval,
)
from levelhead.progress import Progress
from levelhead.records import Estimate, Interval
from levelhead.scoring.problem import MAIN, BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.token_model import adjusted_toxicities
from levelhead.toxicity import ToxicityScorer, score_texts_once

ROUNDING = 1e-9
DRAWS = 5000
"""Behind a p-value: the smallest that they give is 0.0004, enough for families of many axes."""
CLEAR_OF_ZERO = 3.0
"""Standard errors a mean toxicity must be above 0 by, for anything to be divided by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toxicities:
    """Toxicity of both models' continuations of the same prompts, entry by entry."""

    base: Float[np.ndarray, " n"]
    pruned: Float[np.ndarray, " n"]
    subgroup: Int[np.ndarray, " n"]
    template: Int[np.ndarray, " n"]
    num_subgroups: int

    @classmethod
    def of(cls, problem: BiasProblem, base: SampledTexts, pruned: SampledTexts) -> Toxicities:
        """Of two sets of continuations of a problem's prompts, in the same order."""
        return cls(
            base=base.toxicity,
            pruned=pruned.toxicity,
            subgroup=problem.subgroup[base.prompt],
            template=problem.template[base.prompt],
            num_subgroups=len(problem.subgroups),
        )

    def harmless(self, scorer: ToxicityScorer) -> float:
        """What the scorer says of a harmless text; of toxicities without a control variate."""
        empty, _ = score_texts_once(scorer, [""])
        return harmless_floor(float(empty[0]), self.base, self.pruned)

    def difference(
        self, rng: np.random.Generator, *, level: float = 0.95, draws: int = 1000
    ) -> Estimate:
        """bias(pruned) - bias(base) with its interval over templates; negative: it fell."""
        return self.tested(rng, level=level, draws=draws).estimate

    def tested(
        self, rng: np.random.Generator, *, level: float = 0.95, draws: int = DRAWS
    ) -> BiasDifference:
        """The same with the p-value of no difference."""
        return bias_difference(*self._arguments(rng), level=level, draws=draws)

    def common_factor(self, floor: float, rng: np.random.Generator) -> CommonFactor | None:
        """What is left of the difference once everybody's toxicity fell by one factor."""
        codes = (self.subgroup, self.template, self.num_subgroups)
        return common_factor(self.base, self.pruned, *codes, floor, rng, draws=DRAWS)

    def swapped(self, rng: np.random.Generator, draws: int) -> tuple[float, float]:
        """How often swapping the models in random templates raises as much as was measured.

        Two p-values, of a rise of bias(S) and of mean toxicity. Where the other model is the base
        (or writes as it does), which of the two is which is a toss in every template, so a p-value
        of at most q has probability q at most, whatever the size of the sample.
        """
        codes = cluster_codes(self.template)
        cells = codes * self.num_subgroups + self.subgroup
        size = (int(codes.max()) + 1, self.num_subgroups)
        flat = size[0] * size[1]
        base, pruned = (np.bincount(cells, x, flat).reshape(size) for x in (self.base, self.pruned))
        counts = np.bincount(self.subgroup, minlength=self.num_subgroups)
        signs = rng.choice([-1.0, 1.0], (draws, size[0]))
        signs[0] = 1.0  # as measured
        middle, half = (base + pruned).sum(0) / 2, signs @ ((pruned - base) / 2)
        rises = [
            bias_of_means(np.divide(middle + side * half, np.maximum(counts, 1)), counts)
            for side in (1, -1)
        ]
        gap, mean = rises[0] - rises[1], half.sum(1)
        p_gap, p_mean = (float((x >= x[0] - ROUNDING).mean()) for x in (gap, mean))
        return p_gap, p_mean

    def relative_bias(self, rng: np.random.Generator, floor: float) -> dict[str, Any] | None:
        """bias(S) / (T_S - floor): {"base", "pruned", "difference": {"value", "ci95"}}.

        floor: what the scorer says of a harmless text. It stays where it is if toxic texts become
        rarer for everybody by the same share. None where a mean is not clear of the floor.
        """
        means = [float(x.mean()) - floor for x in (self.base, self.pruned)]
        for toxicity, mean in zip((self.base, self.pruned), means, strict=True):
            error = float(np.sqrt(sum_variance(mean_contributions(toxicity, self.template))))
            if not mean > CLEAR_OF_ZERO * error:
                return None
        base, pruned = (
            self._bias(x) / m for x, m in zip((self.base, self.pruned), means, strict=True)
        )
        interval = relative_difference_interval(*self._arguments(rng), floor=floor)
        difference = Estimate(value=pruned - base, interval=interval)
        return {"base": base, "pruned": pruned, "difference": difference.to_json()}

    def _bias(self, toxicity: Float[np.ndarray, " n"]) -> float:
        return bias(toxicity, self.subgroup, self.num_subgroups)

    def _arguments(self, rng: np.random.Generator) -> tuple[Any, ...]:
        count = self.num_subgroups
        return self.base, self.pruned, self.subgroup, self.template, count, rng


def echo(masked: Toxicities, plain: Toxicities, rng: np.random.Generator) -> Beside:
    """Plain bias less masked bias of both models, and of their difference.

    Both readings are of the same texts, so what was sampled is shared. The interval of the change
    of the echo is a t interval of the jackknife over templates.
    """
    codes = (masked.subgroup, masked.template, masked.num_subgroups)
    signed = ((plain.pruned, 1), (masked.pruned, -1), (plain.base, -1), (masked.base, 1))
    return Beside(
        base=replace(masked, pruned=plain.base).difference(rng),
        pruned=replace(masked, base=masked.pruned, pruned=plain.pruned).difference(rng),
        difference=_jackknifed([(x, float(sign)) for x, sign in signed], *codes),
    )


def _jackknifed(
    signed: Sequence[tuple[Float[np.ndarray, " n"], float]],
    subgroup: Int[np.ndarray, " n"],
    template: Int[np.ndarray, " n"],
    num_subgroups: int,
) -> Estimate:
    """Signed sum of several biases of the same prompts, with a t interval over templates."""

    def value(kept: Bool[np.ndarray, " n"]) -> float:
        return sum(sign * bias(x[kept], subgroup[kept], num_subgroups) for x, sign in signed)

    whole = value(np.ones(len(template), dtype=bool))
    left_out = np.array([value(template != name) for name in np.unique(template)])
    clusters = len(left_out)
    spread = (clusters - 1) / clusters * float(((left_out - left_out.mean()) ** 2).sum())
    stderr = float(np.sqrt(spread))
    reach = float(stats.t.ppf(0.975, max(1, clusters - 1))) * stderr
    return Estimate(value=whole, stderr=stderr, interval=Interval(whole - reach, whole + reach))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReading:
    """What one scorer makes of what both models wrote."""

    texts: SampledTexts
    """The other model's, with this scorer's toxicities."""
    plain: Toxicities
    adjusted: Toxicities
    """With the same expectations, less the noise that the token model can name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledPair:
    """What the other model wrote, and both models' toxicities by every reading."""

    readings: Mapping[str, PairReading]

    @property
    def main(self) -> PairReading:
        """The one that verdicts rest on."""
        return self.readings[MAIN]


def sample_pair(
    problem: BiasProblem,
    base: Mapping[str, BaseReading],
    variant: Variant,
    progress: Progress,
    name: str = "pruned",
    texts: SampledTexts | None = None,
) -> SampledPair:
    """Sample another model on a problem whose base model's continuations are known.

    Args:
        problem: the base model's.
        base: the readings of what the base model wrote.
        variant: the other model.
        name: of the other model, for people.
        texts: what the other model wrote, in the order of the base model's; None: it is sampled.
    """
    with variant() as model:
        other = replace(problem, model=model)
        title = f"sampling the {name} model ({problem.axis})"
        fresh = sample_texts(other, progress, title) if texts is None else texts
        read = {
            key: fresh if key == MAIN else fresh.read_by(reading.scorer, problem)
            for key, reading in base.items()
        }
        tokens = {key: reading.token for key, reading in base.items()}
        adjusted = adjusted_toxicities(other, read, tokens, progress)
    found = {}
    for key, reading in base.items():
        plain = Toxicities.of(problem, reading.texts, read[key])
        less = replace(plain, base=reading.token.adjusted, pruned=adjusted[key])
        found[key] = PairReading(texts=read[key], plain=plain, adjusted=less)
    return SampledPair(readings=found)
