"""A change of output (or down) projections, in memory and on disk: applied, or for a while.

All shapes stay stock, so that the result is an ordinary checkpoint. What was done is written into
the model's config, and into `levelhead.json` beside a saved one:

    "levelhead_average": {"method": "average", "what": "toxicity" or "all", "lambda": 10.0,
        "rank": 64 or null, "ridge": 0.018, "layers": [...], "protected_heads": {"<layer>": [...]},
        "axes": {"<axis>": {"target", "prompts", "groups", "positions", "weight"}, ...},
        "texts": [{"name", "split", "sha256", "tokens", "share"}, ...],
        "left": {"<layer>": <share of the subgroups' differences that is left>, ...},
        "moved": {"<layer>": <share of what is written on text that changes>, ...},
        "warnings": [...], "digest": <SHA-256 of the change>}

It does not know how changes were found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from levelhead.errors import CheckpointError, ModelError, SelectionError
from levelhead.models.calibration import projections
from levelhead.models.checksums import config_record, saved_record
from levelhead.models.least_squares import read_weight, write_weight
from levelhead.models.quantised import is_quantised
from levelhead.models.removed_heads import model_is_pruned
from levelhead.models.slicing import input_width
from levelhead.models.stock import save_stock
from levelhead.records import HeadSelection, Unit

AVERAGE = "levelhead_average"
"""Field of config.json: what was done; nothing reads it to load the model."""
FORMAT = "averaged"
"""Of `levelhead.json` beside such a model."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is added to one layer's weight: `left @ right`, or `right` itself. float64."""

    right: Float[Tensor, "rank inputs"]
    left: Float[Tensor, "outputs rank"] | None = None

    @property
    def dense(self) -> Float[Tensor, "outputs inputs"]:
        """As one matrix."""
        return self.right if self.left is None else self.left @ self.right

    @property
    def factors(self) -> int | None:
        """Its rank by construction; None: it has no factors."""
        return None if self.left is None else len(self.right)


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageEdit:
    """Changes of output projections by layer, and the record of how they were found."""

    changes: Mapping[int, Change]
    record: Json
    unit: Unit = "head"
    """Whose projections change: output ones, or down projections for neurons."""

    def apply(self, model: PreTrainedModel) -> None:
        """Add them to the weights, in place, and say so in the config.

        Raises:
            ModelError: the model is quantised, pruned, edited already, or its number format cannot
                hold the weights.
            SelectionError: layers of another number or width.
        """
        modules = self._modules(model)
        for layer, module in modules.items():
            if is_quantised(module):
                raise ModelError(
                    f"the model is quantised (the projection of layer {layer}): its weights cannot "
                    " be changed. Save the change as a LoRA adapter, which such a model "
                    "loads; or load the model without quantisation, and quantise the result"
                )
        if average_of(model) is not None:
            raise ModelError(
                "the model was averaged already, and changes were fitted to what it was before; "
                "apply them to the original model"
            )
        for layer, module in modules.items():
            self._add(layer, module)
        setattr(model.config, AVERAGE, self.record)

    @classmethod
    def of(cls, changes: Mapping[int, Change], record: Json, unit: Unit = "head") -> AverageEdit:
        """Changes with their digest in the record."""
        edit = cls(changes=changes, record=record, unit=unit)
        return replace(edit, record=record | {"digest": change_digest(edit.arrays())})

    def only(self, layers: Collection[int]) -> AverageEdit:
        """The same changes, of a part of the layers."""
        changes = {layer: one for layer, one in self.changes.items() if layer in layers}
        record = self.record | {"layers": sorted(changes)}
        for key in ("protected_heads", "left", "moved"):
            own = self.record[key].items()
            record[key] = {layer: one for layer, one in own if int(layer) in changes}
        return AverageEdit.of(changes, record, self.unit)

    def arrays(self) -> dict[str, np.ndarray]:
        """As a file holds the change, float32: `right.<layer>`, of factors also `left.<layer>`."""
        found = {}
        for layer, change in self.changes.items():
            found[f"right.{layer}"] = change.right.float().cpu().numpy()
            if change.left is not None:
                found[f"left.{layer}"] = change.left.float().cpu().numpy()
        return found

    @contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[None]:
        """For a while; a quantised layer gets what the change would write added to its output.

        Raises:
            ModelError, SelectionError: as `apply`, but for quantised models.
        """
        with ExitStack() as undo:
            for layer, module in self._modules(model).items():
                if is_quantised(module):
                    hook = _adds(self.changes[layer])
                    undo.callback(module.register_forward_hook(hook).remove)
                    continue
                own = module.get_parameter("weight")
                undo.callback(_restore, own, own.detach().clone())
                self._add(layer, module)
            yield

    def _add(self, layer: int, module: nn.Module) -> None:
        own = read_weight(module)
        write_weight(module, own + self.changes[layer].dense.to(own.device))

    def _modules(self, model: PreTrainedModel) -> dict[int, nn.Module]:
        if model_is_pruned(model):
            raise ModelError("the model is pruned already; apply changes to the whole model")
        sites = projections(model, self.unit)
        for layer, change in self.changes.items():
            if not 0 <= layer < len(sites):
                raise SelectionError(
                    f"the change of layer {layer} has no place: the model has layers 0 to "
                    f"{len(sites) - 1}"
                )
            if (width := input_width(sites[layer])) != change.right.shape[1]:
                raise SelectionError(
                    f"the change of layer {layer} is for {change.right.shape[1]:,} inputs, and the "
                    f"model's projection has {width:,}: it is of another model"
                )
        return {layer: sites[layer] for layer in self.changes}


def change_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a change: of its arrays (`AverageEdit.arrays`) by name, with their shapes."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].shape}".encode())
        found.update(np.ascontiguousarray(arrays[name], np.float32).tobytes())
    return found.hexdigest()


def edit_of(selection: HeadSelection) -> AverageEdit:
    """The change that a selection of method average names, read from its file.

    Raises:
        SelectionError: the file is missing, cannot be read, or holds another change.
    """
    record, path = selection.average, selection.change
    again = "select again, with levelhead select RUN --method average"
    if record is None or path is None:
        raise SelectionError(
            "the selection names a change of weights and not the file that holds it; name "
            f"selection.json in its run folder, or {again}"
        )
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SelectionError(
            f"cannot read the change of weights that the selection names, {path}: {error}; {again}"
        ) from error
    if change_digest(arrays) != record["digest"]:
        raise SelectionError(f"{path} holds another change of weights than was selected; {again}")
    tensors = {name: torch.from_numpy(array).double() for name, array in arrays.items()}
    changes = {
        layer: Change(right=tensors[f"right.{layer}"], left=tensors.get(f"left.{layer}"))
        for layer in record["layers"]
    }
    return AverageEdit(changes=changes, record=dict(record))


def save_averaged(
    model: PreTrainedModel,
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    overwrite: bool = False,
    objective: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Save a model that an edit was applied to: a stock checkpoint with a record.

    Args:
        overwrite: replace `path` where it holds a model already.
        objective: by which rule strength, rank and layers were chosen, for the record.
        options: of transformers' `save_pretrained`.

    Raises:
        CheckpointError: no edit was applied, a folder in the way, or a full disk.
    """
    record = average_of(model)
    if record is None:
        raise CheckpointError(
            "the model is as it was: AverageEdit.apply(model) comes before saving"
        )
    about = {"objective": objective, "average": record}
    return save_stock(model, path, FORMAT, tokenizer, about, overwrite=overwrite, **options)


def average_of(model_or_config: PreTrainedModel | PreTrainedConfig) -> Json | None:
    """How a model was averaged, as its config says; None: it was not."""
    return config_record(model_or_config, AVERAGE)


def saved_average(folder: Path) -> Json | None:
    """How `levelhead.json` of a folder says that its model was averaged; None: it was not.

    Raises:
        CheckpointError: the file is damaged.
    """
    return saved_record(folder, "average", "averaging")


def _restore(parameter: nn.Parameter, old: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(old)


def _adds(change: Change) -> Any:
    """A hook that adds what a change writes; products in the activations' own format."""

    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        x: Tensor = args[0]
        written = x @ change.right.to(x).T
        if change.left is not None:
            written = written @ change.left.to(x).T
        return output + written

    return hook
