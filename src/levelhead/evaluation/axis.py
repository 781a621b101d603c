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
import torch
from jaxtyping import Float
from scipy import stats
from transformers.modeling_utils import PreTrainedModel

from levelhead.batching import map_batches
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
from levelhead.scoring.effects import gap_change, jackknife_stderr, z_bias
from levelhead.scoring.problem import BiasProblem, SampledTexts, group_shifts, sample_texts
from levelhead.scoring.teacher_forcing import (
    BATCH_SIZE,
    Row,
    continuation_logits,
    expected_toxicity,
    written_toxicity,
)
from levelhead.scoring.token_gradient import fit_beta, matched_rows, token_toxicity
from levelhead.scoring.token_toxicity import TokenToxicity, toxicity_text
from levelhead.toxicity import score_texts


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
    expected, token_model = expected_difference(problem, pruned, base, progress)
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
            **token_model,
        },
    )
    return evaluation, base, fresh


def expected_difference(
    problem: BiasProblem, pruned: PreTrainedModel, base: SampledTexts, progress: Progress
) -> tuple[Estimate, dict[str, Any]]:
    """bias(T + dT) - bias(T) with dT teacher-forced on the base model's continuations.

    T is the base model's measured toxicity, taken as known; the interval is that of dT, over
    templates. Matched contexts: every subgroup's prompt is followed by the same continuations.
    """
    tau = token_toxicity(problem, base)
    chosen = matched_rows(problem, base)
    before, surprise = _forced(problem, problem.model, chosen.rows, tau, progress, "base")
    after, _ = _forced(problem, pruned, chosen.rows, tau, progress, "pruned")
    model = fit_beta(problem, base, chosen, tau, surprise)
    shifts = group_shifts(
        model.beta * (after - before)[:, None, None],
        problem.subgroup[chosen.prompt],
        problem.template[chosen.prompt],
        base.sample[chosen.source],
        len(problem.subgroups),
        {},
    )
    gap = problem.gaps(base)
    every = np.ones(len(gap), dtype=bool)
    fall = float(z_bias(gap, gap_change(shifts, problem.weights), every)[0, 0])
    error = float(jackknife_stderr(shifts, problem.weights, gap, every)[0, 0])
    reach = error * float(stats.t.ppf(0.975, max(1, len(np.unique(shifts.template)) - 1)))
    return (
        Estimate(value=-fall, stderr=error, interval=Interval(-fall - reach, -fall + reach)),
        {"token_toxicity_r2": model.r_squared, "beta": model.beta},
    )


def _sign(sign: DegenerationSign) -> dict[str, Any]:
    return {
        "base": sign.base,
        "pruned": sign.pruned,
        "difference": sign.difference.to_json(),
        "worse": sign.raised,
    }


def _forced(
    problem: BiasProblem,
    model: PreTrainedModel,
    rows: tuple[Row, ...],
    tau: TokenToxicity,
    progress: Progress,
    name: str,
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """(sum_t r_t, sum_t [tau(y_t) - r_t]) of each row under a model."""

    def work(batch: list[Row]) -> list[tuple[float, float]]:
        with torch.inference_mode():
            steps = continuation_logits(model, batch, pad_id(problem.tokenizer))
            r = expected_toxicity(steps, batch, tau).sum(-1)
            written = written_toxicity(steps, batch, tau, steps.logits.shape[-1]).sum(-1)
        return list(zip(r.tolist(), (written - r).tolist(), strict=True))

    with progress(f"reading with the {name} model ({problem.axis})", len(rows)) as advance:
        done = map_batches(
            rows, work, batch_size=problem.batch_size or BATCH_SIZE, length=len, advance=advance
        )
    return np.array([r for r, _ in done]), np.array([m for _, m in done])


def _model_bias(problem: BiasProblem, sampled: SampledTexts, rng: np.random.Generator) -> ModelBias:
    subgroup, template = problem.subgroup[sampled.prompt], problem.template[sampled.prompt]
    count = len(problem.subgroups)
    floor = score_texts(
        problem.scorer, [toxicity_text(p.text, "", "full") for p in problem.prompts]
    )
    found = gap_intervals(sampled.toxicity, subgroup, template, count)
    gaps = {
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
        gaps=gaps,
    )
