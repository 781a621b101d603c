"""The stock-shaped weights of a pruned model, with zeros where heads or neurons were.

Works for every family without a rule of its own: number the weights of a whole attention module,
slice that, and the numbers that remain say where each remaining weight belongs.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from levelhead.models.architectures import architecture_of, attention_modules, kept_heads
from levelhead.models.neurons import fill_neurons
from levelhead.models.removed_heads import removed_heads, removed_neurons
from levelhead.models.surgery import slice_attention


def zero_filled(model: PreTrainedModel) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """The whole model's skeleton (on the meta device, without weights) and all of its weights.

    The weights compute the same function as the pruned model: the output projection is zero where
    it reads a removed head, whatever that head computes (its other weights are zero, too).
    """
    whole = _skeleton(model)
    architecture = architecture_of(model)
    weights: dict[str, Tensor] = dict(model.state_dict())
    stock, kept = attention_modules(whole), kept_heads(model)
    for layer in removed_heads(model):
        sliced = slice_attention(model, _numbered(stock[layer]), kept[layer], layer)
        places = dict(sliced.named_parameters())
        for name, parameter in stock[layer].named_parameters():
            key = f"{architecture.layers}.{layer}.{architecture.attention}.{name}"
            full = torch.zeros(parameter.shape, dtype=parameter.dtype)
            if name in places:
                index = places[name].detach().long().flatten()
                full.view(-1)[index] = weights[key].detach().to(full).flatten()
            weights[key] = full
    if removed_neurons(model):
        fill_neurons(model, whole, weights)
    return whole, weights


def _skeleton(model: PreTrainedModel) -> PreTrainedModel:
    config: Any = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        whole: PreTrainedModel = type(model)(config)
    nn.Module.to(whole, model.dtype)
    whole.generation_config = copy.deepcopy(model.generation_config)
    return whole


def _numbered(attention: nn.Module) -> nn.Module:
    """A copy whose every weight is its own place in its flattened tensor (exact in float64)."""
    numbered = copy.deepcopy(attention)
    for module in numbered.modules():
        for name, parameter in module.named_parameters(recurse=False):
            numbers = torch.arange(parameter.numel(), dtype=torch.float64)
            setattr(module, name, nn.Parameter(numbers.view(parameter.shape)))
    return numbered
