"""Remove MLP neurons physically, or zero what they write. Both in place, uneven per layer.

As surgery.py for heads: a neuron's rows of the projections into the MLP (with their biases) and
its column of the down projection go. Removing it and multiplying that input of the down projection
by zero are the same function. Knows tensors and modules; files are checkpoint.py's business.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from levelhead.errors import ModelError
from levelhead.models.architectures import architecture_of
from levelhead.models.neuron_layouts import (
    MlpLayout,
    down_projections,
    kept_neurons,
    layout_of,
    mlp_modules,
    neuron_counts,
)
from levelhead.models.quantised import is_quantised
from levelhead.models.removed_heads import LayerHeads, record_removed_neurons, removed_neurons
from levelhead.models.slicing import input_width, keep_inputs, keep_outputs
from levelhead.models.surgery import Heads, check_heads


class NeuronlessProjection(nn.Module):
    """A down projection that lost every input: it returns its bias, or zeros.

    It keeps the weight, of input width 0, under its stock name, so that stock loading fails.
    """

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.weight = projection.get_parameter("weight")
        self.bias = getattr(projection, "bias", None)
        self.nx = self.in_features = 0
        self.out_features = self.weight.shape[1 if isinstance(projection, Conv1D) else 0]

    def forward(self, x: Float[Tensor, "*more 0"]) -> Float[Tensor, "*more width"]:
        """The bias at every position."""
        out = x.new_zeros(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias.to(x.dtype)


def prune_neurons(model: PreTrainedModel, neurons: Heads) -> None:
    """Remove neurons ({layer: neurons}) physically, in place, and record them in the config.

    Raises:
        SelectionError: a layer or neuron that does not exist, or one listed twice.
        ModelError: the model lost neurons already, or its MLPs are quantised.
        UnsupportedArchitectureError: the family's neurons are not known, or belong to experts.
    """
    removed = check_heads(neurons, *neuron_counts(model), "neuron")
    _refuse(model)
    remove_neurons(model, removed)
    if removed:
        record_removed_neurons(model.config, removed)


def zero_neurons(model: PreTrainedModel, neurons: Heads) -> None:
    """Zero the down projection's columns of these neurons, in place; all shapes stay stock.

    Raises:
        SelectionError, ModelError, UnsupportedArchitectureError: as `prune_neurons`.
    """
    removed = check_heads(neurons, *neuron_counts(model), "neuron")
    _refuse(model)
    projections = down_projections(model)
    with torch.no_grad():
        for layer, gone in removed.items():
            weight = projections[layer].get_parameter("weight")
            if isinstance(projections[layer], Conv1D):
                weight[list(gone)] = 0
            else:
                weight[:, list(gone)] = 0


def refuse_unprunable_neurons(model: PreTrainedModel) -> None:
    """Raise where no selection of neurons could be removed, whichever it is."""
    layout_of(model)
    _refuse(model)


def remove_neurons(model: PreTrainedModel, removed: LayerHeads) -> None:
    """`prune_neurons` without its checks of the model, and without recording: modules only.

    The modules must be whole, whatever the config says already.
    """
    layout = layout_of(model)
    modules = mlp_modules(model)
    for layer, gone in removed.items():
        width = input_width(modules[layer].get_submodule(layout.down))
        out = set(gone)
        _slice(modules[layer], layout, [n for n in range(width) if n not in out])


def fill_neurons(
    model: PreTrainedModel, whole: PreTrainedModel, weights: dict[str, Tensor]
) -> None:
    """Put stock-shaped weights of the MLPs that lost neurons into `weights`, zeros where they were.

    Args:
        model: the pruned one, whose weights `weights` holds.
        whole: its stock skeleton, on the meta device.
    """
    architecture, layout = architecture_of(model), layout_of(model)
    kept, stock = kept_neurons(model), mlp_modules(whole)
    names = (*layout.inputs, layout.down)
    for layer in removed_neurons(model):
        sliced = _numbered(stock[layer], names)
        _slice(sliced, layout, kept[layer])
        places = dict(sliced.named_parameters())
        path = f"{architecture.layers}.{layer}.{layout.mlp}".rstrip(".")
        for name, parameter in stock[layer].named_parameters():
            if name.rpartition(".")[0] in names:
                key = f"{path}.{name}"
                full = torch.zeros(parameter.shape, dtype=parameter.dtype)
                index = places[name].detach().long().flatten()
                full.view(-1)[index] = weights[key].detach().to(full).flatten()
                weights[key] = full


def _slice(mlp: nn.Module, layout: MlpLayout, kept: list[int] | tuple[int, ...]) -> None:
    down = mlp.get_submodule(layout.down)
    width = input_width(down)
    for name in layout.inputs:
        rows = [block * width + neuron for block in range(layout.fused) for neuron in kept]
        keep_outputs(mlp.get_submodule(name), rows)
    keep_inputs(down, kept)
    if not kept:
        setattr(mlp, layout.down, NeuronlessProjection(down))


def _numbered(mlp: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """The projections alone, every weight its own place in its flattened tensor (float64)."""
    numbered: Any = nn.Module()
    for name in names:
        module = copy.deepcopy(mlp.get_submodule(name))
        for own, parameter in list(module.named_parameters(recurse=False)):
            numbers = torch.arange(parameter.numel(), dtype=torch.float64)
            setattr(module, own, nn.Parameter(numbers.view(parameter.shape)))
        numbered.add_module(name, module)
    out: nn.Module = numbered
    return out


def _refuse(model: PreTrainedModel) -> None:
    gone = removed_neurons(model)
    if gone:
        raise ModelError(
            f"the model lost neurons already ({sum(map(len, gone.values()))} in {len(gone)} "
            "layers); prune the original model with all the neurons that shall go"
        )
    layout = layout_of(model)
    for layer, mlp in enumerate(mlp_modules(model)):
        for name in (*layout.inputs, layout.down):
            if is_quantised(mlp.get_submodule(name)):
                raise ModelError(
                    f"the model is quantised ({name} of layer {layer}): its neurons can be scored "
                    "and ablated, but not removed. Load it without quantisation, prune it, and "
                    "quantise the result"
                )
