"""Single weights of the attention projections: find them, and set some to zero for good or a while.

Query, key, value and output projections, fused ones too, without their biases. Zeroing changes no
shape: the model stays stock, as large as it was, and as slow. Knows nothing of why weights go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from levelhead.errors import ModelError
from levelhead.models.architectures import architecture_of, attention_modules
from levelhead.models.quantised import refuse_quantised
from levelhead.models.removed_heads import model_is_pruned

Masks = Mapping[str, Bool[Tensor, "*shape"]]
"""True where a weight is to be zero, by the name of the parameter, in its shape."""


def attention_weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Every weight matrix of the attention projections, by its name in the model.

    Raises:
        ModelError: the model is pruned or quantised.
    """
    if model_is_pruned(model):
        raise ModelError("the model is pruned already; zero weights of the original model")
    refuse_quantised(model)
    family = architecture_of(model)
    found = {}
    for layer, attention in enumerate(attention_modules(model)):
        path = f"{family.layers}.{layer}.{family.attention}"
        for name, module in attention.named_modules():
            if isinstance(module, nn.Linear | Conv1D):
                found[f"{path}.{name}.weight"] = module.get_parameter("weight")
    return found


def input_dim(model: PreTrainedModel, name: str) -> int:
    """Which dimension of a weight counts its inputs: 1, or 0 in a Conv1D."""
    module = model.get_submodule(name.removesuffix(".weight"))
    return 0 if isinstance(module, Conv1D) else 1


def zero_weights(model: PreTrainedModel, masks: Masks) -> None:
    """Set weights to zero, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            weight = model.get_parameter(name)
            weight.masked_fill_(mask.to(weight.device), 0)


@contextmanager
def without_weights(model: PreTrainedModel, masks: Masks) -> Iterator[PreTrainedModel]:
    """The model with weights set to zero while the context is open; it gets them back."""
    kept = {name: model.get_parameter(name).detach().clone() for name in masks}
    try:
        zero_weights(model, masks)
        yield model
    finally:
        with torch.no_grad():
            for name, weight in kept.items():
                model.get_parameter(name).copy_(weight)


def describe(masks: Masks) -> dict[str, Any]:
    """How many weights go of each matrix, and a digest of which; not every place."""
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(f"{name} {tuple(masks[name].shape)}".encode())
        digest.update(np.packbits(masks[name].cpu().numpy()).tobytes())
    return {
        "zeroed": sum(int(mask.sum()) for mask in masks.values()),
        "weights": sum(mask.numel() for mask in masks.values()),
        "zeroed_by_matrix": {name: int(mask.sum()) for name, mask in masks.items()},
        "digest": digest.hexdigest(),
    }


@contextmanager
def weights_with_gradients(
    weights: Mapping[str, nn.Parameter],
) -> Iterator[None]:
    """Let these parameters collect gradients while the context is open; none is left behind."""
    before = {name: weight.requires_grad for name, weight in weights.items()}
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        yield
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(before[name])
            weight.grad = None


def take_gradients(weights: Mapping[str, nn.Parameter]) -> dict[str, Float[Tensor, "*shape"]]:
    """The gradients collected so far, which are forgotten: zero where there are none."""
    taken = {}
    for name, weight in weights.items():
        taken[name] = torch.zeros_like(weight) if weight.grad is None else weight.grad
        weight.grad = None
    return taken
