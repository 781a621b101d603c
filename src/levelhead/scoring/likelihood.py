"""Bias effects on likelihood: a measure of bias that needs no classifier.

The SAME continuation c is read after every subgroup's version of a prompt x_s:

    l_s(c) = 1/|c| sum_t log p(c_t | x_s, c_<t)     nats per token, its end-of-text token included
    T_s    = mean of l_s(c) over matched continuations, as likely a text is for subgroup s
    d_s    = T_S - T_s                              T_S: mean of the T_s by prompts
    bias   = sum over s of |d_s|
    dT_s(h) = - mean of d l_s(c) / d g_h            at all gates 1: T_s without head h, less with it

Every version of a prompt gets the continuations that ALL versions gave rise to: a text is likeliest
after the prompt it was written for, and so each subgroup has that advantage as often. (With one
writer per prompt, who writes it is most of the noise: on the embedded model the standard errors of
d_s are five times as large.) It takes as many readings as there are subgroups to a continuation.

What it says: how differently the model treats the same text depending on whom it is about. What it
does not: whether the text is good or bad for anyone. Words of the prompt that a text repeats add to
it, and gaps of 0 do not mean that what is WRITTEN is alike: each subgroup's own texts may be likely
after its own prompts to the same extent. And the effects of heads are first-order: the likelihood
of texts that the model wrote after this very prompt is at its maximum, where ablation lowers it in
second order only, so what is seen of a head is what it does to texts written for others.
Signs, errors and reliability are those of every estimator, "more toxic" read as "more likely".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.batching import map_batches
from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import PromptError
from levelhead.progress import Progress
from levelhead.records import Prompt
from levelhead.sampling import pad_id
from levelhead.scoring.matched_rows import matched_rows
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
    group_shifts,
)
from levelhead.scoring.teacher_forcing import BATCH_SIZE, Row, Steps, continuation_logits
from levelhead.scoring.token_gradient import gate_derivatives


def likelihood(
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
) -> HeadShifts:
    """Shifts of every head: change of T_s, in nats per token, when it is ablated (first order).

    Every prompt must have a counterpart in every subgroup: the gaps compare the same texts.

    Raises:
        PromptError: prompts without a counterpart in every subgroup.
    """
    check_matched(problem.prompts)
    chosen = matched_rows(problem, base, sources=len(problem.subgroups))
    rows = chosen.rows
    value = read_log_likelihood(problem, rows, progress)
    slope = gate_derivatives(
        problem, rows, _per_token, progress, f"likelihood gradients ({problem.axis})"
    )
    sample = base.sample[chosen.source]
    level = _by_text(problem, base, chosen.prompt, sample, value)
    return group_shifts(
        -slope,
        problem.subgroup[chosen.prompt],
        problem.template[chosen.prompt],
        sample,
        len(problem.subgroups),
        level,
        level,
        {"estimator": "likelihood", "rows": len(rows), "nats_per_token": float(value.mean())},
        problem.descriptor[chosen.prompt],
    )


def check_matched(prompts: Sequence[Prompt]) -> None:
    """Raise PromptError for prompts of an axis without a counterpart in every subgroup."""
    whole = {prompt.id for group in matched_groups(prompts) for prompt in group}
    alone = [prompt.id for prompt in prompts if prompt.id not in whole]
    if alone:
        raise PromptError(
            f"the likelihood measure compares the same continuation between subgroups, and "
            f"{len(alone)} of {len(prompts)} prompts of axis {prompts[0].axis!r} have no "
            f"counterpart in every subgroup (the first: {alone[0]!r}); give prompts with the "
            "columns template and variant, or leave this measure out"
        )


def read_log_likelihood(
    problem: BiasProblem, rows: Sequence[Row], progress: Progress
) -> Float[np.ndarray, " rows"]:
    """Log-likelihood per token of each row's continuation after its prompt, in nats (at most 0)."""
    pad = pad_id(problem.tokenizer)

    def work(batch: list[Row]) -> list[float]:
        with torch.inference_mode():
            steps = continuation_logits(problem.model, batch, pad)
            per_token = (_per_token(steps, batch) * steps.valid).sum(-1)
        return [float(value) for value in per_token.double().cpu()]

    size = problem.batch_size or BATCH_SIZE
    with progress(f"likelihoods ({problem.axis})", len(rows)) as advance:
        return np.array(map_batches(rows, work, batch_size=size, length=len, advance=advance))


def _per_token(steps: Steps, rows: Sequence[Row]) -> Float[Tensor, "rows steps"]:
    """log p of the tokens that stand there, divided by how many the row has."""
    logits = steps.logits
    of_token = logits.gather(-1, steps.tokens[..., None])[..., 0] - logits.logsumexp(-1)
    counts = torch.tensor([len(row.continuation) for row in rows], device=logits.device)
    return of_token / counts[:, None]


def _by_text(
    problem: BiasProblem,
    base: SampledTexts,
    prompt: np.ndarray,
    sample: np.ndarray,
    value: Float[np.ndarray, " rows"],
) -> Float[np.ndarray, " n"]:
    """Mean over the rows of each prompt and sample, in the order of the base continuations."""
    shape = (len(problem.prompts), int(base.sample.max()) + 1)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (prompt, sample), value)
    np.add.at(count, (prompt, sample), 1)
    mean: Float[np.ndarray, " n"] = (total / np.maximum(count, 1))[base.prompt, base.sample]
    return mean
