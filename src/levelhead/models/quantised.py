"""Models that were quantised on load: what can be done with them, and what cannot.

Gates act on activations, so such models are scored and ablated like any other. Removing heads
slices weights, and how packed weights may be sliced is each quantiser's own secret: refused. Tells
quantised weights by their storage, and knows no quantiser by name.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from levelhead.errors import ModelError
from levelhead.models.architectures import attention_modules

PLAIN_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Of weights that can be sliced; anything else is the storage of some quantisation."""


def is_quantised(module: nn.Module) -> bool:
    """Whether this very module (not those inside) holds weights that are not plain numbers."""
    weight = getattr(module, "weight", None)
    if weight is None and not hasattr(module, "in_features"):
        return False  # no weights at all
    return type(weight) is not nn.Parameter or weight.dtype not in PLAIN_DTYPES


def refuse_quantised(model: PreTrainedModel) -> None:
    """Raise ModelError where attention weights are not stored as plain floating-point numbers."""
    for layer, attention in enumerate(attention_modules(model)):
        for name, module in attention.named_modules():
            if is_quantised(module):
                raise ModelError(
                    f"the model is quantised ({name} of layer {layer} is stored as "
                    f"{_storage(module)}): its heads can be scored and ablated, but not removed. "
                    "Load it without quantisation, prune it, and quantise the result"
                )


def forget_packing(model: PreTrainedModel) -> PreTrainedModel:
    """Make a model that was unpacked on load an ordinary one, which is saved as it is now.

    transformers remembers how it unpacked the tensors and would pack them again, into a folder
    whose config says nothing of it. Models that are still packed are left alone.
    """
    config: Any = model.config
    if getattr(config, "quantization_config", None) is not None:
        return model
    conversions = getattr(model, "_weight_conversions", None) or ()
    ops = [op for one in conversions for op in getattr(one, "operations", ())]
    if any("quantizer" in type(op).__module__ or hasattr(op, "hf_quantizer") for op in ops):
        model._weight_conversions = None  # type: ignore[assignment] # the family's own are found
    return model


def _storage(module: nn.Module) -> str:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return f"{type(module).__module__}.{type(module).__name__}"
    return f"{type(weight).__name__}, {str(weight.dtype).removeprefix('torch.')}"


def plain_copy(attention: nn.Module) -> nn.Module:
    """A copy of an attention module whose weights are plain: those of a quantised one in effect.

    Weights that are plain already are shared with the original, not copied: only replace them.
    """
    shared: dict[int, Any] = {id(p): p for p in attention.parameters()}
    copied = copy.deepcopy(attention, shared)
    for name, module in list(copied.named_modules()):
        if is_quantised(module):
            parent, _, leaf = name.rpartition(".")
            setattr(copied.get_submodule(parent), leaf, plain_linear(module))
    return copied


def plain_linear(module: Any) -> nn.Linear:
    """The linear layer that a quantised one computes, found by asking it."""
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    with torch.no_grad():
        one = torch.eye(module.in_features, device=device)
        bias = module(torch.zeros_like(one[:1]))[0]
        weight = module(one) - bias
    has_bias = getattr(module, "bias", None) is not None
    # On the meta device: initial weights would be drawn from the global random state.
    dense = nn.Linear(module.in_features, len(bias), bias=has_bias, device="meta")
    dense.weight = nn.Parameter(weight.T.contiguous(), requires_grad=False)
    if has_bias:
        dense.bias = nn.Parameter(bias, requires_grad=False)
    return dense
