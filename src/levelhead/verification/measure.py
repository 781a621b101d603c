"""Measure two models on TEST prompts and text, at whatever level the checks need.

Both models are sampled afresh with common random numbers, in stages where the policy plans looks;
what is judged rests on the adjusted difference of masked texts, as in an evaluation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from levelhead.errors import ConfigError
from levelhead.evaluation.axis import model_bias, prompt_floor
from levelhead.evaluation.base import BaseReading, base_readings, pruned_model
from levelhead.evaluation.mentions import own_group_mentions
from levelhead.evaluation.pairs import PairReading, SampledPair, Toxicities, echo, sample_pair
from levelhead.evaluation.results import Mentions
from levelhead.evaluation.text import text_perplexity
from levelhead.metrics.bias import bias, corrected_bias
from levelhead.metrics.degeneration import compare_degeneration, degeneration_values
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.metrics.perplexity import PerplexityResult, relative_increase
from levelhead.metrics.power import VarianceComponents, variance_components
from levelhead.metrics.verdicts import Evidence, Judged, verdicts
from levelhead.price import title
from levelhead.progress import Progress
from levelhead.records import Estimate, Prompt
from levelhead.sampling import derived_seed
from levelhead.scoring.problem import MAIN, PLAIN, BiasProblem, sample_texts
from levelhead.scoring.rounds import merge_texts
from levelhead.session import Session
from levelhead.verification.decision import (
    GAP,
    PERPLEXITY,
    TOXICITY,
    Check,
    Errors,
    draws_for,
    one_sided,
)
from levelhead.verification.policy import Policy
from levelhead.verification.power import components_json

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MeasuredAxis:
    """Both models on one axis."""

    problem: BiasProblem
    """With all samples that were drawn."""
    readings: Mapping[str, BaseReading]
    sampled: SampledPair

    @property
    def base(self) -> BaseReading:
        """What the scorer makes of the base model's texts."""
        return self.readings[MAIN]

    @property
    def pair(self) -> PairReading:
        """What the scorer makes of both models' texts."""
        return self.sampled.main

    def checks(self, rules: Policy, errors: Errors) -> list[Check]:
        """The gap against its margin, and mean toxicity where the policy limits it."""
        return axis_checks(self.problem.axis, self.pair.adjusted, rules, errors, self._rng("check"))

    def evidence(self) -> Evidence:
        """What a verdict word rests on, as in an evaluation."""
        rng = self._rng("verdict")
        both = self.pair.adjusted
        beside = self.sampled.readings.get(PLAIN)
        between = None if beside is None else echo(self.pair.plain, beside.plain, rng).difference
        return Evidence(
            difference=both.tested(rng),
            factor=both.common_factor(self.pair.plain.harmless(self.base.scorer), rng),
            toxicity=_toxicity(both, 0.95),
            plain=None if beside is None else beside.adjusted.tested(rng),
            echo=between,
        )

    @cached_property
    def mentions(self) -> Mentions | None:
        """How often both models name the prompt's own group; None: no words are known."""
        return own_group_mentions(self.problem, self.base.texts, self.pair.texts)

    @cached_property
    def corrected_bias(self) -> float:
        """Of the base model, with the upward error of sum |gap| taken out."""
        one = self.pair.plain
        return corrected_bias(
            one.base, one.subgroup, one.template, one.num_subgroups, self._rng("margin")
        )

    def components(self) -> VarianceComponents | None:
        """Variance components as measured, for the next plan; None: one text a cell."""
        one, both = self.pair.plain, self.pair.adjusted
        try:
            found = variance_components(
                both.base, one.subgroup, one.template, one.num_subgroups, other=both.pruned
            )
        except ConfigError:
            return None
        return found

    def to_json(self) -> Json:
        """The axis in the audit; 95% intervals of each quantity on its own."""
        problem, plain = self.problem, self.pair.plain
        rng = self._rng("audit")
        floor = prompt_floor(problem, problem.scorer)
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
            "adjusted_difference": self.pair.adjusted.difference(rng).to_json(),
            "toxicity_difference": _toxicity(self.pair.adjusted, 0.95).to_json(),
            "relative_bias": self.pair.adjusted.relative_bias(
                rng, plain.harmless(self.base.scorer)
            ),
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
            "plain": self._beside(rng),
            "own_group_mentions": self.mentions and self.mentions.to_json(),
            "components": (found := self.components()) and components_json(found),
        }

    def _beside(self, rng: np.random.Generator) -> Json | None:
        """The reading of the texts as they are, where the one that is judged is masked."""
        one = self.sampled.readings.get(PLAIN)
        if one is None:
            return None
        plain, codes = one.plain, (one.plain.subgroup, one.plain.num_subgroups)
        return {
            "base": {"bias": bias(plain.base, *codes)},
            "candidate": {"bias": bias(plain.pruned, *codes)},
            "difference": plain.difference(rng).to_json(),
            "adjusted_difference": one.adjusted.difference(rng).to_json(),
            "echo": echo(self.pair.plain, plain, rng).difference.to_json(),
        }

    def _rng(self, what: str) -> np.random.Generator:
        problem = self.problem
        return np.random.default_rng(derived_seed(problem.seed, problem.axis, "verify", what))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredText:
    """Both models' perplexity on one text."""

    name: str
    sha256: str
    base: PerplexityResult
    candidate: PerplexityResult

    def increase(self, level: float) -> Estimate:
        """As a share of the base's."""
        return relative_increase(self.base, self.candidate, level=level)

    def check(self, limit: float, errors: Errors) -> Check:
        """The increase against its limit."""
        upper, lower = (self.increase(x) for x in (errors.passing_level, errors.failing_level))
        rise = one_sided(upper, lower)
        return Check(
            quantity=PERPLEXITY,
            axis=None,
            text=title({"text": self.name}),
            difference=rise,
            limit=limit,
            errors=errors,
        )

    def to_json(self) -> Json:
        """An entry of the audit's `price`."""
        return {
            "text": title({"text": self.name}),
            "sha256": self.sha256,
            "base": self.base.perplexity,
            "candidate": self.candidate.perplexity,
            "increase": self.increase(0.95).to_json(),
            "tokens": self.base.num_tokens,
        }


def axis_checks(
    axis: str, both: Toxicities, rules: Policy, errors: Errors, rng: np.random.Generator
) -> list[Check]:
    """The checks of one axis.

    Args:
        axis: its name.
        both: toxicities of base and candidate, less the control variate.
        rules: the margins.
        errors: of this look.
        rng: draws the noise.
    """
    failing, passing = errors.failing_level, errors.passing_level
    swaps = both.swapped(rng, 2 * draws_for(failing))
    upper, lower = (
        both.difference(rng, level=level, draws=draws_for(level)) for level in (passing, failing)
    )
    given: Json = {"axis": axis, "errors": errors}
    gap = one_sided(upper, lower)
    found = [
        Check(quantity=GAP, difference=gap, limit=rules.max_gap_increase, swaps=swaps[0], **given)
    ]
    if (most := rules.max_mean_toxicity_increase) is not None:
        rise = one_sided(_toxicity(both, passing), _toxicity(both, failing))
        found.append(Check(quantity=TOXICITY, difference=rise, limit=most, swaps=swaps[1], **given))
    return found


def _toxicity(both: Toxicities, level: float) -> Estimate:
    """Mean toxicity of the candidate minus that of the base."""
    return linear_difference_interval(both.pruned - both.base, both.template, level=level)


def words(measured: Mapping[str, MeasuredAxis]) -> dict[str, Judged]:
    """The verdict word of each axis, judged together; for information, no check rests on it."""
    return verdicts({axis: one.evidence() for axis, one in measured.items()})


def measure_axis(
    session: Session,
    axis: str,
    candidate: PreTrainedModel,
    progress: Progress,
    samples: int,
    earlier: MeasuredAxis | None = None,
) -> MeasuredAxis:
    """Sample both models on the test prompts of an axis, so often that each has `samples`.

    Args:
        session: with the base model.
        axis: its name.
        candidate: the other model.
        progress: where to report progress.
        samples: continuations per prompt of each model.
        earlier: what a look before found; its continuations are kept.
    """
    whole = session.problem(axis, "test")
    readers = {name: one for name, one in whole.readers.items() if name == PLAIN}
    problem = replace(whole, readers=readers, samples=samples)
    had = 0 if earlier is None else earlier.problem.samples
    new = replace(problem, first_sample=had, samples=samples - had)
    base = sample_texts(new, progress, f"sampling the base model ({axis})")
    other = sample_texts(
        replace(new, model=candidate), progress, f"sampling the verified model ({axis})"
    )
    if earlier is not None:
        base = merge_texts([earlier.base.texts, base])
        other = merge_texts([earlier.pair.texts, other])
    readings = base_readings(problem, base, progress)
    variant = pruned_model(candidate)
    pair = sample_pair(problem, readings, variant, progress, "verified", texts=other)
    return MeasuredAxis(problem=problem, readings=readings, sampled=pair)


def measure_texts(
    session: Session, candidate: PreTrainedModel, progress: Progress
) -> tuple[MeasuredText, ...]:
    """Perplexity of both models on the test part of every text, the run's own first."""
    models = (("base", session.base.model), ("verified", candidate))
    found = []
    for name in texts_of(session):
        base, other = (
            text_perplexity(session, model, "test", progress, called, text=name)
            for called, model in models
        )
        text = session.text("test", name)
        found.append(MeasuredText(name=text.name, sha256=text.sha256, base=base, candidate=other))
    return tuple(found)


def texts_of(session: Session) -> tuple[str | None, ...]:
    """The names of the texts that perplexity is measured on; None: the run's own."""
    return (None, *session.config.price_texts)


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of prompts: which texts, of which subgroup and template, in which order."""
    rows = [[p.text, p.axis, p.subgroup, p.template, p.variant] for p in prompts]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
