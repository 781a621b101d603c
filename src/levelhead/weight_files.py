"""Which files of a checkpoint hold its weights, and whether reading them could do harm.

Decided from names and from JSON, before transformers sees the folder. transformers itself reads
pickles in more cases than its `use_safetensors=True` says: an index may name `.bin` shards (in
other folders, too), `transformers_weights` in config.json may name an adapter's pickle. Knows
neither models nor how weights are loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from levelhead.errors import UserError
from levelhead.json_files import read_json
from levelhead.permissions import may_unpickle

MAX_CONFIG_BYTES = 10_000_000
MAX_INDEX_BYTES = 64_000_000
SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
PEFT = "adapter_config.json"
_CODE = ("attn_implementation", "experts_implementation")
"""Fields of config.json by which transformers fetches and runs kernels from the hub."""
_DTYPE = ("dtype", "torch_dtype")
_FORMATS = ("float32", "bfloat16", "float16", "float64")
_CONVERSION = "DISABLE_SAFETENSORS_CONVERSION"

Locate = Callable[[str], Path | None]
"""Where a file of the checkpoint is on this machine, by its name; None where there is none."""


def in_folder(folder: Path) -> Locate:
    """`Locate` for a local folder."""

    def locate(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    return locate


def check_config(name: str, locate: Locate, error: type[UserError]) -> dict[str, Any]:
    """The fields of config.json, once they are known to name no code, kernel or other file.

    `auto_map`, which names code in the folder, is not refused here: it is never run without
    `trust_remote_code=True`, and a folder whose family transformers knows loads without it.

    Raises:
        UserError: of the kind `error`: config.json is missing, too large, no JSON object, or names
            what would be fetched or read from elsewhere.
    """
    path = locate("config.json")
    if path is None:
        raise error(f"{name} has no config.json: not the folder of a saved model")
    # Infinity stands in configs of published models.
    fields = read_json(path, error, max_bytes=MAX_CONFIG_BYTES, finite=False)
    if not isinstance(fields, dict):
        raise error(f"{path} is not a model's config: expected a JSON object")
    if fields.get("configuration_files"):
        raise error(
            f"{path} names other config files (configuration_files), which levelhead does not "
            "read; put the one you want in its place"
        )
    explicit = fields.get("transformers_weights")
    if explicit is not None and not _is_plain(
        explicit, (".safetensors", ".safetensors.index.json")
    ):
        raise error(
            f"{path} names {explicit!r} as the file of the weights (transformers_weights); only "
            "safetensors files beside it are read"
        )
    for key in _DTYPE:
        if (value := fields.get(key)) not in (None, "auto", *_FORMATS):
            raise error(
                f"{path} says {key}={value!r}, which is none of the formats that a "
                f"model can be loaded in; write one of {', '.join(_FORMATS)} there"
            )
    for key, value in _walk(fields):
        if key in _CODE and "/" in str(value):
            raise error(
                f"{path} asks for code from the hub ({key}={value!r}); delete that field to load "
                "the model with the code of transformers"
            )
    if locate(PEFT) is not None:
        raise error(
            f"{name} holds an adapter of peft beside the model ({PEFT}), which would be loaded "
            "with it; merge it (merge_and_unload, save_pretrained), or move it elsewhere"
        )
    return fields


def check_weights(name: str, locate: Locate, error: type[UserError]) -> bool | None:
    """Whether there are weights that may be read; the value for transformers' `use_safetensors`.

    True: only safetensors. None: there are none, and pickles are allowed.

    Raises:
        UserError: of the kind `error`: no weights, only pickles that are not allowed, or an index
            that names other files than safetensors beside it.
    """
    if locate(SAFE) is not None:
        return True
    if (index := locate(SAFE_INDEX)) is not None:
        shards(index, ".safetensors", error)
        return True
    index = locate(PICKLE_INDEX)
    if index is None and locate(PICKLE) is None:
        raise error(
            f"{name} has no weights ({SAFE} or {SAFE_INDEX}); levelhead reads weights from "
            "safetensors or GGUF only"
        )
    if not may_unpickle():
        raise error(
            f"{name} has its weights only as a pickle ({PICKLE}), which can run code; levelhead "
            "reads weights from safetensors or GGUF only. Take a copy in safetensors, or, if you "
            "trust it: --allow-pickle"
        )
    if index is not None:
        shards(index, ".bin", error)
    return None


@contextmanager
def no_conversion() -> Iterator[None]:
    """Keep transformers from sending a model's name and the user's token to a converter.

    For models without safetensors it asks a service on the hub to convert them, unasked.
    """
    before = os.environ.get(_CONVERSION)
    os.environ[_CONVERSION] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_CONVERSION, None)
        else:
            os.environ[_CONVERSION] = before


def shards(path: Path, suffix: str, error: type[UserError]) -> list[str]:
    """The names of the files that an index of weights lists, ascending.

    Raises:
        UserError: of the kind `error`: no index, or one that names other files than those of this
            suffix beside it.
    """
    data = read_json(path, error, max_bytes=MAX_INDEX_BYTES)
    named = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(named, dict) or not named or not isinstance(data.get("metadata"), dict):
        raise error(f"{path} is not an index of weights: no weight_map, or no metadata")
    for shard in named.values():
        if not _is_plain(shard, (suffix,)):
            raise error(
                f"{path} names {shard!r} as a file of weights; only {suffix} files beside it are "
                "read"
            )
    return sorted(set(named.values()))


def _is_plain(name: object, suffixes: tuple[str, ...]) -> bool:
    """A file's name without a way to another folder."""
    plain = isinstance(name, str) and not set(name) & {"/", "\\", ":", "\0"}
    return plain and str(name).endswith(suffixes)


def _walk(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key and value, of configs within the config too; `check_config` knows the depth."""
    for key, value in fields.items():
        yield key, value
        if isinstance(value, dict):
            yield from _walk(value)
