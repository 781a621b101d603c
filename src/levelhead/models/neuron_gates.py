"""Multiply MLP neurons by gates at the input of the down projection; as gates.py does for heads.

A gate of 1 leaves a neuron as it is, 0 ablates it exactly (the projection's bias stays). Gates are
the same for all examples: with tens of thousands of neurons, gates of each would not fit. The
derivatives by all gates at once come from what `captured` collects instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from levelhead.models.neuron_layouts import down_projections, kept_neurons, neuron_counts
from levelhead.models.surgery import Heads, check_heads


@contextmanager
def gated_neurons(model: PreTrainedModel, gates: Float[Tensor, "layers neurons"]) -> Iterator[None]:
    """Run a model with its neurons multiplied by gates; the hooks are gone on exit.

    Neurons of a pruned model keep the numbers of the unpruned one.

    Raises:
        ValueError: gates of another shape.
        UnsupportedArchitectureError: the family's neurons are not known.
    """
    if tuple(gates.shape) != neuron_counts(model):
        raise ValueError(
            f"gates of shape {tuple(gates.shape)}: expected {list(neuron_counts(model))}"
        )

    def multiply(layer: int, kept: tuple[int, ...]) -> Any:
        own = gates[layer, list(kept)]

        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x = args[0]
            wide = torch.promote_types(x.dtype, torch.float32)  # as in gates.py
            return ((x * own.to(device=x.device, dtype=wide)).to(x.dtype), *args[1:])

        return hook

    with ExitStack() as hooks:
        sites = zip(down_projections(model), kept_neurons(model), strict=True)
        for layer, (projection, kept) in enumerate(sites):
            if bool((gates[layer] != 1).any()):  # the others need no product
                handle = projection.register_forward_pre_hook(multiply(layer, kept))
                hooks.callback(handle.remove)
        yield


@contextmanager
def ablate_neurons(model: PreTrainedModel, neurons: Heads) -> Iterator[None]:
    """Run a model without these neurons ({layer: neurons}), exactly, temporarily.

    Raises:
        SelectionError: a layer or neuron that does not exist, or one listed twice.
    """
    num_layers, num_neurons = neuron_counts(model)
    gates = torch.ones(num_layers, num_neurons, device=model.device)
    checked = check_heads(neurons, num_layers, num_neurons, "neuron")
    for layer, gone in checked.items():
        gates[layer, list(gone)] = 0
    with gated_neurons(model, gates):
        yield


@contextmanager
def captured(modules: list[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """The input of each module, by its place in the list, as differentiable as it can be.

    Where nothing before a module asks for gradients, its input becomes a leaf that does: the
    gradient of a scalar by what is collected then needs no other leaf.
    """
    inputs: dict[int, Tensor] = {}

    def collect(place: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x = args[0]
            if torch.is_grad_enabled() and not x.requires_grad:
                x = x.detach().requires_grad_()
            inputs[place] = x
            return (x, *args[1:])

        return hook

    with ExitStack() as hooks:
        for place, module in enumerate(modules):
            hooks.callback(module.register_forward_pre_hook(collect(place)).remove)
        yield inputs
