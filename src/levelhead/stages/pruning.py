"""The prune stage: the selected heads are removed, and the smaller model is saved."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedModel

from levelhead import runs
from levelhead.errors import ConfigError
from levelhead.models.checkpoint import Format, check_pruning, register, save_pruned
from levelhead.models.loading import load_base, load_config
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import prune_heads
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.session import Session
from levelhead.stages.selecting import read_selection


def prune_stage(
    session: Session,
    folder: RunFolder,
    format: Format,  # noqa: A002 - the flag's name
    **options: Any,
) -> PreTrainedModel:
    selection = read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
    if format == "adapter":
        raise ConfigError("a run's model/ is what evaluate reads: an adapter needs another --out")
    target = folder.path / runs.MODEL
    config = load_config(session.base_path, session.config.revision)
    check_pruning(config, selection.by_layer, format)
    # A copy of its own, in the number format it was saved in: the session's base stays as it is.
    loaded = load_base(
        session.base_path, revision=session.config.revision, dtype="saved", device="cpu"
    )
    prune_heads(loaded.model, selection.by_layer)
    save_pruned(loaded.model, target, format, loaded.tokenizer, overwrite=True, **options)
    return loaded.model


def holds_pruned(folder: RunFolder, selection: HeadSelection) -> bool:
    """Whether model/ lacks these very heads already."""
    path = folder.path / runs.MODEL
    if not (path / "config.json").exists():
        return False
    read: Any = AutoConfig.from_pretrained
    register()
    return bool(removed_heads(read(path)) == selection.by_layer)
