"""Head scores of the baselines that FASP is compared with (arXiv 2312.15398, section 4.2).

    magnitude(h)      L2 norm of all the head's weights
    mask_gradient(h)  sum over batches of |d loss / d gate_h|, divided by its L2 norm in the layer

Small means dispensable: these methods prune the heads with the smallest scores. Neither knows of
bias, nor of which heads language modelling needs together.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from levelhead.batching import map_batches
from levelhead.models.architectures import architecture_of, attention_modules, head_counts
from levelhead.models.gates import HeadGates
from levelhead.models.quantised import plain_copy
from levelhead.models.surgery import refuse_pruned, slice_attention
from levelhead.progress import Progress
from levelhead.scoring.perplexity_effects import window_nll

Grid = Float[np.ndarray, "layers heads"]

MASK_GRADIENT_TOKENS = 4096
"""Of the perplexity text; Michel et al. (2019), whose score it is, find little is enough."""


def magnitude(model: PreTrainedModel) -> Grid:
    """L2 norm of each head's query, key and value weights and biases and its output columns.

    What a head has is what surgery leaves of an attention module cut down to that head; key/value
    heads that several query heads share count for each of them.

    Raises:
        ModelError: the model is pruned already.
    """
    refuse_pruned(model)
    output = architecture_of(model).output_projection
    num_layers, num_heads = head_counts(model)
    norms = np.zeros((num_layers, num_heads))
    for layer, attention in enumerate(attention_modules(model)):
        for head in range(num_heads):
            alone = slice_attention(model, plain_copy(attention), (head,), layer)
            norms[layer, head] = _norm(alone, alone.get_submodule(output))
    return norms


def _norm(attention: nn.Module, output: nn.Module) -> float:
    """Of all projections; norms of queries and keys and the output's bias belong to no head."""
    total = 0.0
    for module in attention.modules():
        if isinstance(module, nn.Linear | Conv1D):
            weight, bias = module.weight, module.bias
            parts = [weight, bias] if bias is not None and module is not output else [weight]
            total += sum(float(part.detach().double().square().sum()) for part in parts)
    return math.sqrt(total)


def mask_gradient(
    model: PreTrainedModel, windows: Int[Tensor, "windows time"], progress: Progress
) -> Grid:
    """Sum over windows of |d NLL / d gate_h| at gates 1, divided by its L2 norm in each layer.

    Raises:
        ModelError: the model yields NaN.
    """
    total = np.zeros(head_counts(model))
    with progress("mask gradients", len(windows)) as advance, HeadGates(model) as head_gates:

        def work(batch: list[int]) -> list[np.ndarray]:
            gates = torch.ones(head_counts(model), device=model.device, requires_grad=True)
            head_gates.gates = gates
            loss = window_nll(model, windows[batch].to(model.device)).sum()
            (gradient,) = torch.autograd.grad(loss, gates)
            return [gradient.abs().double().cpu().numpy()]

        numbers = list(range(len(windows)))
        for one in map_batches(
            numbers, work, batch_size=1, length=lambda _: 0, advance=advance, of=windows
        ):
            total += one
    size = np.linalg.norm(total, axis=1, keepdims=True)
    scores: Grid = total / np.maximum(size, np.finfo(float).tiny)
    return scores
