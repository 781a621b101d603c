"""Multiply attention heads by gates at the input of the output projection.

A gate of 1 leaves a head as it is, 0 ablates it exactly (the output projection's bias stays).
Gates may differ per example, and carry exact gradients. Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from levelhead.models.architectures import head_counts, kept_heads, output_projections
from levelhead.models.surgery import Heads, check_heads

Gates = Float[Tensor, "layers heads"] | Float[Tensor, "batch layers heads"]


class HeadGates:
    """Gates on every head of a model while the context is open.

        with HeadGates(model) as head_gates:
            head_gates.gates = torch.ones(batch, layers, heads, requires_grad=True)
            loss = model(**inputs).logits...

    `gates` may be replaced at any time; None means no gating. Contexts nest: gates multiply. In a
    pruned model heads keep the numbers of the unpruned one, and gates of removed heads do nothing.
    """

    def __init__(self, model: PreTrainedModel, gates: Gates | None = None) -> None:
        self._model = model
        self._shape = head_counts(model)
        self._handles: list[RemovableHandle] = []
        self.gates = gates

    @property
    def gates(self) -> Gates | None:
        """`[layers, heads]`, or `[batch, layers, heads]` for gates of each example."""
        return self._gates

    @gates.setter
    def gates(self, gates: Gates | None) -> None:
        if gates is not None and (
            gates.ndim not in (2, 3) or tuple(gates.shape[-2:]) != self._shape
        ):
            layers, heads = self._shape
            raise ValueError(
                f"gates of shape {tuple(gates.shape)}: expected [{layers}, {heads}] or "
                f"[batch, {layers}, {heads}] (layers, heads)"
            )
        self._gates = gates

    def __enter__(self) -> HeadGates:
        if self._handles:
            raise RuntimeError("these gates are in use already; make another HeadGates")
        sites = zip(output_projections(self._model), kept_heads(self._model), strict=True)
        for layer, (projection, heads) in enumerate(sites):
            if heads:
                hook = self._hook(layer, heads)
                self._handles.append(projection.register_forward_pre_hook(hook))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, layer: int, heads: tuple[int, ...]) -> Any:
        pruned = len(heads) < self._shape[1]

        def multiply(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if self._gates is None:
                return None
            x: Float[Tensor, "batch time width"] = args[0]
            # The product in float32 at least, so that gradients by gates are summed up in it.
            wide = torch.promote_types(x.dtype, torch.float32)
            g = self._gates[..., layer, :].to(device=x.device, dtype=wide)
            if pruned:
                g = g[..., list(heads)]
            if g.ndim == 2 and len(g) != len(x):
                raise ValueError(f"gates for {len(g)} examples, but the batch holds {len(x)}")
            # [heads, 1] or [batch, 1, heads, 1] against [batch, time, heads, head_dim]
            g = g[:, None, :, None] if g.ndim == 2 else g[:, None]
            gated = x.reshape(*x.shape[:-1], len(heads), -1) * g
            return (gated.flatten(-2).to(x.dtype), *args[1:])

        return multiply


@contextmanager
def gated(model: PreTrainedModel, gates: Gates) -> Iterator[HeadGates]:
    """Run a model with its heads multiplied by gates; the hooks are gone on exit.

    Args:
        gates: `[layers, heads]`, or `[batch, layers, heads]` for gates of each example; a forward
            pass inside `generate` is gated like any other.

    Raises:
        ValueError: gates of another shape.
    """
    with HeadGates(model, gates) as head_gates:
        yield head_gates


@contextmanager
def ablate(model: PreTrainedModel, heads: Heads) -> Iterator[HeadGates]:
    """Run a model without these heads ({layer: heads}), exactly, temporarily.

    Raises:
        SelectionError: a layer or head that does not exist, or one listed twice.
    """
    num_layers, num_heads = head_counts(model)
    gates = torch.ones(num_layers, num_heads, device=model.device)
    for layer, gone in check_heads(heads, num_layers, num_heads).items():
        gates[layer, list(gone)] = 0
    with gated(model, gates) as head_gates:
        yield head_gates
