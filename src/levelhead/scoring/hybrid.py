"""Bias effects by gradient for all heads, and by true ablation where the gradient decides badly.

The finite estimate (a forward pass per head) goes to the heads with the largest Fisher value,
where a linear prediction is least trustworthy, and to those around the selection boundary, where
a small error changes the set. Everything else is the token-level gradient.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from levelhead.progress import Progress
from levelhead.records import Head
from levelhead.sampling import derived_seed
from levelhead.scores import head_count
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.finite import ablated_toxicity
from levelhead.scoring.matched_rows import own_rows, rows_to_read
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
)
from levelhead.scoring.teacher_forcing import Row, Steps
from levelhead.scoring.token_gradient import gate_derivatives, gradients, token_shifts
from levelhead.scoring.token_model import token_model

FISHER_SHARE = 0.04
"""Share of all heads ablated for their Fisher value."""
BOUNDARY_SHARE = 0.06
"""Share of all heads ablated because they are next to the selection boundary."""
FISHER_ROWS = 64
"""Continuations behind the Fisher values."""

Grid = Float[np.ndarray, "layers heads"]


def hybrid(
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
) -> HeadShifts:
    """Shifts of every head by gradient, and by ablation for about a tenth of them.

    Raises:
        ScorerError: token toxicity is all zero, or cannot be fitted to the scorer's answers.
    """
    model = token_model(problem, base, progress)
    chosen = rows_to_read(problem, base, matched=options.matched)
    change = -gradients(problem, chosen.rows, model.tau, progress)
    first = token_shifts(problem, base, model, chosen, change, "hybrid", options)
    effect = axis_effects(problem, base, first).effect
    fisher = fisher_values(problem, base, progress)
    heads = heads_to_ablate(effect, fisher, options)
    layers, numbers = np.array(heads).T
    change[:, layers, numbers] = ablated_toxicity(problem, chosen.rows, model.tau, heads, progress)
    return token_shifts(
        problem, base, model, chosen, change, "hybrid", options, heads_ablated=len(heads)
    )


def heads_to_ablate(effect: Grid, fisher: Grid, options: EstimatorOptions) -> list[Head]:
    """The heads with the largest Fisher value and those next to the selection boundary, sorted.

    The boundary lies between the floor(alpha N)-th and the next head by z_bias among the heads
    that may be pruned.
    """
    total = effect.size
    by_fisher = np.argsort(-fisher, axis=None, kind="stable")[: _share(FISHER_SHARE, total)]
    free = np.ones(effect.shape, dtype=bool) if options.protected is None else ~options.protected
    order = np.argsort(-np.where(free, effect, -np.inf), axis=None, kind="stable")
    order = order[: int(free.sum())]
    width = _share(BOUNDARY_SHARE, total)
    start = max(0, min(head_count(options.alpha, total) - width // 2, len(order) - width))
    chosen = {int(i) for i in by_fisher} | {int(i) for i in order[start : start + width]}
    return [divmod(i, effect.shape[1]) for i in sorted(chosen)]


def fisher_values(problem: BiasProblem, base: SampledTexts, progress: Progress) -> Grid:
    """E[(d log p(y|x) / d g_h)^2] over some of the model's own continuations."""
    rng = np.random.default_rng(
        derived_seed(problem.seed, problem.axis, problem.first_sample, "fisher")
    )
    every = own_rows(problem, base).rows
    rows = [every[i] for i in rng.permutation(len(every))[:FISHER_ROWS]]
    description = f"Fisher values ({problem.axis})"
    score = gate_derivatives(problem, rows, _written_log_p, progress, description)
    out: Grid = (score**2).mean(0)
    return out


def _written_log_p(steps: Steps, rows: list[Row]) -> Float[Tensor, "rows steps"]:
    return steps.logits.log_softmax(-1).gather(-1, steps.tokens[..., None])[..., 0]


def _share(share: float, total: int) -> int:
    return max(1, round(share * total))
