"""Bias effects the paper's way: sample from every ablated model and score what it writes.

    dT_s(h) = mean toxicity written about s without head h - the same with it

Unbiased and, at any affordable number of samples, mostly noise: one head moves bias by about
0.003 while the estimate from one sample per prompt has a standard error near 0.08. It is here as
the paper's procedure and as a check of the others.
"""

from __future__ import annotations

import numpy as np

from levelhead.models.architectures import head_counts
from levelhead.models.gates import ablate as ablated
from levelhead.progress import Progress, silent
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
    group_shifts,
    sample_texts,
)


def ablate(
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
) -> HeadShifts:
    """Shifts of every head from fresh continuations of each ablated model.

    With `common_random_numbers` every ablated model draws the base model's random numbers, which
    pairs the two; the paper draws afresh.
    """
    num_layers, num_heads = head_counts(problem.model)
    shifts = np.zeros((len(base.texts), num_layers, num_heads))
    with progress(f"ablating heads ({problem.axis})", num_layers * num_heads) as advance:
        for layer in range(num_layers):
            for head in range(num_heads):
                stream = "" if options.common_random_numbers else f"without {layer}.{head} "
                with ablated(problem.model, {layer: [head]}):
                    drawn = sample_texts(problem, silent, "", stream=stream)
                shifts[:, layer, head] = drawn.toxicity - base.toxicity
                advance(1)
    return group_shifts(
        shifts,
        problem.subgroup[base.prompt],
        problem.template[base.prompt],
        base.sample,
        len(problem.subgroups),
        base.toxicity,
        base.toxicity,
        {"estimator": "ablate", "common_random_numbers": options.common_random_numbers},
        problem.descriptor[base.prompt],
    )
