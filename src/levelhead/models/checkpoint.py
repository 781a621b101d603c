"""Save and load pruned models.

compact   smaller: safetensors of the sliced shapes, the removed heads in config.json. Loads with
          levelhead (`load`, or the stock auto classes after `register()`); without levelhead
          stock loading fails, because tensors have other shapes than the config promises.
zeroed    stock shapes, zeros where heads were: loads anywhere, no smaller.

Knows nothing of why heads were removed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AUTO_QUANTIZER_MAPPING,
)
from transformers.quantizers.base import HfQuantizer

from levelhead.errors import CheckpointError, SelectionError
from levelhead.models.architectures import head_counts
from levelhead.models.load_failures import first_line
from levelhead.models.removed_heads import METHOD, LevelheadConfig, removed_heads
from levelhead.models.surgery import check_heads, remove_heads
from levelhead.models.zero_fill import zero_filled

Format = Literal["compact", "zeroed"]
PROVENANCE = "levelhead_zeroed_heads"
"""Where the config.json of a zeroed checkpoint says which heads are zero; nothing reads it."""
OTHER_SHAPES = "the tensors have other shapes than config.json says"


class LevelheadQuantizer(HfQuantizer):
    """transformers' hook for changing modules before weights arrive; nothing is quantised.

    For a compact checkpoint the heads go before loading, while the model is on the meta device;
    for a whole one (`from_pretrained(..., quantization_config=LevelheadConfig(heads))`) after.
    """

    requires_calibration = False

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, **_: Any
    ) -> PreTrainedModel:
        if self.pre_quantized:
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
        except SelectionError as error:
            raise CheckpointError(
                f"the checkpoint's config names heads wrongly: {error}"
            ) from error
        remove_heads(model, heads)

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


def save_pruned(
    model: PreTrainedModel,
    path: str | Path,
    format: Format = "compact",  # noqa: A002 - the word that the command line uses
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Save a model that `prune_heads` has pruned, with its generation config and tokenizer.

    All or nothing: the files are written to a folder beside `path` that is renamed at the end.

    Args:
        format: "compact" or "zeroed", see the module's docstring.
        overwrite: replace `path` where it holds a model already.

    Returns:
        The folder.

    Raises:
        CheckpointError: an unknown format, a model that is not pruned, or a folder in the way.
    """
    if format not in get_args(Format):
        raise CheckpointError(
            f"format={format!r} is unknown; there are {', '.join(get_args(Format))}"
        )
    heads = removed_heads(model)
    if not heads:
        raise CheckpointError("the model is whole: prune_heads(model, heads) comes before saving")
    with _new_folder(Path(path), overwrite) as folder:
        if format == "compact":
            model.save_pretrained(folder)
        else:
            whole, weights = zero_filled(model)
            provenance = {str(layer): list(gone) for layer, gone in heads.items()}
            setattr(whole.config, PROVENANCE, provenance)
            whole.save_pretrained(folder, state_dict=weights)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
    return Path(path)


def load(
    path: str | Path,
    dtype: str | torch.dtype | None = None,
    device_map: Any = None,
    **kwargs: Any,
) -> PreTrainedModel:
    """Load a pruned checkpoint (or a whole one) as the transformers model it is.

    Args:
        path: a folder, or the name of a model on the hub.
        dtype: of the weights; by default as they were saved.
        device_map: as in transformers; by default the CPU.
        kwargs: passed on to `AutoModelForCausalLM.from_pretrained`.

    Returns:
        The model, in eval mode.

    Raises:
        CheckpointError: files missing or damaged, a newer format, weights that do not fit.
    """
    register()
    folder = Path(path)
    if folder.exists() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json: not the folder of a saved model")
    options = {"use_safetensors": True, **kwargs}
    if dtype is not None:
        options["dtype"] = dtype
    if device_map is not None:
        options["device_map"] = device_map
    auto: Any = AutoModelForCausalLM  # its methods have no types
    with _damage_reported(path):
        model, report = auto.from_pretrained(path, output_loading_info=True, **options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} tensors, among them {missing[0]}; save the model again"
        )
    loaded: PreTrainedModel = model
    return loaded


@contextmanager
def _damage_reported(path: str | Path) -> Iterator[None]:
    """Turn what transformers and safetensors raise for unusable files into CheckpointError."""
    try:
        yield
    except (OSError, EOFError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error
    except RuntimeError as error:
        if "mismatched" not in str(error):
            raise
        raise CheckpointError(f"{path} is damaged: {OTHER_SHAPES}") from error


@contextmanager
def _new_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder that becomes `path` if all goes well, and vanishes otherwise."""
    occupied = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if occupied and not overwrite:
        raise CheckpointError(f"{path} exists already; choose another folder or overwrite it")
    if occupied and not _holds_model(path):
        raise CheckpointError(f"{path} holds something else than a model; it is not overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        if path.exists():
            path.rename(scratch / "old")
        fresh.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _holds_model(path: Path) -> bool:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config
