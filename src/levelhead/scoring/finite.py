"""Bias effects by true ablation at the token level: no linearisation, a forward pass per head.

    dT_s(h) = beta * mean over texts of s of  sum_t sum_v (p_h - p_0)(v | x, y_<t) tau_s(v)

The model reads the base model's continuations with head h ablated, from the head's layer on: what
enters that layer is the same as in the whole model and is kept. The other limits of the token
model stay: one word at a time, and changed words do not change what follows them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from levelhead.batching import map_batches
from levelhead.models.architectures import head_counts
from levelhead.models.gates import HeadGates
from levelhead.models.resume import captured_layer_inputs, resumed_at
from levelhead.progress import Progress
from levelhead.records import Head
from levelhead.sampling import pad_id
from levelhead.scoring.matched_rows import rows_to_read
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
)
from levelhead.scoring.teacher_forcing import Row, row_toxicity
from levelhead.scoring.token_gradient import token_shifts
from levelhead.scoring.token_model import token_model
from levelhead.scoring.token_toxicity import TokenToxicity

BATCH_SIZE = 8
"""Rows per batch; the hidden states of every layer are kept for as many."""


def finite(
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
) -> HeadShifts:
    """Shifts of every head by reading the continuations without it.

    Raises:
        ScorerError: token toxicity is all zero, or cannot be fitted to the scorer's answers.
    """
    model = token_model(problem, base, progress)
    chosen = rows_to_read(problem, base, matched=options.matched)
    num_layers, num_heads = head_counts(problem.model)
    heads = [(layer, head) for layer in range(num_layers) for head in range(num_heads)]
    change = ablated_toxicity(problem, chosen.rows, model.tau, heads, progress)
    grid = change.reshape(len(chosen.rows), num_layers, num_heads)
    return token_shifts(problem, base, model, chosen, grid, "finite", options)


def ablated_toxicity(
    problem: BiasProblem,
    rows: Sequence[Row],
    tau: TokenToxicity,
    heads: Sequence[Head],
    progress: Progress,
) -> Float[np.ndarray, "rows heads"]:
    """Change of sum_t r_t of each row when each of the heads is ablated."""
    pad = pad_id(problem.tokenizer)
    shape = head_counts(problem.model)
    by_layer = sorted(enumerate(heads), key=lambda item: item[1])

    def total(batch: list[Row]) -> np.ndarray:
        return row_toxicity(problem.model, batch, tau, pad)

    with (
        torch.inference_mode(),
        progress(f"ablating heads ({problem.axis})", len(rows) * len(heads)) as advance,
        HeadGates(problem.model) as head_gates,
    ):

        def work(batch: list[Row]) -> list[np.ndarray]:
            head_gates.gates = None
            with captured_layer_inputs(problem.model) as entering:
                whole = total(batch)
            change = np.zeros((len(batch), len(heads)))
            for position, (layer, head) in by_layer:
                gates = torch.ones(shape, device=problem.model.device)
                gates[layer, head] = 0
                head_gates.gates = gates
                with resumed_at(problem.model, layer, entering[layer]):
                    change[:, position] = total(batch) - whole
                advance(len(batch))
            return list(change)

        done = map_batches(
            rows,
            work,
            batch_size=problem.batch_size or BATCH_SIZE,
            length=len,
            reused=lambda units: advance(units * len(heads)),
            of=list(heads),
        )
    return np.stack(done)
