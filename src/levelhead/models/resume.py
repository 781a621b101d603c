"""Run a model from layer l on, given the hidden state that entered layer l in a full forward pass.

Changing a head of layer l cannot change what enters layer l, so everything below can be skipped:
the layers below become the identity and the cached hidden state is put in at layer l. The model
builds its masks and rotary embeddings itself, from the same inputs as in the full pass: the same
function for padded batches, sliding windows and whatever else a family passes to its layers. Its
logits are those of the full pass to rounding, not to the bit: without a cache keys lie otherwise in
memory, and matrix products may add in another order (on tiny models 6e-7 of the largest logit).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from levelhead.models.architectures import decoder_layers

Hidden = Float[Tensor, "batch time width"]


@contextmanager
def captured_layer_inputs(model: PreTrainedModel) -> Iterator[list[Hidden]]:
    """Collect, from the forward pass run inside, what enters each decoder layer (detached).

    The list is empty until the pass is done; a second pass replaces its content.
    """
    layers = decoder_layers(model)
    collected: list[Hidden] = []

    def collect(layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if layer == 0:
                collected.clear()
            hidden: Hidden = args[0] if args else kwargs["hidden_states"]
            collected.append(hidden.detach())

        return hook

    with ExitStack() as hooks:
        for index, layer in enumerate(layers):
            handle = layer.register_forward_pre_hook(collect(index), with_kwargs=True)
            hooks.callback(handle.remove)
        yield collected


def layer_inputs(model: PreTrainedModel, **inputs: Any) -> list[Hidden]:
    """The hidden state that enters each layer in a forward pass of `model(**inputs)`.

    No gradients; one `[batch, time, width]` tensor per layer. To have the outputs as well, use
    `captured_layer_inputs`.
    """
    with torch.no_grad(), captured_layer_inputs(model) as collected:
        model(**{"use_cache": False, **inputs})
    return collected


@contextmanager
def resumed_at(model: PreTrainedModel, layer: int, hidden: Hidden) -> Iterator[None]:
    """Make `model(**inputs)` start at a layer, from the hidden state that enters it.

    Call the model with the inputs of the pass that `hidden` comes from (a batch repeated k times
    goes with `hidden` repeated k times) and `use_cache=False`: the layers below leave no keys and
    values. Gates, hooks and gradients work as in a full pass from that layer on.

    Args:
        layer: 0 to num_layers - 1.
        hidden: entry `layer` of `layer_inputs`.

    Raises:
        ValueError: a layer that does not exist; inputs of another batch size or length.
    """
    layers = decoder_layers(model)
    if not 0 <= layer < len(layers):
        raise ValueError(
            f"layer {layer} does not exist: the model has layers 0 to {len(layers) - 1}"
        )

    def inject(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        entering: Hidden = args[0] if args else kwargs["hidden_states"]
        if entering.shape != hidden.shape:
            raise ValueError(
                f"the hidden state has shape {tuple(hidden.shape)}, the inputs make "
                f"{tuple(entering.shape)}; resume with the inputs it was captured from"
            )
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    with ExitStack() as undo:
        for below in layers[:layer]:
            undo.enter_context(_forward_replaced(below, _identity_like(below)))
        handle = layers[layer].register_forward_pre_hook(inject, with_kwargs=True)
        undo.callback(handle.remove)
        yield


_RETURNS_TUPLE: dict[type[nn.Module], bool] = {}
"""By class of decoder layer, as far as seen: (hidden states, ...) rather than hidden states."""


def _identity_like(layer: nn.Module) -> Callable[..., Hidden | tuple[Hidden, None]]:
    """A forward method that returns its input in the form in which this layer returns its output.

    The form differs between families and versions of transformers; the first call for a class of
    layers finds it out by running the layer.
    """
    original = layer.forward

    def identity(hidden_states: Hidden, *args: Any, **kwargs: Any) -> Hidden | tuple[Hidden, None]:
        if type(layer) not in _RETURNS_TUPLE:
            with torch.no_grad():
                returned = original(hidden_states, *args, **kwargs)
            _RETURNS_TUPLE[type(layer)] = isinstance(returned, tuple)
        return (hidden_states, None) if _RETURNS_TUPLE[type(layer)] else hidden_states

    return identity


@contextmanager
def _forward_replaced(module: nn.Module, forward: Any) -> Iterator[None]:
    """Shadow a module's forward method; an instance's own one (accelerate's) is put back."""
    own = vars(module).get("forward")
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = own
