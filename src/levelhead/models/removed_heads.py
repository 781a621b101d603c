"""What a model's config says was removed from it: read, write, and the form it has on disk.

In a checkpoint's config.json:

    "quantization_config": {"quant_method": "levelhead", "format_version": 1,
                            "heads": {"<layer>": [<head>, ...], ...}}

The field is transformers' hook for changing a model's modules before weights are loaded; nothing
is quantised. This file neither removes heads (surgery.py) nor loads checkpoints (checkpoint.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.quantization_config import QuantizationConfigMixin

from levelhead.errors import CheckpointError

METHOD = "levelhead"
FORMAT_VERSION = 1

LayerHeads = dict[int, tuple[int, ...]]
"""{layer: heads}, both counted from 0, ascending, no empty layer."""


class LevelheadConfig(QuantizationConfigMixin):  # type: ignore[no-untyped-call,misc,unused-ignore]
    """The heads that were removed, as transformers stores it in config.json.

    Args:
        heads: {layer: heads}; keys may be strings, as JSON has them.
        format_version: of the checkpoint; CheckpointError if newer than this levelhead reads.
    """

    def __init__(
        self,
        heads: Mapping[Any, Iterable[int]] | None = None,
        format_version: int = FORMAT_VERSION,
        **_: Any,
    ) -> None:
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

    @property
    def by_layer(self) -> LayerHeads:
        """The removed heads with whole numbers as keys, ascending."""
        return {
            int(layer): tuple(heads)
            for layer, heads in sorted(self.heads.items(), key=lambda item: int(item[0]))
            if heads
        }


def removed_heads(model_or_config: PreTrainedModel | PreTrainedConfig) -> LayerHeads:
    """The heads that are physically gone from a model; {} for a model that is whole.

    Raises:
        CheckpointError: the config is of a newer format, or damaged.
    """
    config = getattr(model_or_config, "config", model_or_config)
    stored = getattr(config, "quantization_config", None)
    if isinstance(stored, LevelheadConfig):
        return stored.by_layer
    if isinstance(stored, dict) and stored.get("quant_method") == METHOD:
        return LevelheadConfig(**stored).by_layer
    return {}


def model_is_pruned(model_or_config: PreTrainedModel | PreTrainedConfig) -> bool:
    """Whether levelhead physically removed heads from this model."""
    return bool(removed_heads(model_or_config))


def record_removed_heads(config: PreTrainedConfig, heads: LayerHeads) -> None:
    """Write to a config what was removed, so that `save_pretrained` stores it."""
    config.quantization_config = LevelheadConfig(heads)
