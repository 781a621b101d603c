"""Measure two models on TEST prompts and text, at whatever level the checks need.

Both models are sampled afresh with common random numbers; the verdict rests on the adjusted
difference, as in an evaluation. It knows no limits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from levelhead.evaluation.axis import model_bias
from levelhead.evaluation.base import MAIN, BaseReading, base_readings, pruned_model
from levelhead.evaluation.pairs import PairReading, sample_pair
from levelhead.evaluation.text import text_perplexity
from levelhead.metrics.bias import bias
from levelhead.metrics.degeneration import compare_degeneration, degeneration_values
from levelhead.metrics.differences import harmless_floor
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.metrics.perplexity import PerplexityResult, relative_increase
from levelhead.progress import Progress
from levelhead.records import Estimate, Prompt
from levelhead.sampling import derived_seed
from levelhead.scoring.problem import BiasProblem, sample_texts
from levelhead.scoring.token_toxicity import toxicity_text
from levelhead.session import Session
from levelhead.toxicity import score_texts
from levelhead.verification.decision import draws_for

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredAxis:
    """Both models on one axis."""

    problem: BiasProblem
    base: BaseReading
    pair: PairReading

    def gap(self, level: float) -> Estimate:
        """bias(candidate) - bias(base), adjusted: what is judged."""
        return self.pair.adjusted.difference(self._rng("gap"), level=level, draws=draws_for(level))

    def toxicity(self, level: float) -> Estimate:
        """Mean toxicity of the candidate minus that of the base, adjusted."""
        both = self.pair.adjusted
        return linear_difference_interval(both.pruned - both.base, both.template, level=level)

    def swaps(self, level: float) -> tuple[float, float]:
        """How often swaps of the models raise the gap, and mean toxicity, as much."""
        return self.pair.adjusted.swapped(self._rng("swaps"), 2 * draws_for(level))

    def to_json(self) -> Json:
        """The axis in the audit; 95% intervals of each quantity on its own."""
        problem, plain = self.problem, self.pair.plain
        rng = self._rng("audit")
        prompts = [toxicity_text(p.text, "", "full") for p in problem.prompts]
        floor = bias(score_texts(problem.scorer, prompts), problem.subgroup, plain.num_subgroups)
        signs = compare_degeneration(
            degeneration_values(self.base.texts.texts, self.base.texts.tokens, problem.new_tokens),
            degeneration_values(self.pair.texts.texts, self.pair.texts.tokens, problem.new_tokens),
            plain.template,
        )
        return {
            "subgroups": list(problem.subgroups),
            "prompts": len(problem.prompts),
            "templates": len(np.unique(plain.template)),
            "samples": len(self.base.texts.texts),
            "prompts_sha256": prompts_digest(problem.prompts),
            "base": model_bias(problem, self.base.texts, floor, rng).to_json(),
            "candidate": model_bias(problem, self.pair.texts, floor, rng).to_json(),
            "difference": plain.difference(rng).to_json(),
            "adjusted_difference": self.gap(0.95).to_json(),
            "toxicity_difference": self.toxicity(0.95).to_json(),
            "relative_bias": self.pair.adjusted.relative_bias(rng, self._harmless()),
            "degeneration": {
                sign.name: {
                    "base": sign.base,
                    "candidate": sign.pruned,
                    "difference": sign.difference.to_json(),
                    "worse": sign.raised,
                }
                for sign in signs
            },
            "token_toxicity_r2": self.base.token.r_squared,
        }

    def _harmless(self) -> float:
        """What the scorer says of a harmless text."""
        empty = float(score_texts(self.base.scorer, [""])[0])
        return harmless_floor(empty, self.pair.plain.base, self.pair.plain.pruned)

    def _rng(self, what: str) -> np.random.Generator:
        problem = self.problem
        return np.random.default_rng(derived_seed(problem.seed, problem.axis, "verify", what))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredText:
    """Both models' perplexity."""

    base: PerplexityResult
    candidate: PerplexityResult

    def increase(self, level: float) -> Estimate:
        """As a share of the base's."""
        return relative_increase(self.base, self.candidate, level=level)

    def to_json(self) -> Json:
        """The perplexity in the audit."""
        return {
            "base": self.base.perplexity,
            "candidate": self.candidate.perplexity,
            "increase": self.increase(0.95).to_json(),
            "tokens": self.base.num_tokens,
        }


def measure_axis(
    session: Session, axis: str, candidate: PreTrainedModel, progress: Progress
) -> MeasuredAxis:
    """Sample both models on the test prompts of an axis."""
    problem = replace(session.problem(axis, "test"), readers={})
    texts = sample_texts(problem, progress, f"sampling the base model ({axis})")
    readings = base_readings(problem, texts, progress)
    pair = sample_pair(problem, readings, pruned_model(candidate), progress, "verified")
    return MeasuredAxis(problem=problem, base=readings[MAIN], pair=pair.main)


def measure_text(session: Session, candidate: PreTrainedModel, progress: Progress) -> MeasuredText:
    """Perplexity of both models on the test part of the text."""
    base, other = (
        text_perplexity(session, model, "test", progress, name)
        for name, model in (("base", session.base.model), ("verified", candidate))
    )
    return MeasuredText(base=base, candidate=other)


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of prompts: which texts, of which subgroup and template, in which order."""
    rows = [[p.text, p.axis, p.subgroup, p.template, p.variant] for p in prompts]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
