"""Remove attention heads physically, or zero what they write. Both in place, uneven per layer.

Removing a head and multiplying its slice of the output projection's input by zero are the same
function exactly (shared arithmetic aside: sums of fewer terms). This file knows tensors and
modules; files are checkpoint.py's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from numbers import Integral

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from levelhead.errors import ModelError, SelectionError
from levelhead.models.architectures import (
    architecture_of,
    decoder_layers,
    head_counts,
    head_dim,
    key_value_heads,
    output_projections,
)
from levelhead.models.pruned_modules import HeadlessAttention
from levelhead.models.quantised import refuse_quantised
from levelhead.models.removed_heads import LayerHeads, record_removed_heads, removed_heads
from levelhead.models.slicing import KeptHeads, input_width, keep_inputs, rows_of

Heads = Mapping[int, Collection[int]]
"""{layer: heads}, both counted from 0."""


def check_heads(heads: Heads, num_layers: int, num_heads: int, what: str = "head") -> LayerHeads:
    """Heads (or neurons) as ascending tuples by ascending layer, without empty layers.

    Raises:
        SelectionError: a layer or head out of range, or a head listed twice.
    """
    checked: LayerHeads = {}
    for layer, chosen in sorted(heads.items()):
        if not _is_index(layer, num_layers):
            raise SelectionError(
                f"layer {layer!r} does not exist: the model has layers 0 to {num_layers - 1}"
            )
        wrong = [head for head in chosen if not _is_index(head, num_heads)]
        if wrong:
            raise SelectionError(
                f"{what} {wrong[0]!r} of layer {layer} does not exist: "
                f"the model has {what}s 0 to {num_heads - 1}"
            )
        if len(set(chosen)) != len(chosen):
            twice = sorted(one for one, times in Counter(chosen).items() if times > 1)
            raise SelectionError(
                f"{what}s {twice} of layer {layer} are listed twice; list each {what} once"
            )
        if chosen:
            checked[int(layer)] = tuple(sorted(int(head) for head in chosen))
    return checked


def prune_heads(model: PreTrainedModel, heads: Heads) -> None:
    """Remove heads physically, in place, and record them in the model's config.

    A key/value head of grouped-query attention stays while one of its query heads does. A layer
    that loses every head returns the output projection's bias and still advances the cache.

    Raises:
        SelectionError: `heads` names a layer or head that does not exist, or one twice, or single
            heads of a family that can lose whole layers only.
        ModelError: the model is pruned already, or quantised.
    """
    removed = check_heads(heads, *head_counts(model))
    refuse_pruned(model)
    refuse_quantised(model)
    remove_heads(model, removed)
    if removed:
        record_removed_heads(model.config, removed)


def zero_heads(model: PreTrainedModel, heads: Heads) -> None:
    """Zero the output projection's columns of these heads, in place; all shapes stay stock.

    Raises:
        SelectionError, ModelError: as `prune_heads`, except that single heads can always be zeroed.
    """
    removed = check_heads(heads, *head_counts(model))
    refuse_pruned(model)
    refuse_quantised(model)
    width = head_dim(model)
    projections = output_projections(model)
    with torch.no_grad():
        for layer, chosen in removed.items():
            projection = projections[layer]
            columns = rows_of(chosen, width)
            weight = projection.get_parameter("weight")
            if isinstance(projection, Conv1D):
                weight[columns] = 0
            else:
                weight[:, columns] = 0


def refuse_pruned(model: PreTrainedModel) -> None:
    """Raise ModelError where heads are gone already: head numbers would be ambiguous."""
    gone = removed_heads(model)
    if gone:
        raise ModelError(
            f"the model is pruned already ({sum(map(len, gone.values()))} heads in {len(gone)} "
            "layers are gone); prune the original model with all the heads that shall go"
        )


def refuse_unprunable(model: PreTrainedModel) -> None:
    """Raise ModelError where no selection of single heads could be removed, whichever it is."""
    refuse_quantised(model)
    family = architecture_of(model)
    if family.whole_layers_only:
        raise ModelError(
            f"single heads of {family.name} cannot be removed exactly: {family.whole_layers_only}. "
            "They can be scored (levelhead score), and whole layers pruned (levelhead prune MODEL "
            "--heads FILE); for a whole run choose a model of another family"
        )


def refuse_partial(
    model_or_config: PreTrainedModel | PreTrainedConfig, removed: LayerHeads
) -> None:
    """Raise SelectionError where single heads shall go of a family that can lose only layers."""
    family = architecture_of(model_or_config)
    _, num_heads = head_counts(model_or_config)
    partial = [layer for layer, gone in removed.items() if len(gone) < num_heads]
    if family.whole_layers_only and partial:
        raise SelectionError(
            f"single heads of {family.name} cannot be removed exactly: "
            f"{family.whole_layers_only}. Of layer {partial[0]} {len(removed[partial[0]])} of "
            f"{num_heads} heads are listed; remove all heads of a layer, as --unit layer "
            "does"
        )


def remove_heads(model: PreTrainedModel, removed: LayerHeads) -> None:
    """`prune_heads` without its checks of the model, and without recording: modules only."""
    refuse_partial(model, removed)
    path = architecture_of(model).attention
    _, num_heads = head_counts(model)
    layers = decoder_layers(model)
    for layer, gone in removed.items():
        kept = tuple(head for head in range(num_heads) if head not in gone)
        pruned = slice_attention(model, layers[layer].get_submodule(path), kept, layer)
        parent, _, name = path.rpartition(".")
        setattr(layers[layer].get_submodule(parent), name, pruned)


def slice_attention(
    model: PreTrainedModel, attention: nn.Module, heads: tuple[int, ...], layer: int
) -> nn.Module:
    """A whole attention module cut to some heads: itself, in place, or a stub where none stays.

    Args:
        model: tells the family and the numbers of heads; it is not changed.
        attention: of this layer of this model, or of one like it.
        heads: the query heads to keep, ascending.
    """
    architecture = architecture_of(model)
    _, num_heads = head_counts(model)
    projection = attention.get_submodule(architecture.output_projection)
    width = input_width(projection) // num_heads
    if heads:
        kept = KeptHeads(
            heads=heads,
            num_heads=num_heads,
            num_key_value_heads=key_value_heads(model),
            head_dim=width,
        )
        architecture.slice_heads(attention, kept)
    keep_inputs(projection, rows_of(heads, width))
    if heads:
        return attention
    return HeadlessAttention(
        architecture.output_projection, projection, layer, architecture.adds_residual
    )


def _is_index(value: object, limit: int) -> bool:
    return type(value) is not bool and isinstance(value, Integral) and 0 <= int(value) < limit
