"""Bias effects by the token-level gradient: every head from one backward pass.

Not sampled toxicity but its expectation under the next-token distribution is differentiated with
respect to head gates, on continuations that the base model wrote:

    dT_s(h) = - beta * mean over texts of s of  sum_t d r_t / d g_h   at all gates 1

r_t and beta are the token model's. What this sees is the direct, first-order, token-additive part
of an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.batching import map_batches
from levelhead.models.architectures import head_counts
from levelhead.models.gates import gated
from levelhead.progress import Progress
from levelhead.sampling import pad_id
from levelhead.scoring.matched_rows import MatchedRows, rows_to_read
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
    group_shifts,
)
from levelhead.scoring.teacher_forcing import (
    BATCH_SIZE,
    Row,
    Steps,
    continuation_logits,
    expected_toxicity,
)
from levelhead.scoring.token_model import TokenModel, token_model
from levelhead.scoring.token_toxicity import TokenToxicity


def token_gradient(
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
) -> HeadShifts:
    """Shifts of every head by the token-level gradient.

    Raises:
        ScorerError: token toxicity is all zero, or cannot be fitted to the scorer's answers.
    """
    model = token_model(problem, base, progress)
    chosen = rows_to_read(problem, base, matched=options.matched)
    change = -gradients(problem, chosen.rows, model.tau, progress)
    return token_shifts(problem, base, model, chosen, change, "token-gradient", options)


def gradients(
    problem: BiasProblem, rows: Sequence[Row], tau: TokenToxicity, progress: Progress
) -> Float[np.ndarray, "rows layers heads"]:
    """d sum_t r_t / d g_h of each row at all gates 1."""
    return gate_derivatives(
        problem,
        rows,
        lambda steps, batch: expected_toxicity(steps, batch, tau),
        progress,
        f"gradients ({problem.axis})",
    )


def gate_derivatives(
    problem: BiasProblem,
    rows: Sequence[Row],
    quantity: Callable[[Steps, list[Row]], Float[Tensor, "rows steps"]],
    progress: Progress,
    description: str,
) -> Float[np.ndarray, "rows layers heads"]:
    """d (sum of a quantity over a row's steps) / d g_h at all gates 1; steps not valid count 0."""
    size = head_counts(problem.model)
    pad = pad_id(problem.tokenizer)

    def work(batch: list[Row]) -> list[np.ndarray]:
        gates = torch.ones(len(batch), *size, device=problem.model.device, requires_grad=True)
        with gated(problem.model, gates):
            steps = continuation_logits(problem.model, batch, pad)
            total = (quantity(steps, batch) * steps.valid).sum()
            (gradient,) = torch.autograd.grad(total, gates)
        return list(gradient.double().cpu().numpy())

    with progress(description, len(rows)) as advance:
        done = map_batches(
            rows, work, batch_size=problem.batch_size or BATCH_SIZE, length=len, advance=advance
        )
    return np.stack(done)


def token_shifts(
    problem: BiasProblem,
    base: SampledTexts,
    model: TokenModel,
    chosen: MatchedRows,
    change: Float[np.ndarray, "rows layers heads"],
    estimator: str,
    options: EstimatorOptions,
    **diagnostics: object,
) -> HeadShifts:
    """Shifts of subgroup toxicity from the change of sum_t r_t of each row without each head."""
    return group_shifts(
        model.beta * change,
        problem.subgroup[chosen.prompt],
        problem.template[chosen.prompt],
        base.sample[chosen.source],
        len(problem.subgroups),
        model.expected,
        model.adjusted,
        {
            "estimator": estimator,
            "matched_contexts": options.matched,
            "beta": model.beta,
            "token_toxicity_r2": model.r_squared,
            "token_toxicity_tokens": len(model.tau.token_ids),
            "classifier_calls": model.tau.classifier_calls,
            "rows": len(chosen.rows),
            **diagnostics,
        },
        problem.descriptor[chosen.prompt],
    )
