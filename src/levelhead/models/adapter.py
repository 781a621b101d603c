"""A pruned model as a few hundred bytes: which base model, and which of its heads are gone.

`levelhead_adapter.json`:

    {"format": "levelhead-adapter", "format_version": 1,
     "base": "<name on the hub or folder>", "revision": "<commit>" or null,
     "base_config": "<hash>", "base_weights": "<hash>",
     "heads": {"<layer>": [<head>, ...], ...}, "checksum": "<hash of all of this>"}

The hashes are of files, so they do not depend on how the base is loaded: its config.json, and the
names, types and shapes of its tensors with a sample of their values (a fine-tuned sibling has the
same names and shapes, and must be refused, too). Only bases in safetensors have them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.hub import cached_file, extract_commit_hash

from levelhead.errors import CheckpointError, SelectionError
from levelhead.json_files import read_json
from levelhead.models.architectures import head_counts
from levelhead.models.checksums import Locate
from levelhead.models.identity import VOLATILE
from levelhead.models.quantised import forget_packing
from levelhead.models.removed_heads import LayerHeads, removed_heads
from levelhead.models.surgery import check_heads, prune_heads
from levelhead.weight_files import SAFE, SAFE_INDEX, check_config, shards

ADAPTER = "levelhead_adapter.json"
FORMAT_VERSION = 1
_KIND = "levelhead-adapter"
_HUB_OPTIONS = ("token", "cache_dir", "local_files_only")
MAX_BYTES = 1_000_000
MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file, as its own library allows."""
_DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_SAMPLED = 64
"""Bytes at the start and in the middle of every tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What the file says; `heads` has whole numbers as keys."""

    base: str
    revision: str | None
    base_config: str
    base_weights: str
    heads: LayerHeads


def write_adapter(
    model: PreTrainedModel, folder: Path, *, revision: str | None = None, **_: Any
) -> None:
    """Write the adapter of a pruned model whose base is in a folder or on the hub.

    Args:
        revision: of the base on the hub, if the model was not loaded from its main branch.

    Raises:
        CheckpointError: the model does not say where its base is, or that has no safetensors, or
            other weights than the model (another revision, or the model was trained since).
    """
    base = model.name_or_path
    if not base:
        raise CheckpointError(
            "an adapter names its base model, but this model was not loaded from a folder or the "
            "hub; save it as compact"
        )
    if Path(base).is_dir():
        base, revision = str(Path(base).resolve()), None
    hub = {"revision": revision} if revision else {}
    config, weights = base_hashes(base, hub)
    _refuse_changed(model, base, hub)
    adapter = Adapter(
        base=base,
        revision=extract_commit_hash(str(_file(base, "config.json", hub)), None) or revision,
        base_config=config,
        base_weights=weights,
        heads=removed_heads(model),
    )
    (folder / ADAPTER).write_text(_dump(adapter) + "\n", encoding="utf-8")


def _refuse_changed(model: PreTrainedModel, base: str, hub: Mapping[str, Any]) -> None:
    """Raise CheckpointError where the base's file has other values than the model, by a sample.

    Of the tensors that pruning leaves whole, the first values of each.
    """
    own = {name: p.detach() for name, p in model.named_parameters() if p.device.type != "meta"}
    for path in _weight_files(base, hub):
        with safe_open(path, framework="pt") as file:
            for name in file.keys() & own.keys():
                stored = file.get_slice(name)
                if tuple(stored.get_shape()) != tuple(own[name].shape) or not own[name].numel():
                    continue
                row = stored[:1].to(own[name].dtype)
                if not torch.equal(row.flatten(), own[name][:1].cpu().flatten()):
                    raise CheckpointError(
                        f"the model's {name} is not that of {base}: it was changed since it was "
                        "loaded, or loaded from another revision. An adapter holds no weights; "
                        "save the model as compact"
                    )


def find_adapter(locate: Locate) -> Adapter | None:
    """The adapter of a folder or hub repository; None where it holds a model.

    Raises:
        CheckpointError: an adapter that is damaged, or of a newer format.
    """
    path = locate(ADAPTER)
    if path is None or (path.name != ADAPTER and path.suffix != ".json"):
        return None
    return read_adapter(path)


def read_adapter(path: Path) -> Adapter:
    """Read an adapter's file.

    Raises:
        CheckpointError: it is none, damaged, or of a newer format.
    """
    try:
        data = read_json(path, CheckpointError, max_bytes=MAX_BYTES)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} is not an adapter of levelhead, or damaged: {error}"
        ) from error
    try:
        kind, version = data["format"], data["format_version"]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not an adapter of levelhead, or damaged") from error
    if kind != _KIND or type(version) is not int:
        raise CheckpointError(f"{path} is not an adapter of levelhead, or damaged")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version={version}, this levelhead reads up to {FORMAT_VERSION}; "
            "install a newer levelhead"
        )
    try:
        heads = {int(layer): tuple(int(h) for h in gone) for layer, gone in data["heads"].items()}
        names = ("base", "revision", "base_config", "base_weights")
        adapter = Adapter(heads=heads, **{name: data[name] for name in names})
        if not _is_place(adapter.base) or not isinstance(adapter.revision, str | None):
            raise ValueError("base or revision")
        intact = json.loads(_dump(adapter))["checksum"] == data["checksum"]
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}") from error
    if not intact:
        raise CheckpointError(
            f"{path} is damaged or was changed by hand (its checksum differs); copy it again, or "
            "prune the base model with the heads you want"
        )
    return adapter


def apply_adapter(
    adapter: Adapter, base: str | Path | None, options: Mapping[str, Any]
) -> PreTrainedModel:
    """Load the adapter's base model and remove its heads.

    Args:
        base: where the base model is, if not where the adapter says.
        options: for `AutoModelForCausalLM.from_pretrained`.

    Raises:
        CheckpointError: no base model there, or another one than the adapter was made from.
    """
    if base is not None:
        adapter = replace(adapter, base=str(base), revision=None)
    hub = {
        key: options[key] for key in ("token", "cache_dir", "local_files_only") if key in options
    }
    if adapter.revision:
        hub["revision"] = adapter.revision
    found = dict(zip(("config", "weights"), base_hashes(adapter.base, hub), strict=True))
    expected = {"config": adapter.base_config, "weights": adapter.base_weights}
    other = [name for name in expected if found[name] != expected[name]]
    if other:
        raise CheckpointError(
            f"the adapter was made for another model: {' and '.join(other)} of {adapter.base} "
            "differ from those of its base (another model, a fine-tuned one, or another revision); "
            "give the right one with base="
        )
    auto: Any = AutoModelForCausalLM  # its methods have no types
    check_config(adapter.base, _locator(adapter.base, hub), CheckpointError)
    revision = {"revision": adapter.revision} if adapter.revision else {}
    safe = {"use_safetensors": True}  # base_hashes has found these
    model: PreTrainedModel = auto.from_pretrained(adapter.base, **{**options, **revision, **safe})
    forget_packing(model)
    try:
        prune_heads(model, check_heads(adapter.heads, *head_counts(model)))
    except SelectionError as error:
        raise CheckpointError(f"the adapter names heads wrongly: {error}") from error
    return model


def base_hashes(base: str, hub: Mapping[str, Any]) -> tuple[str, str]:
    """Hashes (64 bits, hexadecimal) of a model's config and of its weights, from its files.

    Args:
        base: a folder, or a name on the hub.
        hub: revision, token and the like.

    Raises:
        CheckpointError: no such model, or one without safetensors.
    """
    config = read_json(_file(base, "config.json", hub), CheckpointError, finite=False)
    if not isinstance(config, dict):
        raise CheckpointError(f"config.json of the base model {base} is damaged")
    stable = {key: value for key, value in config.items() if key not in VOLATILE}
    return _digest(json.dumps(stable, sort_keys=True).encode()), _weights_digest(base, hub)


def _weights_digest(base: str, hub: Mapping[str, Any]) -> str:
    """Of names, types, shapes and sampled values, however they are spread over files."""
    lines = [line for path in _weight_files(base, hub) for line in _tensor_lines(path)]
    return _digest(b"".join(sorted(lines)))


def _weight_files(base: str, hub: Mapping[str, Any]) -> list[Path]:
    index = _locator(base, hub)(SAFE_INDEX)
    names = [SAFE] if index is None else shards(index, ".safetensors", CheckpointError)
    return [_file(base, name, hub) for name in names]


def _locator(base: str, hub: Mapping[str, Any]) -> Locate:
    def locate(name: str) -> Path | None:
        try:
            return _file(base, name, hub)
        except CheckpointError:
            return None

    return locate


def _tensor_lines(path: Path) -> Iterator[bytes]:
    """One line per tensor of a safetensors file: its name, form and a sample of its bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path} says its header has {length:,} bytes; {MAX_HEADER_BYTES:,} are allowed"
            )
        try:
            header = json.loads(file.read(length))
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                start, end = entry["data_offsets"]
                sample = b""
                for place in (start, (start + end) // 2):
                    file.seek(8 + length + place)
                    sample += file.read(max(0, min(_SAMPLED, end - place)))
                yield f"{name} {entry['dtype']} {entry['shape']} {sample.hex()}\n".encode()
        except _DAMAGE as error:
            raise CheckpointError(f"{path} is damaged: {error!r}") from error


def _file(base: str, name: str, hub: Mapping[str, Any]) -> Path:
    local = Path(base).expanduser()
    if local.is_dir():
        if (local / name).is_file():
            return local / name
        raise CheckpointError(f"the base model in {base} has no {name}")
    if local.is_absolute():
        raise CheckpointError(
            f"the adapter's base model {base} is not there; say where it is with base="
        )
    try:
        found = cached_file(base, name, **hub)
    except OSError as error:
        raise CheckpointError(
            f"the base model {base} has no {name}, or cannot be reached: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return Path(str(found))


def _is_place(base: object) -> bool:
    """A folder or a name on the hub, not a server's share: opening one sends it a login."""
    return isinstance(base, str) and base != "" and not base.startswith(("\\\\", "//"))


def _dump(adapter: Adapter) -> str:
    """The file's text; its checksum is of the text without it."""
    fields = asdict(adapter)
    heads = {str(layer): list(gone) for layer, gone in sorted(fields.pop("heads").items())}
    data = {"format": _KIND, "format_version": FORMAT_VERSION, **fields, "heads": heads}
    return json.dumps(data | {"checksum": _digest(json.dumps(data, sort_keys=True).encode())})


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
