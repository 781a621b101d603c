"""The prune stage: the selected heads are removed, and the smaller model is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedModel

from levelhead import runs
from levelhead.errors import ConfigError
from levelhead.export.model import Target, write_export
from levelhead.models.architectures import head_counts
from levelhead.models.checkpoint import Format, check_pruning, register, save_pruned
from levelhead.models.folders import check_target
from levelhead.models.loading import load_base, load_config
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import check_heads, prune_heads
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.session import Session
from levelhead.sharing.record import RECORD, objective_of, pruning_record, run_objective
from levelhead.sharing.run_card import (
    CARD,
    EMBEDDED_NAME,
    card_of_selection,
    hub_name,
    write_card,
)
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
    objective = run_objective(folder, selection.to_json(), hub_name(folder.config.model))
    save_pruned(
        loaded.model, target, format, loaded.tokenizer, overwrite=True, objective=objective,
        **options,
    )  # fmt: skip
    write_card(folder)
    return loaded.model


def prune_to_folder(
    session: Session,
    selection: HeadSelection,
    out: str | Path | None,
    format: Format,  # noqa: A002 - the flag's name
    *,
    overwrite: bool = False,
    **options: Any,
) -> PreTrainedModel:
    """Prune a session's base model and save it, with a card that says it was not measured.

    Args:
        out: the folder; none: nothing is saved.
        options: of `save_pruned`.
    """
    if out is not None:
        check_target(Path(out), overwrite)
    base, revision = session.base_path, session.config.revision
    check_pruning(load_config(base, revision), selection.by_layer, format)
    loaded = load_base(base, revision=revision, dtype="saved", need_tokenizer=False)
    prune_heads(loaded.model, selection.by_layer)
    if out is not None:
        if format == "adapter":
            options = {"revision": loaded.revision}
        named = session.config.model
        objective = objective_of(selection.to_json(), hub_name(named), loaded.revision)
        save_pruned(
            loaded.model, out, format, loaded.tokenizer, overwrite=overwrite, objective=objective,
            **options,
        )  # fmt: skip
        record = pruning_record(selection.to_json(), objective)
        runs.write_json(Path(out) / RECORD, record)
        name = named or EMBEDDED_NAME
        text = card_of_selection(selection.to_json(), name, loaded.revision, format)
        runs.write_text(Path(out) / CARD, text)
    return loaded.model


def prune_to_file(
    session: Session,
    selection: HeadSelection,
    out: str | Path,
    to: Target,
    *,
    overwrite: bool = False,
    **options: Any,
) -> PreTrainedModel:
    """Prune a session's base model and write it as one file for another engine.

    Args:
        options: of `write_export`.
    """
    base, revision = session.base_path, session.config.revision
    check_heads(selection.by_layer, *head_counts(load_config(base, revision)))
    loaded = load_base(
        base, revision=revision, dtype="float32", device="cpu", need_tokenizer=to == "gguf"
    )
    prune_heads(loaded.model, selection.by_layer)
    write_export(loaded, to, out, overwrite=overwrite, **options)
    return loaded.model


def holds_pruned(folder: RunFolder, selection: HeadSelection) -> bool:
    """Whether model/ lacks these very heads already."""
    path = folder.path / runs.MODEL
    if not (path / "config.json").exists():
        return False
    read: Any = AutoConfig.from_pretrained
    register()
    return bool(removed_heads(read(path)) == selection.by_layer)
