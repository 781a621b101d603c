"""Attention heads, whole attention layers and MLP neurons behind one set of functions.

What a selection names by `unit` is ablated, checked, removed and read back here, so that the stages
need not know which it is. Whole layers are all of their heads: only selecting tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from levelhead.errors import CheckpointError, SelectionError
from levelhead.models.architectures import head_counts
from levelhead.models.average_edit import edit_of, save_averaged, saved_average
from levelhead.models.checkpoint import (
    FORMATS,
    Format,
    check_neuron_format,
    check_pruning,
    check_repair_format,
    save_pruned,
)
from levelhead.models.checksums import saved_heads, saved_neurons
from levelhead.models.gates import ablate
from levelhead.models.lora import FORMAT as LORA
from levelhead.models.neuron_gates import ablate_neurons
from levelhead.models.neuron_layouts import layout_of, neuron_counts
from levelhead.models.neurons import prune_neurons, refuse_unprunable_neurons
from levelhead.models.quantised import refuse_quantised
from levelhead.models.removed_heads import LayerHeads, removed_heads, removed_neurons
from levelhead.models.repair import Repair, refuse_unrepairable
from levelhead.models.soft import check_gates, save_scaled, saved_gates, scale_heads
from levelhead.models.surgery import Heads, prune_heads, refuse_unprunable
from levelhead.records import HeadSelection, Unit

STOCK_FORMATS = ("compact", "zeroed")
"""What a model with scaled heads may be asked for as: the default, or stock shapes by name."""


def unit_counts(model: PreTrainedModel, unit: Unit) -> tuple[int, int]:
    """(number of layers, units per layer) of the unpruned model; a layer is one unit of its own.

    Raises:
        UnsupportedArchitectureError: neurons of a family in which they are not known.
    """
    if unit == "neuron":
        return neuron_counts(model)
    num_layers, num_heads = head_counts(model)
    return num_layers, 1 if unit == "layer" else num_heads


def ablate_units(model: PreTrainedModel, unit: Unit, chosen: Heads) -> AbstractContextManager[Any]:
    """`ablate` or `ablate_neurons`: run the model without what is chosen ({layer: numbers})."""
    return ablate_neurons(model, chosen) if unit == "neuron" else ablate(model, chosen)


def prune_units(
    model: PreTrainedModel, selection: HeadSelection, repair: Repair | None = None
) -> None:
    """`prune_heads` or `prune_neurons`: remove what is selected, in place; or scale, or average.

    Args:
        repair: new weights of what stays, fitted for this selection.
    """
    if selection.average is not None:
        edit_of(selection).apply(model)
        return
    if selection.gates is not None:
        scale_heads(model, selection.gates)
        return
    prune = prune_neurons if selection.unit == "neuron" else prune_heads
    prune(model, selection.by_layer)
    if repair is not None:
        repair.apply(model)


def refuse_unprunable_units(model: PreTrainedModel, unit: Unit) -> None:
    """Raise where no selection of these units could be removed from a model, whichever it is."""
    if unit == "neuron":
        refuse_unprunable_neurons(model)
    elif unit == "layer":
        refuse_quantised(model)
    else:
        refuse_unprunable(model)


def check_unit_pruning(
    config: PreTrainedConfig, selection: HeadSelection, form: Format, *, repairs: bool = False
) -> None:
    """`check_pruning` for any unit: from the config alone, before weights are loaded.

    Args:
        repairs: whether what stays is to be repaired.

    Raises:
        SelectionError, CheckpointError, UnsupportedArchitectureError: what would stop pruning.
    """
    if repairs:
        refuse_unrepairable(selection)
        check_repair_format(form)
    if selection.average is not None:
        _check_average(config, selection.average, form)
        return
    if form == LORA:
        raise CheckpointError(
            f"format={form!r} holds changed weights, and {selection.described} are removed; it is "
            "for selections of method average. Heads that go fit an adapter of levelhead's own "
            "(--format adapter)"
        )
    if selection.gates is not None:
        if form not in STOCK_FORMATS:
            raise CheckpointError(
                f"format={form!r} is for heads that are gone: scaled heads leave a stock model; "
                "leave the format out"
            )
        check_gates(selection.gates, *head_counts(config))
        return
    if selection.unit != "neuron":
        check_pruning(config, selection.by_layer, form)
        return
    if form not in FORMATS:
        raise CheckpointError(f"format={form!r} is unknown; there are {', '.join(FORMATS)}")
    check_neuron_format(form)
    layout_of(config)
    if not selection.heads:
        raise SelectionError("the list of neurons is empty: there is nothing to prune")


def _check_average(config: PreTrainedConfig, average: Mapping[str, Any], form: str) -> None:
    if form not in (*STOCK_FORMATS, LORA):
        raise CheckpointError(
            f"format={form!r} is for heads that are gone, and averaging leaves a stock model: "
            f"leave the format out, or take {LORA}, the change alone as a LoRA adapter"
        )
    num_layers, _ = head_counts(config)
    if beyond := [layer for layer in average["layers"] if layer >= num_layers]:
        raise SelectionError(
            f"the selection changes layer {beyond[0]}, and the model has layers 0 to "
            f"{num_layers - 1}: it is of another model"
        )


def save_units(
    model: PreTrainedModel,
    selection: HeadSelection,
    path: str | Path,
    form: Format,
    tokenizer: PreTrainedTokenizerBase | None,
    **options: Any,
) -> None:
    """`save_pruned` after `prune_units`; what was scaled or averaged has the stock form alone."""
    if selection.average is not None:
        save_averaged(model, path, tokenizer, **options)
    elif selection.gates is None:
        save_pruned(model, path, form, tokenizer, **options)
    else:
        save_scaled(model, path, selection.gates, tokenizer, **options)


def same_gates(folder: Path, selection: HeadSelection) -> bool:
    """Whether the gates that a saved model was scaled by are the selection's (None: neither)."""
    held = saved_gates(folder)
    if held is None or selection.gates is None:
        return held is None and selection.gates is None
    return np.array_equal(held, np.array(selection.gates))


def same_average(folder: Path, selection: HeadSelection) -> bool:
    """Whether a saved model was changed as the selection says (None: neither is)."""
    held, wanted = saved_average(folder), selection.average
    if held is None or wanted is None:
        return held is None and wanted is None
    return bool(held.get("digest") == wanted["digest"])


def removed_units(model_or_config: PreTrainedModel | PreTrainedConfig, unit: Unit) -> LayerHeads:
    """What its config says is gone from a model, of this unit."""
    removed = removed_neurons if unit == "neuron" else removed_heads
    return removed(model_or_config)


def saved_units(folder: Path, unit: Unit) -> LayerHeads:
    """What `levelhead.json` says is gone, of this unit; {} without that file."""
    return saved_neurons(folder) if unit == "neuron" else saved_heads(folder)


def same_units(gone: Mapping[int, tuple[int, ...]], selection: HeadSelection) -> bool:
    """Whether what is gone is what is selected."""
    return dict(gone) == selection.by_layer
