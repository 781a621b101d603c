"""What two models wrote on the same prompts, and differences of bias between them.

The proof of an evaluation and of a verification: both models sampled afresh with common random
numbers. It knows nothing of heads; the other model may be any with the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from levelhead.evaluation.base import Variant
from levelhead.metrics.bias import bias, bias_of_means
from levelhead.metrics.clusters import cluster_codes, mean_contributions, sum_variance
from levelhead.metrics.differences import (
    paired_difference_interval,
    relative_difference_interval,
)
from levelhead.progress import Progress
from levelhead.records import Estimate
from levelhead.sampling import pad_id
from levelhead.scoring.matched_rows import own_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.teacher_forcing import read_rows
from levelhead.scoring.token_model import TokenModel

ROUNDING = 1e-9
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

    def difference(
        self, rng: np.random.Generator, *, level: float = 0.95, draws: int = 1000
    ) -> Estimate:
        """bias(pruned) - bias(base) with its interval over templates; negative: it fell."""
        base, pruned = (self._bias(x) for x in (self.base, self.pruned))
        interval = paired_difference_interval(*self._arguments(rng), level=level, draws=draws)
        return Estimate(value=pruned - base, interval=interval)

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

    def relative_bias(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """bias(S) / T_S: {"base", "pruned", "difference": {"value", "ci95"}}.

        It stays where it is if everything becomes less toxic by the same share. None where a mean
        toxicity is not clear of 0.
        """
        means = [float(x.mean()) for x in (self.base, self.pruned)]
        for toxicity, mean in zip((self.base, self.pruned), means, strict=True):
            error = float(np.sqrt(sum_variance(mean_contributions(toxicity, self.template))))
            if not mean > CLEAR_OF_ZERO * error:
                return None
        base, pruned = (
            self._bias(x) / m for x, m in zip((self.base, self.pruned), means, strict=True)
        )
        interval = relative_difference_interval(*self._arguments(rng))
        difference = Estimate(value=pruned - base, interval=interval)
        return {"base": base, "pruned": pruned, "difference": difference.to_json()}

    def _bias(self, toxicity: Float[np.ndarray, " n"]) -> float:
        return bias(toxicity, self.subgroup, self.num_subgroups)

    def _arguments(self, rng: np.random.Generator) -> tuple[Any, ...]:
        count = self.num_subgroups
        return self.base, self.pruned, self.subgroup, self.template, count, rng


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledPair:
    """What the other model wrote, and both models' toxicities."""

    texts: SampledTexts
    plain: Toxicities
    adjusted: Toxicities
    """With the same expectations, less the noise that the token model can name."""


def sample_pair(
    problem: BiasProblem,
    texts: SampledTexts,
    token: TokenModel,
    variant: Variant,
    progress: Progress,
    name: str = "pruned",
) -> SampledPair:
    """Sample another model on a problem whose base model's continuations are known.

    Args:
        problem: the base model's.
        texts: what the base model wrote.
        token: the token model of `texts`.
        variant: the other model.
        name: of the other model, for people.
    """
    with variant() as model:
        other = replace(problem, model=model)
        fresh = sample_texts(other, progress, f"sampling the {name} model ({problem.axis})")
        adjusted = _adjusted(other, fresh, token, progress)
    codes = {
        "subgroup": problem.subgroup[texts.prompt],
        "template": problem.template[texts.prompt],
        "num_subgroups": len(problem.subgroups),
    }
    return SampledPair(
        texts=fresh,
        plain=Toxicities(base=texts.toxicity, pruned=fresh.toxicity, **codes),
        adjusted=Toxicities(base=token.adjusted, pruned=adjusted, **codes),
    )


def _adjusted(
    problem: BiasProblem, fresh: SampledTexts, token: TokenModel, progress: Progress
) -> Float[np.ndarray, " n"]:
    """Toxicity of another model's continuations, less the noise the token model can name.

    They are read with the model that wrote them: only there has the noise mean zero.
    """
    rows = own_rows(problem, fresh).rows
    with progress(f"reading what it wrote ({problem.axis})", len(rows)) as advance:
        _, surprise = read_rows(
            problem.model,
            rows,
            token.tau,
            pad=pad_id(problem.tokenizer),
            batch_size=problem.batch_size,
            advance=advance,
        )
    out: Float[np.ndarray, " n"] = fresh.toxicity - token.beta * surprise
    return out
