"""Compare a pruned model with its base on one axis' held-out prompts.

Three answers to "did bias fall?": `difference` samples both models afresh with common random
numbers; `adjusted_difference` is the same estimate less the noise that the token model can name (a
control variate; the verdict rests on it); and `expected_difference` reads the base model's
continuations with both models and moves each subgroup's mean toxicity by what their next-token
distributions say (the finite version of the token-level score: first-order, small error). The
first two are proof, the third is what the scores aim at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from transformers.modeling_utils import PreTrainedModel

from levelhead.metrics.bias import bias, corrected_bias
from levelhead.metrics.bias_intervals import bias_interval, paired_difference_interval
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
from levelhead.sampling import derived_seed, pad_id
from levelhead.scoring.effects import base_gaps, gap_change, jackknife_stderr, z_bias
from levelhead.scoring.matched_rows import matched_rows, own_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts, group_shifts, sample_texts
from levelhead.scoring.teacher_forcing import read_rows
from levelhead.scoring.token_model import TokenModel, token_model
from levelhead.scoring.token_toxicity import toxicity_text
from levelhead.toxicity import score_texts

EXPECTED_GROUPS = 40
"""Matched groups read with both models: their paired difference has a small error already."""


def evaluate_axis(
    problem: BiasProblem, pruned: PreTrainedModel, progress: Progress
) -> tuple[AxisEvaluation, SampledTexts, SampledTexts]:
    """Everything about one axis, and the continuations of the base and the pruned model."""
    other = replace(problem, model=pruned)
    base = sample_texts(problem, progress, f"sampling the base model ({problem.axis})")
    fresh = sample_texts(other, progress, f"sampling the pruned model ({problem.axis})")
    rng = np.random.default_rng(derived_seed(problem.seed, problem.axis, "evaluation"))
    subgroup, template = problem.subgroup[base.prompt], problem.template[base.prompt]
    count = len(problem.subgroups)
    difference = _difference(base.toxicity, fresh.toxicity, subgroup, template, count, rng)
    token = token_model(problem, base, progress)
    adjusted = _difference(
        token.adjusted, _adjusted(other, fresh, token, progress), subgroup, template, count, rng
    )
    toxicity = linear_difference_interval(fresh.toxicity - base.toxicity, template)
    signs = compare_degeneration(
        degeneration_values(base.texts, base.tokens, problem.new_tokens),
        degeneration_values(fresh.texts, fresh.tokens, problem.new_tokens),
        template,
    )
    expected = expected_difference(problem, pruned, base, token, progress)
    verdict = "not distinguishable"
    if adjusted.distinguishable:
        verdict = "lower" if adjusted.interval.high < 0 else "higher"
    # Of the prompts alone, so the same for both models: scored once.
    alone = score_texts(
        problem.scorer, [toxicity_text(p.text, "", "full") for p in problem.prompts]
    )
    floor = bias(alone, problem.subgroup, count)
    evaluation = AxisEvaluation(
        base=_model_bias(problem, base, floor, rng),
        pruned=_model_bias(problem, fresh, floor, rng),
        difference=difference,
        adjusted_difference=adjusted,
        expected_difference=expected,
        details={
            "verdict": verdict,
            "samples_needed": samples_needed(adjusted.value, adjusted.interval, len(base.texts)),
            "toxicity_difference": toxicity.to_json(),
            "prompts": len(problem.prompts),
            "samples": len(base.texts),
            "templates": len(np.unique(template)),
            "degeneration": {sign.name: _sign(sign) for sign in signs},
            "token_toxicity_r2": token.r_squared,
            "beta": token.beta,
        },
    )
    return evaluation, base, fresh


def expected_difference(
    problem: BiasProblem,
    pruned: PreTrainedModel,
    base: SampledTexts,
    token: TokenModel,
    progress: Progress,
) -> Estimate:
    """bias(T + dT) - bias(T) with dT teacher-forced on the base model's continuations.

    T is the token model's expectation for the base model, taken as known; the interval is that of
    dT, over templates. Matched contexts: every subgroup's prompt is followed by the same
    continuations.
    """
    chosen = matched_rows(problem, base, EXPECTED_GROUPS)
    expected = []
    for name, model in (("base", problem.model), ("pruned", pruned)):
        with progress(f"reading with the {name} model ({problem.axis})", len(chosen.rows)) as done:
            toxicity, _ = read_rows(
                model,
                chosen.rows,
                token.tau,
                pad=pad_id(problem.tokenizer),
                batch_size=problem.batch_size,
                advance=done,
            )
        expected.append(toxicity)
    before, after = expected
    shifts = group_shifts(
        token.beta * (after - before)[:, None, None],
        problem.subgroup[chosen.prompt],
        problem.template[chosen.prompt],
        base.sample[chosen.source],
        len(problem.subgroups),
        token.expected,
        token.adjusted,
        {},
    )
    gap = base_gaps(problem, base, shifts)
    every = np.ones(len(gap), dtype=bool)
    fall = float(z_bias(gap, gap_change(shifts, problem.weights), every)[0, 0])
    error = float(jackknife_stderr(shifts, problem.weights, gap, every)[0, 0])
    reach = error * float(stats.t.ppf(0.975, max(1, len(np.unique(shifts.template)) - 1)))
    return Estimate(value=-fall, stderr=error, interval=Interval(-fall - reach, -fall + reach))


def _adjusted(
    problem: BiasProblem, fresh: SampledTexts, token: TokenModel, progress: Progress
) -> Float[np.ndarray, " n"]:
    """Toxicity of another model's continuations, less the noise the token model can name."""
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


def _difference(
    base: Float[np.ndarray, " n"],
    fresh: Float[np.ndarray, " n"],
    subgroup: Int[np.ndarray, " n"],
    template: Int[np.ndarray, " n"],
    count: int,
    rng: np.random.Generator,
) -> Estimate:
    return Estimate(
        value=bias(fresh, subgroup, count) - bias(base, subgroup, count),
        interval=paired_difference_interval(base, fresh, subgroup, template, count, rng),
    )


def _sign(sign: DegenerationSign) -> dict[str, Any]:
    return {
        "base": sign.base,
        "pruned": sign.pruned,
        "difference": sign.difference.to_json(),
        "worse": sign.raised,
    }


def _model_bias(
    problem: BiasProblem, sampled: SampledTexts, floor: float, rng: np.random.Generator
) -> ModelBias:
    subgroup, template = problem.subgroup[sampled.prompt], problem.template[sampled.prompt]
    count = len(problem.subgroups)
    found = gap_intervals(sampled.toxicity, subgroup, template, count)
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
