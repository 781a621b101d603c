"""Teach transformers' own `from_pretrained` to read compact checkpoints.

transformers lets a "quantizer" change a model's modules before weights arrive. This one removes
heads and neurons; nothing is quantised. It knows config.json and the checksums beside it, and
saves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AUTO_QUANTIZER_MAPPING,
)
from transformers.quantizers.base import HfQuantizer

from levelhead.errors import CheckpointError, SelectionError
from levelhead.models.architectures import head_counts
from levelhead.models.checksums import verify_folder
from levelhead.models.neuron_layouts import down_projections
from levelhead.models.neurons import remove_neurons
from levelhead.models.removed_heads import METHOD, LevelheadConfig
from levelhead.models.slicing import input_width
from levelhead.models.surgery import check_heads, remove_heads

OTHER_SHAPES = "the tensors have other shapes than config.json says"
PRUNES_ITSELF = "levelhead_prunes_itself"
"""Attribute of the classes of `remote-code` checkpoints, which remove heads as they are made."""


class LevelheadQuantizer(HfQuantizer):
    """transformers' hook for changing modules before weights arrive; nothing is quantised.

    For a compact checkpoint the heads go before loading, while the model is on the meta device;
    for a whole one (`from_pretrained(..., quantization_config=LevelheadConfig(heads))`) after.
    """

    requires_calibration = False

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: Sequence[str] | None = None, **_: Any
    ) -> PreTrainedModel:
        if self.pre_quantized:
            for folder in sorted({Path(file).parent for file in checkpoint_files or ()}):
                verify_folder(folder)
            if not getattr(model, PRUNES_ITSELF, False):
                self._prune(model)
            self._expected = {name: p.shape for name, p in model.named_parameters()}
        return model

    def _process_model_after_weight_loading(
        self, model: PreTrainedModel, **_: Any
    ) -> PreTrainedModel:
        if not self.pre_quantized:
            self._prune(model)
        elif any(self._expected.get(n, p.shape) != p.shape for n, p in model.named_parameters()):
            # Some versions of transformers do not compare shapes where this hook is used.
            raise CheckpointError(OTHER_SHAPES)
        # An ordinary model from here on: casting, training and saving are stock.
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                module.config.__dict__.pop("_is_quantized", None)
        for name in ("hf_quantizer", "quantization_method", "is_quantized"):
            model.__dict__.pop(name, None)
        return model

    def _prune(self, model: PreTrainedModel) -> None:
        config: Any = self.quantization_config
        try:
            heads = check_heads(config.by_layer, *head_counts(model))
            neurons = config.neurons_by_layer
            if neurons:
                # The config says already that they are gone, the modules still have them.
                widths = [input_width(down) for down in down_projections(model)]
                check_heads(neurons, len(widths), max(widths), "neuron")
        except SelectionError as error:
            raise CheckpointError(
                f"the checkpoint's config names heads or neurons wrongly: {error}"
            ) from error
        remove_heads(model, heads)
        if neurons:
            remove_neurons(model, neurons)

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        """Pruned models are saved as they are."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Pruned models are trained as they are."""
        return True


def register() -> None:
    """Teach transformers' `from_pretrained` to read compact checkpoints; safe to call again."""
    AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = LevelheadConfig
    AUTO_QUANTIZER_MAPPING[METHOD] = LevelheadQuantizer
