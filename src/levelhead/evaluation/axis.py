"""Compare a pruned model with its base on one axis' held-out prompts.

Two answers to "did bias fall?": `difference` samples both models afresh with common random
numbers; `expected_difference` reads the base model's continuations with both models and moves
each subgroup's mean toxicity by what their next-token distributions say (the finite version of
the token-level score: first-order, small error). The first is the proof, the second the aim.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats
from transformers.modeling_utils import PreTrainedModel

from levelhead.metrics.bias import bias, corrected_bias, gaps
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
from levelhead.scoring.effects import gap_change, jackknife_stderr, z_bias
from levelhead.scoring.problem import BiasProblem, SampledTexts, group_shifts, sample_texts
from levelhead.scoring.teacher_forcing import read_rows
from levelhead.scoring.token_gradient import matched_rows, token_model
from levelhead.scoring.token_toxicity import toxicity_text
from levelhead.toxicity import score_texts

EXPECTED_GROUPS = 60
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
    difference = Estimate(
        value=bias(fresh.toxicity, subgroup, count) - bias(base.toxicity, subgroup, count),
        interval=paired_difference_interval(
            base.toxicity, fresh.toxicity, subgroup, template, count, rng
        ),
    )
    toxicity = linear_difference_interval(fresh.toxicity - base.toxicity, template)
    signs = compare_degeneration(
        degeneration_values(base.texts, base.tokens, problem.new_tokens),
        degeneration_values(fresh.texts, fresh.tokens, problem.new_tokens),
        template,
    )
    expected, token = expected_difference(problem, pruned, base, progress)
    verdict = "not distinguishable"
    if difference.distinguishable:
        verdict = "lower" if difference.value < 0 else "higher"
    evaluation = AxisEvaluation(
        base=_model_bias(problem, base, rng),
        pruned=_model_bias(problem, fresh, rng),
        difference=difference,
        expected_difference=expected,
        details={
            "verdict": verdict,
            "samples_needed": samples_needed(
                difference.value, difference.interval, len(base.texts)
            ),
            "toxicity_difference": toxicity.to_json(),
            "prompts": len(problem.prompts),
            "samples": len(base.texts),
            "templates": len(np.unique(template)),
            "degeneration": {sign.name: _sign(sign) for sign in signs},
            **token,
        },
    )
    return evaluation, base, fresh


def expected_difference(
    problem: BiasProblem, pruned: PreTrainedModel, base: SampledTexts, progress: Progress
) -> tuple[Estimate, dict[str, Any]]:
    """bias(T + dT) - bias(T) with dT teacher-forced on the base model's continuations.

    T is the base model's measured (adjusted) toxicity, taken as known; the interval is that of dT,
    over templates. Matched contexts: every subgroup's prompt is followed by the same continuations.
    """
    token = token_model(problem, base, progress)
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
        token.adjusted,
        {},
    )
    gap = gaps(token.adjusted, problem.subgroup[base.prompt], len(problem.subgroups))
    every = np.ones(len(gap), dtype=bool)
    fall = float(z_bias(gap, gap_change(shifts, problem.weights), every)[0, 0])
    error = float(jackknife_stderr(shifts, problem.weights, gap, every)[0, 0])
    reach = error * float(stats.t.ppf(0.975, max(1, len(np.unique(shifts.template)) - 1)))
    return (
        Estimate(value=-fall, stderr=error, interval=Interval(-fall - reach, -fall + reach)),
        {"token_toxicity_r2": token.r_squared, "beta": token.beta},
    )


def _sign(sign: DegenerationSign) -> dict[str, Any]:
    return {
        "base": sign.base,
        "pruned": sign.pruned,
        "difference": sign.difference.to_json(),
        "worse": sign.raised,
    }


def _model_bias(problem: BiasProblem, sampled: SampledTexts, rng: np.random.Generator) -> ModelBias:
    subgroup, template = problem.subgroup[sampled.prompt], problem.template[sampled.prompt]
    count = len(problem.subgroups)
    floor = score_texts(
        problem.scorer, [toxicity_text(p.text, "", "full") for p in problem.prompts]
    )
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
        prompt_floor=bias(floor, problem.subgroup, count),
        gaps=by_subgroup,
    )
