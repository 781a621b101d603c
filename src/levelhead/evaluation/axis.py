"""Compare a pruned model with its base on one axis' held-out prompts.

Three answers to "did bias fall?": `difference` samples both models afresh with common random
numbers; `adjusted_difference` is the same estimate less the noise that the token model can name (a
control variate; the verdict rests on it); and `expected_difference` reads the base model's
continuations with both models and moves each subgroup's mean toxicity by what their next-token
distributions say (the finite version of the token-level score: first-order, small error). The
first two are proof, the third is what the scores aim at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from levelhead.evaluation.base import BaseAxis, Variant, expected_of_rows
from levelhead.evaluation.pairs import sample_pair
from levelhead.metrics.bias import bias, corrected_bias
from levelhead.metrics.bias_intervals import bias_interval
from levelhead.metrics.degeneration import (
    DegenerationSign,
    compare_degeneration,
    degeneration_values,
)
from levelhead.metrics.intervals import (
    gap_intervals,
    linear_difference_interval,
    samples_needed,
)
from levelhead.progress import Progress
from levelhead.records import AxisEvaluation, Estimate, Interval, ModelBias
from levelhead.sampling import derived_seed
from levelhead.scoring.effects import base_gaps, gap_change, jackknife_stderr, z_bias
from levelhead.scoring.problem import (
    BiasProblem,
    HeadShifts,
    SampledTexts,
    group_shifts,
)
from levelhead.scoring.token_toxicity import toxicity_text
from levelhead.toxicity import score_texts


def evaluate_axis(
    base: BaseAxis, variant: Variant, progress: Progress
) -> tuple[AxisEvaluation, SampledTexts]:
    """Everything about one axis, and the continuations of the model that is compared."""
    problem, texts, token = base.problem, base.texts, base.token
    pair = sample_pair(problem, texts, token, variant, progress)
    fresh, template = pair.texts, pair.plain.template
    rng = np.random.default_rng(derived_seed(problem.seed, problem.axis, "evaluation"))
    count = len(problem.subgroups)
    difference = pair.plain.difference(rng)
    adjusted = pair.adjusted.difference(rng)
    toxicity = linear_difference_interval(fresh.toxicity - texts.toxicity, template)
    signs = compare_degeneration(
        degeneration_values(texts.texts, texts.tokens, problem.new_tokens),
        degeneration_values(fresh.texts, fresh.tokens, problem.new_tokens),
        template,
    )
    expected = expected_difference(base, variant, progress)
    verdict = "not distinguishable"
    if adjusted.distinguishable:
        verdict = "lower" if adjusted.interval.high < 0 else "higher"
    # Of the prompts alone, so the same for both models: scored once.
    alone = score_texts(
        problem.scorer, [toxicity_text(p.text, "", "full") for p in problem.prompts]
    )
    floor = bias(alone, problem.subgroup, count)
    models = [model_bias(problem, one, floor, rng) for one in (texts, fresh)]
    evaluation = AxisEvaluation(
        base=models[0],
        pruned=models[1],
        difference=difference,
        adjusted_difference=adjusted,
        expected_difference=expected,
        details={
            "verdict": verdict,
            "samples_needed": samples_needed(adjusted.value, adjusted.interval, len(texts.texts)),
            "toxicity_difference": toxicity.to_json(),
            "relative_bias": pair.adjusted.relative_bias(rng),
            "prompts": len(problem.prompts),
            "samples": len(texts.texts),
            "templates": len(np.unique(template)),
            "degeneration": {sign.name: _sign(sign) for sign in signs},
            "token_toxicity_r2": token.r_squared,
            "beta": token.beta,
        },
    )
    return evaluation, fresh


def expected_difference(base: BaseAxis, variant: Variant, progress: Progress) -> Estimate:
    """bias(T + dT) - bias(T) with dT teacher-forced on the base model's continuations.

    T is the token model's expectation for the base model, taken as known; the interval is that of
    dT, over templates. Matched contexts: every subgroup's prompt is followed by the same
    continuations.
    """
    shifts = expected_shifts(base, [read_matched(base, variant, progress)])
    gap = base_gaps(base.problem, base.texts, shifts)
    every = np.ones(len(gap), dtype=bool)
    weights = base.problem.weights
    fall = float(z_bias(gap, gap_change(shifts, weights), every)[0, 0])
    error = float(jackknife_stderr(shifts, weights, gap, every)[0, 0])
    reach = error * t_reach(shifts)
    return Estimate(value=-fall, stderr=error, interval=Interval(-fall - reach, -fall + reach))


def read_matched(
    base: BaseAxis, variant: Variant, progress: Progress
) -> Float[np.ndarray, " rows"]:
    """sum_t r_t of each matched row under another model."""
    with variant() as model:
        other = replace(base.problem, model=model)
        return expected_of_rows(other, base.matched, base.token, progress, "pruned")


def expected_shifts(base: BaseAxis, read: Sequence[Float[np.ndarray, " rows"]]) -> HeadShifts:
    """Shifts of subgroup toxicity by template for models that read the matched rows so.

    The models stand where estimators have heads: `shift` is [replicates, subgroups, 1, models].
    """
    problem, chosen = base.problem, base.matched
    change = np.stack(read, axis=-1) - base.matched_toxicity[:, None]
    return group_shifts(
        base.token.beta * change[:, None, :],
        problem.subgroup[chosen.prompt],
        problem.template[chosen.prompt],
        base.matched_sample.sample[chosen.source],
        len(problem.subgroups),
        base.token.expected,
        base.token.adjusted,
        {},
    )


def t_reach(shifts: HeadShifts, level: float = 0.95) -> float:
    """Half a t interval in standard errors, over the templates of the shifts."""
    return float(stats.t.ppf((1 + level) / 2, max(1, len(np.unique(shifts.template)) - 1)))


def _sign(sign: DegenerationSign) -> dict[str, Any]:
    return {
        "base": sign.base,
        "pruned": sign.pruned,
        "difference": sign.difference.to_json(),
        "worse": sign.raised,
    }


def model_bias(
    problem: BiasProblem, sampled: SampledTexts, floor: float, rng: np.random.Generator
) -> ModelBias:
    """One model's bias and gaps, with intervals, from what it wrote."""
    subgroup, template = problem.subgroup[sampled.prompt], problem.template[sampled.prompt]
    count = len(problem.subgroups)
    descriptor = None
    if problem.two_way:  # codes of their own for every subgroup's descriptors
        place = problem.descriptor[sampled.prompt]
        descriptor = subgroup * (int(place.max()) + 1) + place
    found = gap_intervals(sampled.toxicity, subgroup, template, count, descriptor=descriptor)
    by_subgroup = {
        name: Estimate(
            value=float(found.gap[s]), stderr=float(found.stderr[s]), interval=found.interval(s)
        )
        for s, name in enumerate(problem.subgroups)
    }
    return ModelBias(
        bias=bias(sampled.toxicity, subgroup, count),
        bias_corrected=corrected_bias(sampled.toxicity, subgroup, template, count, rng),
        ci95=bias_interval(sampled.toxicity, subgroup, template, count, rng),
        mean_toxicity=float(sampled.toxicity.mean()),
        prompt_floor=floor,
        gaps=by_subgroup,
    )
