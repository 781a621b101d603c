"""What a model's config says was removed from it: read, write, and the form it has on disk.

In a checkpoint's config.json:

    "quantization_config": {"quant_method": "levelhead", "format_version": 1,
                            "heads": {"<layer>": [<head>, ...], ...}}

and format_version 2, which older versions refuse, where MLP neurons are gone, too:

                            "neurons": {"<layer>": "0-3,17,40-41", ...}

The field is transformers' hook for changing a model's modules before weights are loaded; nothing
is quantised. This file neither removes heads (surgery.py) nor loads checkpoints (checkpoint.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.quantization_config import QuantizationConfigMixin

from levelhead.errors import CheckpointError, SelectionError
from levelhead.records import ranges_of, ranges_text

METHOD = "levelhead"
FORMAT_VERSION = 2
HEADS_ONLY_VERSION = 1
"""Of checkpoints from which no neurons are gone: older versions read them, too."""

LayerHeads = dict[int, tuple[int, ...]]
"""{layer: heads}, both counted from 0, ascending, no empty layer."""


class LevelheadConfig(QuantizationConfigMixin):  # type: ignore[no-untyped-call,misc,unused-ignore]
    """The heads and neurons that were removed, as transformers stores it in config.json.

    Args:
        heads: {layer: heads}; keys may be strings, as JSON has them.
        format_version: of the checkpoint; CheckpointError if newer than this levelhead reads.
            None: the oldest that can say what is removed.
        neurons: {layer: numbers and ranges of MLP neurons}, as `records.ranges_text` writes them.
        objective: by which rule they were chosen (`sharing.record`), for the record.
    """

    def __init__(
        self,
        heads: Mapping[Any, Iterable[int]] | None = None,
        format_version: int | None = None,
        neurons: Mapping[Any, str] | None = None,
        objective: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if format_version is None:
            format_version = FORMAT_VERSION if neurons else HEADS_ONLY_VERSION
        if type(format_version) is not int or format_version < 1:
            raise CheckpointError(f"format_version={format_version!r} is not a whole number from 1")
        if format_version > FORMAT_VERSION:
            raise CheckpointError(
                f"the checkpoint has format_version={format_version}, this levelhead reads up to "
                f"{FORMAT_VERSION}; install a newer levelhead"
            )
        self.quant_method = METHOD  # type: ignore[assignment]
        self.format_version = format_version
        try:
            self.heads = {
                str(int(layer)): sorted(int(head) for head in chosen)
                for layer, chosen in (heads or {}).items()
            }
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"heads={heads!r} in the checkpoint's config is not {{layer: [head, ...]}}"
            ) from error
        if isinstance(objective, Mapping):
            self.objective = dict(objective)
        if neurons:  # not an empty field in checkpoints that older versions read
            try:
                self.neurons = {
                    str(int(layer)): ranges_text(ranges_of(text)) for layer, text in neurons.items()
                }
            except (AttributeError, TypeError, ValueError, SelectionError) as error:
                raise CheckpointError(
                    "the neurons in the checkpoint's config are not {layer: ranges}"
                ) from error

    @property
    def by_layer(self) -> LayerHeads:
        """The removed heads with whole numbers as keys, ascending."""
        return {
            int(layer): tuple(heads)
            for layer, heads in sorted(self.heads.items(), key=lambda item: int(item[0]))
            if heads
        }

    @property
    def neurons_by_layer(self) -> LayerHeads:
        """The removed neurons with whole numbers as keys, ascending."""
        stored: Mapping[str, str] = getattr(self, "neurons", {})
        items = sorted(stored.items(), key=lambda item: int(item[0]))
        return {int(layer): ranges_of(text) for layer, text in items if text}


def removed_heads(model_or_config: PreTrainedModel | PreTrainedConfig) -> LayerHeads:
    """The heads that are physically gone from a model; {} for a model that is whole.

    Raises:
        CheckpointError: the config is of a newer format, or damaged.
    """
    stored = _stored(model_or_config)
    return {} if stored is None else stored.by_layer


def removed_neurons(model_or_config: PreTrainedModel | PreTrainedConfig) -> LayerHeads:
    """The MLP neurons that are physically gone from a model; {} for a model that has them all.

    Raises:
        CheckpointError: the config is of a newer format, or damaged.
    """
    stored = _stored(model_or_config)
    return {} if stored is None else stored.neurons_by_layer


def model_is_pruned(model_or_config: PreTrainedModel | PreTrainedConfig) -> bool:
    """Whether levelhead physically removed heads or neurons from this model."""
    return bool(removed_heads(model_or_config) or removed_neurons(model_or_config))


def record_removed_heads(config: PreTrainedConfig, heads: LayerHeads) -> None:
    """Write to a config what was removed, so that `save_pretrained` stores it."""
    config.quantization_config = _config(heads, removed_neurons(config))


def record_removed_neurons(config: PreTrainedConfig, neurons: LayerHeads) -> None:
    """As `record_removed_heads`; what it says of heads stays."""
    config.quantization_config = _config(removed_heads(config), neurons)


def _config(heads: LayerHeads, neurons: LayerHeads) -> LevelheadConfig:
    texts = {layer: ranges_text(gone) for layer, gone in neurons.items()}
    return LevelheadConfig(heads, neurons=texts)


def _stored(model_or_config: PreTrainedModel | PreTrainedConfig) -> LevelheadConfig | None:
    config = getattr(model_or_config, "config", model_or_config)
    stored = getattr(config, "quantization_config", None)
    if isinstance(stored, LevelheadConfig):
        return stored
    if isinstance(stored, dict) and stored.get("quant_method") == METHOD:
        return LevelheadConfig(**stored)
    return None
