"""Effects of whole attention layers on bias and perplexity, a gate shared by a layer's heads.

A model has some thirty layers, so that each is ablated for true: perplexity always (what a layer
costs is far from what its heads' derivatives add up to), bias by default (`finite`). The
first-order bias effect, the sum of the heads' gradients, is there for comparison.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from levelhead.batching import map_batches
from levelhead.models.architectures import head_counts
from levelhead.models.gates import HeadGates
from levelhead.models.resume import captured_layer_inputs, resumed_at
from levelhead.progress import Progress
from levelhead.sampling import pad_id
from levelhead.scoring.finite import BATCH_SIZE
from levelhead.scoring.matched_rows import rows_to_read
from levelhead.scoring.perplexity_effects import PerplexityEffects, window_nll
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
)
from levelhead.scoring.teacher_forcing import Row, row_toxicity
from levelhead.scoring.token_gradient import gradients, token_shifts
from levelhead.scoring.token_model import token_model


def layer_gradient(
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
) -> HeadShifts:
    """Shifts of every layer to first order: the sums of its heads' gradients.

    Raises:
        ScorerError: token toxicity is all zero, or cannot be fitted to the scorer's answers.
    """
    model = token_model(problem, base, progress)
    chosen = rows_to_read(problem, base, matched=options.matched)
    change = -gradients(problem, chosen.rows, model.tau, progress).sum(-1, keepdims=True)
    return token_shifts(
        problem, base, model, chosen, change, "token-gradient", options, unit="layer"
    )


def layer_finite(
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
) -> HeadShifts:
    """Shifts of every layer by reading the continuations without its attention.

    Raises:
        ScorerError: token toxicity is all zero, or cannot be fitted to the scorer's answers.
    """
    model = token_model(problem, base, progress)
    chosen = rows_to_read(problem, base, matched=options.matched)
    pad, shape = pad_id(problem.tokenizer), head_counts(problem.model)

    def total(batch: list[Row]) -> np.ndarray:
        return row_toxicity(problem.model, batch, model.tau, pad)

    with (
        torch.inference_mode(),
        progress(f"ablating layers ({problem.axis})", len(chosen.rows) * shape[0]) as advance,
        HeadGates(problem.model) as head_gates,
    ):

        def work(batch: list[Row]) -> list[np.ndarray]:
            head_gates.gates = None
            with captured_layer_inputs(problem.model) as entering:
                whole = total(batch)
            change = np.zeros((len(batch), shape[0], 1))
            for layer in range(shape[0]):
                head_gates.gates = _without(problem.model, layer)
                with resumed_at(problem.model, layer, entering[layer]):
                    change[:, layer, 0] = total(batch) - whole
                advance(len(batch))
            return list(change)

        size = problem.batch_size or BATCH_SIZE
        done = map_batches(chosen.rows, work, batch_size=size, length=len)
    return token_shifts(
        problem, base, model, chosen, np.stack(done), "finite", options, unit="layer"
    )


def layer_ablation(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    progress: Progress,
    seed: int,
    gamma: float,
) -> PerplexityEffects:
    """dNLL of every layer by ablating its attention, resuming where it begins."""
    num_layers, _ = head_counts(model)
    base = np.zeros(len(windows))
    change: Float[np.ndarray, "windows layers 1"] = np.zeros((len(windows), num_layers, 1))
    with (
        torch.inference_mode(),
        progress("ablating layers (perplexity)", len(windows) * num_layers) as advance,
        HeadGates(model) as head_gates,
    ):
        for number, window in enumerate(windows):
            ids = window[None].to(model.device)
            head_gates.gates = None
            with captured_layer_inputs(model) as entering:
                base[number] = window_nll(model, ids).item()
            for layer in range(num_layers):
                head_gates.gates = _without(model, layer)
                with resumed_at(model, layer, entering[layer]):
                    change[number, layer] = window_nll(model, ids).item() - base[number]
                advance(1)
    return PerplexityEffects(
        base_nll=base,
        nll_change=change,
        diagnostics={"estimator": "exhaustive", "unit": "layer", "tokens": windows.numel()},
    )


def _without(model: PreTrainedModel, layer: int) -> Float[Tensor, "layers heads"]:
    gates = torch.ones(head_counts(model), device=model.device)
    gates[layer] = 0
    return gates
