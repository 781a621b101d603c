"""Checksums of a saved model's files: written last, compared before the model is used.

`levelhead.json`, in every folder that levelhead saves a model to:

    {"format": "compact", "format_version": 1, "removed_heads": {"<layer>": [<head>, ...], ...},
     "sha256": {"config.json": "...", "model.safetensors": "...", ...}}

A folder without it (saved again with transformers' own `save_pretrained`) is not compared. Against
accidents, not against forgers: who can change the weights can change this file, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from levelhead.errors import CheckpointError, SelectionError
from levelhead.json_files import read_json
from levelhead.models.removed_heads import LayerHeads
from levelhead.records import ranges_of, ranges_text

MANIFEST = "levelhead.json"
FORMAT_VERSION = 1
MAX_BYTES = 10_000_000
_COMPARED = ("config.json", "*.safetensors", "*.safetensors.index.json", "*.py")
"""What decides what the model computes. Cards and tokenizers may be edited."""
_TEXT = (".json", ".py")

Locate = Callable[[str], Path | None]
"""Where a file of the checkpoint is on this machine, by its name; None where there is none."""
_known: dict[tuple[str, int, int, int], str] = {}
"""Digests by path, inode, size and time of change: a model loaded twice is read once."""


def write_manifest(
    folder: Path,
    form: str,
    heads: LayerHeads,
    neurons: LayerHeads | None = None,
    objective: Mapping[str, Any] | None = None,
    gates: Sequence[Sequence[float]] | None = None,
    repair: Mapping[str, Any] | None = None,
    average: Mapping[str, Any] | None = None,
) -> None:
    """Write `levelhead.json` for the files that are in a folder: the last thing to be written."""
    files = sorted({path for pattern in _COMPARED for path in folder.glob(pattern)})
    manifest = {
        "format": form,
        "format_version": FORMAT_VERSION,
        "removed_heads": {str(layer): list(gone) for layer, gone in heads.items()},
        "sha256": {path.name: file_digest(path) for path in files},
    }
    if neurons:
        manifest["removed_neurons"] = {str(n): ranges_text(gone) for n, gone in neurons.items()}
    if objective:
        manifest["objective"] = dict(objective)
    if gates is not None:
        manifest["gates"] = [list(row) for row in gates]
    if repair:
        manifest["repair"] = dict(repair)
    if average:
        manifest["average"] = dict(average)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What `levelhead.json` of a folder says; None where there is none.

    Raises:
        CheckpointError: it cannot be read, or is of a newer format.
    """
    return _read(folder / MANIFEST) if (folder / MANIFEST).is_file() else None


def saved_record(folder: Path, key: str, of: str) -> dict[str, Any] | None:
    """What `levelhead.json` of a folder records under a key; None: nothing.

    Args:
        of: what it is a record of, for the error.

    Raises:
        CheckpointError: the file, or the record, is damaged.
    """
    found = (read_manifest(folder) or {}).get(key)
    if found is not None and not isinstance(found, dict):
        raise CheckpointError(f"{folder} has a damaged record of {of}; save the model again")
    return found


def config_record(model_or_config: Any, field: str) -> dict[str, Any] | None:
    """What a model's config records in a field of levelhead's; None: nothing."""
    found = getattr(getattr(model_or_config, "config", model_or_config), field, None)
    return dict(found) if isinstance(found, dict) else None


def saved_heads(folder: Path) -> LayerHeads:
    """The heads that `levelhead.json` says are gone, whatever the format; {} without that file."""
    stored = (read_manifest(folder) or {}).get("removed_heads", {})
    try:
        return {int(layer): tuple(int(head) for head in gone) for layer, gone in stored.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged; save the model again") from error


def saved_neurons(folder: Path) -> LayerHeads:
    """The MLP neurons that `levelhead.json` says are gone; {} without that file."""
    stored = (read_manifest(folder) or {}).get("removed_neurons", {})
    try:
        return {int(layer): ranges_of(text) for layer, text in stored.items()}
    except (AttributeError, TypeError, ValueError, SelectionError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged; save the model again") from error


def verify_folder(folder: Path) -> None:
    """Compare a local checkpoint with its checksums, if it has any.

    Raises:
        CheckpointError: a file is missing, cut short or changed, or the format is newer.
    """

    def locate(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    verify(str(folder), locate)


def verify(name: str, locate: Locate) -> None:
    """`verify_folder` for files that may be anywhere (the cache of the hub)."""
    path = locate(MANIFEST)
    if path is None:
        return
    for file, expected in _read(path)["sha256"].items():
        found = locate(file)
        if found is None:
            raise CheckpointError(
                f"{name} lacks {file}, which was saved with it; copy or download all of it again"
            )
        if file_digest(found) != expected:
            raise CheckpointError(
                f"{file} of {name} is not what was saved (its checksum differs): damaged or "
                f"changed. Copy or download it again; if it was changed on purpose, delete "
                f"{MANIFEST} beside it"
            )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; line ends of text files count alike on every system.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        where = path.resolve()
        stat = where.stat()
        key = (str(where), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key not in _known:
            with where.open("rb") as file:
                if where.suffix in _TEXT:
                    text = file.read().replace(b"\r\n", b"\n")
                    _known[key] = hashlib.sha256(text).hexdigest()
                else:
                    _known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return _known[key]


def _read(path: Path) -> dict[str, Any]:
    manifest = read_json(path, CheckpointError, max_bytes=MAX_BYTES)
    try:
        version, sums = manifest["format_version"], manifest["sha256"]
        # A plain name: a checksum of a file elsewhere would tell what is in it.
        good = type(version) is int and all(PurePath(file).name == file for file in sums)
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged; copy or download the model again") from error
    if not good or not isinstance(sums, dict):
        raise CheckpointError(f"{path} is damaged; copy or download the model again")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version={version}, this levelhead reads up to {FORMAT_VERSION}; "
            "install a newer levelhead"
        )
    return dict(manifest)
