"""Save and load pruned models, in the format that fits where they are to run.

compact      smaller: safetensors of the sliced shapes, the removed heads in config.json. Loads with
             levelhead (`load`, or the stock auto classes after `import levelhead`); without it
             stock loading fails, because tensors have other shapes than the config promises.
zeroed       stock shapes, zeros where heads were: loads anywhere, no smaller.
uniform      a stock config with fewer heads, the same number in every layer (uniform.py).
remote-code  compact, with the code that removes heads in the folder (remote_code.py).
adapter      a few hundred bytes that name the base model and its heads (adapter.py).

Knows nothing of why heads were removed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file

from levelhead.errors import CheckpointError, LevelheadError, SelectionError
from levelhead.models.adapter import apply_adapter, find_adapter, write_adapter
from levelhead.models.architectures import head_counts, kept_heads
from levelhead.models.checksums import verify, verify_folder, write_manifest
from levelhead.models.folders import new_folder
from levelhead.models.load_failures import described, missing_tensors
from levelhead.models.plugin import OTHER_SHAPES, register
from levelhead.models.quantised import forget_packing
from levelhead.models.read_back import check_saved
from levelhead.models.remote_code import write_remote_code
from levelhead.models.removed_heads import (
    METHOD,
    LevelheadConfig,
    removed_heads,
    removed_neurons,
)
from levelhead.models.repair import repair_of
from levelhead.models.surgery import Heads, check_heads, refuse_partial
from levelhead.models.uniform import check_equal_counts, uniform_model
from levelhead.models.zero_fill import zero_filled
from levelhead.records import ranges_text
from levelhead.weight_files import check_config, check_weights, no_conversion

__all__ = ["FORMATS", "Format", "check_pruning", "load", "register", "save_pruned"]

Format = Literal["compact", "zeroed", "uniform", "remote-code", "adapter"]
NEURON_FORMATS = ("compact", "zeroed")
"""Those that can hold a model whose MLPs lost neurons."""
PROVENANCE = "levelhead_zeroed_heads"
"""Where the config.json of a zeroed checkpoint says which heads are zero; nothing reads it."""
NEURON_PROVENANCE = "levelhead_zeroed_neurons"
OBJECTIVE = "levelhead_objective"
"""Where a config.json with a stock form says by which rule; nothing reads it."""
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")

Writer = Callable[..., None]
"""Writes a pruned model to a folder; keywords go to transformers' `save_pretrained`."""


def save_pruned(
    model: PreTrainedModel,
    path: str | Path,
    format: Format = "compact",  # noqa: A002 - the word that the command line uses
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    overwrite: bool = False,
    objective: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Save a model that `prune_heads` has pruned, with its generation config and tokenizer.

    All or nothing: the files are written to a folder beside `path` that is renamed at the end,
    the checksums of `levelhead.json` last.

    Args:
        format: see the module's docstring.
        overwrite: replace `path` where it holds a model already.
        objective: by which rule its heads were chosen, for the record in config.json and
            levelhead.json; nothing reads it to load the model.
        options: of transformers' `save_pretrained`, such as max_shard_size="2GB"; for an adapter
            `revision`, the base's on the hub.

    Returns:
        The folder.

    Raises:
        CheckpointError: an unknown format, one that this model cannot have, a model that is not
            pruned, a folder in the way, a full disk, or files that do not load as this model.
    """
    if format not in FORMATS:
        raise CheckpointError(f"format={format!r} is unknown; there are {', '.join(FORMATS)}")
    heads, neurons = removed_heads(model), removed_neurons(model)
    if not heads and not neurons:
        raise CheckpointError("the model is whole: prune_heads(model, heads) comes before saving")
    if neurons:
        check_neuron_format(format)
    repair = repair_of(model)
    if repair is not None:
        check_repair_format(format)
    if not any(kept_heads(model)):
        warnings.warn(
            "every head of every layer is removed: the model no longer sees other tokens",
            stacklevel=2,
        )
    target = Path(path)
    with new_folder(target, overwrite) as folder:
        FORMATS[format](model, folder, **options)
        if format != "adapter":
            check_saved(folder, model, target)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
        if objective:
            _record_objective(folder / "config.json", objective)
        write_manifest(folder, format, heads, neurons, objective, repair=repair)
    return target


def check_pruning(config: PreTrainedConfig, heads: Heads, form: Format) -> None:
    """Find out from the config alone, before weights are loaded, what would stop `save_pruned`.

    Args:
        config: of the whole model.
        heads: {layer: heads} to be removed.

    Raises:
        SelectionError: no head, one that the model does not have, or a part of a layer of a family
            that can lose whole layers only.
        CheckpointError: an unknown format, or unequal numbers of heads for `uniform`.
    """
    if form not in FORMATS:
        raise CheckpointError(f"format={form!r} is unknown; there are {', '.join(FORMATS)}")
    num_layers, num_heads = head_counts(config)
    removed = check_heads(heads, num_layers, num_heads)
    if not removed:
        raise SelectionError("the list of heads is empty: there is nothing to prune")
    refuse_partial(config, removed)
    if form == "uniform":
        check_equal_counts({layer: len(removed.get(layer, ())) for layer in range(num_layers)})


def load(
    path: str | Path,
    dtype: str | torch.dtype | None = None,
    device_map: Any = None,
    *,
    revision: str | None = None,
    base: str | Path | None = None,
    **kwargs: Any,
) -> PreTrainedModel:
    """Load a pruned checkpoint of any format (or a whole one) as the transformers model it is.

    Args:
        path: a folder, the name of a model on the hub, or the file of an adapter.
        dtype: of the weights; by default as they were saved.
        device_map: as in transformers; by default the CPU.
        revision: branch, tag or commit on the hub.
        base: for an adapter whose base model has moved: where it is now.
        kwargs: passed on to `AutoModelForCausalLM.from_pretrained`. Code that the model brings is
            run with `trust_remote_code=True` only; weights come from safetensors, or, within
            `levelhead.permissions.pickles_allowed()`, from pickles.

    Returns:
        The model, in eval mode.

    Raises:
        CheckpointError: files missing or damaged, a newer format, weights that do not fit, or an
            adapter of another base model.
    """
    register()
    options: dict[str, Any] = {"trust_remote_code": False, **kwargs}
    given = {"dtype": dtype, "device_map": device_map, "revision": revision}
    options |= {name: value for name, value in given.items() if value is not None}
    located = _Checkpoint(path, options)
    adapter = find_adapter(located.locate)
    if adapter is not None:
        options.pop("revision", None)
        with _damage_reported(path):
            return apply_adapter(adapter, base, options)
    if base is not None:
        raise CheckpointError(f"{path} is not an adapter; base= is for adapters only")
    located.check()
    if located.locate("config.json") is not None:  # else transformers says why
        safe = check_weights(str(path), located.locate, CheckpointError)
        options.setdefault("use_safetensors", safe)
    auto: Any = AutoModelForCausalLM  # its methods have no types
    with _damage_reported(path), no_conversion():
        model, report = auto.from_pretrained(path, output_loading_info=True, **options)
    if lacking := missing_tensors(report):
        raise CheckpointError(f"{path} {lacking}; save the model again")
    loaded: PreTrainedModel = model
    return forget_packing(loaded)


def check_neuron_format(form: str) -> None:
    """Raise CheckpointError for a format that cannot say that MLP neurons are gone."""
    if form not in NEURON_FORMATS:
        raise CheckpointError(
            f"format={form!r} knows attention heads only, but MLP neurons are removed; save it as "
            + " or ".join(NEURON_FORMATS)
        )


def check_repair_format(form: str) -> None:
    """Raise CheckpointError for a format that has no place for changed weights."""
    if form == "adapter":
        raise CheckpointError(
            "format='adapter' names a base model and the heads that go, and holds no weights: a "
            "repaired model has changed ones. Save it as compact, or leave out --repair"
        )


class _Checkpoint:
    """The files of a checkpoint, in a folder or in the cache of the hub."""

    def __init__(self, path: str | Path, options: dict[str, Any]) -> None:
        self.path = Path(path)
        self._name = str(path)
        self._hub = {key: options[key] for key in _HUB_OPTIONS if key in options}

    def locate(self, name: str) -> Path | None:
        """Where a file is, fetched if need be; None where the checkpoint has none."""
        if self.path.is_file():
            return self.path
        if self.path.is_dir():
            return self.path / name if (self.path / name).is_file() else None
        found = cached_file(
            self._name,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **self._hub,
        )
        return None if found is None else Path(found)

    def check(self) -> None:
        """Raise CheckpointError for what is not a checkpoint, newer, or not as it was saved."""
        if self.path.is_file():
            raise CheckpointError(
                f"{self.path} is neither the folder of a saved model nor an adapter"
            )
        with _damage_reported(self._name):
            if not self.path.is_dir() and self.locate("config.json") is None:
                return
            config = check_config(self._name, self.locate, CheckpointError)
            # A newer format is to be called that, not a damaged file.
            stored = config.get("quantization_config")
            if isinstance(stored, dict) and stored.get("quant_method") == METHOD:
                LevelheadConfig(**stored)
            if self.path.is_dir():
                verify_folder(self.path)
            else:
                verify(self._name, self.locate)


@contextmanager
def _damage_reported(path: str | Path) -> Iterator[None]:
    """Turn what transformers and safetensors raise for unusable files into CheckpointError."""
    try:
        yield
    except (LevelheadError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged or hostile config makes transformers raise anything
        what = "cannot be read: " + described(error)
        if isinstance(error, RuntimeError) and "mismatched" in str(error):
            what = f"is damaged: {OTHER_SHAPES}"
        raise CheckpointError(f"{path} {what}") from error


def _write_compact(model: PreTrainedModel, folder: Path, **options: Any) -> None:
    model.save_pretrained(folder, **options)


def _write_zeroed(model: PreTrainedModel, folder: Path, **options: Any) -> None:
    whole, weights = zero_filled(model)
    gone = {str(layer): list(heads) for layer, heads in removed_heads(model).items()}
    setattr(whole.config, PROVENANCE, gone)
    if neurons := removed_neurons(model):
        texts = {str(layer): ranges_text(gone) for layer, gone in neurons.items()}
        setattr(whole.config, NEURON_PROVENANCE, texts)
    whole.save_pretrained(folder, state_dict=weights, **options)


def _write_uniform(model: PreTrainedModel, folder: Path, **options: Any) -> None:
    uniform_model(model).save_pretrained(folder, **options)


def _record_objective(path: Path, objective: Mapping[str, Any]) -> None:
    """Into config.json: beside the removed heads where it names them, else as a field of its own.

    An adapter has no config.json of its own.
    """
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    stored = config.get("quantization_config")
    if isinstance(stored, dict) and stored.get("quant_method") == METHOD:
        stored["objective"] = dict(objective)
    else:
        config[OBJECTIVE] = dict(objective)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


FORMATS: dict[Format, Writer] = {
    "compact": _write_compact,
    "zeroed": _write_zeroed,
    "uniform": _write_uniform,
    "remote-code": write_remote_code,
    "adapter": write_adapter,
}
assert tuple(FORMATS) == get_args(Format)  # noqa: S101 - our own invariant
