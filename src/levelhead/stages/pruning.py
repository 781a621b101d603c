"""The prune stage: the selected heads are removed, and the smaller model is saved."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedModel

from levelhead import runs
from levelhead.errors import CheckpointError, ConfigError, RunFolderError
from levelhead.evaluation.base import fitted_repair
from levelhead.export.model import Target, write_export
from levelhead.journal import sums, watch
from levelhead.journal.store import disk_errors
from levelhead.models.architectures import head_counts
from levelhead.models.average_edit import edit_of
from levelhead.models.calibration import projections
from levelhead.models.checkpoint import Format, register
from levelhead.models.checksums import verify_folder
from levelhead.models.folders import check_target
from levelhead.models.loading import LoadedModel, load_base, load_config
from levelhead.models.lora import FORMAT as LORA
from levelhead.models.lora import write_lora
from levelhead.models.quantised import is_quantised
from levelhead.models.repair import NONE, repair_of, same_repair, saved_repair
from levelhead.models.surgery import check_heads
from levelhead.models.units import (
    check_unit_pruning,
    prune_units,
    removed_units,
    same_average,
    same_gates,
    same_units,
    save_units,
)
from levelhead.progress import Progress, silent
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
    progress: Progress = silent,
    **options: Any,
) -> PreTrainedModel:
    selection = read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
    if format in ("adapter", LORA):
        raise ConfigError("a run's model/ is what evaluate reads: an adapter needs another --out")
    target = folder.path / runs.MODEL
    config = load_config(session.base_path, session.config.revision)
    check_unit_pruning(config, selection, format, repairs=repairs(session))
    # A copy of its own, in the number format it was saved in: the session's base stays as it is.
    loaded = load_base(
        session.base_path, revision=session.config.revision, dtype="saved", device="cpu"
    )
    _prune(session, loaded.model, selection, progress)
    objective = run_objective(folder, selection.to_json(), hub_name(folder.config.model))
    save_units(
        loaded.model, selection, target, format, loaded.tokenizer, overwrite=True,
        objective=objective, **options,
    )  # fmt: skip
    with disk_errors(target / "levelhead.json"):
        sums.record_files(recorded_files(folder))
    write_card(folder)
    return loaded.model


def prune_to_folder(
    session: Session,
    selection: HeadSelection,
    out: str | Path | None,
    format: Format,  # noqa: A002 - the flag's name
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> PreTrainedModel:
    """Prune a session's base model and save it, with a card that says it was not measured.

    Args:
        out: the folder; none: nothing is saved.
        options: of `save_units`.
    """
    if out is not None:
        check_target(Path(out), overwrite)
    base, revision = session.base_path, session.config.revision
    config = load_config(base, revision)
    check_unit_pruning(config, selection, format, repairs=repairs(session))
    loaded = load_base(base, revision=revision, dtype="saved", need_tokenizer=False)
    if format == LORA and out is not None:
        return _prune_to_lora(session, loaded, selection, Path(out), overwrite)
    _prune(session, loaded.model, selection, progress)
    if out is not None:
        if format == "adapter":
            options = {"revision": loaded.revision}
        named = session.config.model
        objective = objective_of(selection.to_json(), hub_name(named), loaded.revision)
        save_units(
            loaded.model, selection, out, format, loaded.tokenizer, overwrite=overwrite,
            objective=objective, **options,
        )  # fmt: skip
        _tell(session, loaded, selection, Path(out), format, objective)
    return loaded.model


def _tell(
    session: Session,
    loaded: LoadedModel,
    selection: HeadSelection,
    out: Path,
    form: str,
    objective: dict[str, Any],
) -> None:
    """Write the record and the card of a model outside of a run."""
    chosen, repair = selection.to_json(), repair_of(loaded.model)
    runs.write_json(out / RECORD, pruning_record(chosen, objective, repair=repair))
    name = session.config.model or EMBEDDED_NAME
    text = card_of_selection(chosen, name, loaded.revision, form, repair)
    runs.write_text(out / CARD, text)


def _prune_to_lora(
    session: Session, loaded: LoadedModel, selection: HeadSelection, out: Path, overwrite: bool
) -> PreTrainedModel:
    """The change alone, as an adapter of the base; whose weights may be quantised."""
    edit, named = edit_of(selection), session.config.model
    write_lora(edit, loaded.model, out, base=hub_name(named) or named, overwrite=overwrite)
    objective = objective_of(selection.to_json(), hub_name(named), loaded.revision)
    _tell(session, loaded, selection, out, LORA, objective)
    if not any(map(is_quantised, projections(loaded.model, edit.unit))):
        edit.apply(loaded.model)
    return loaded.model


def prune_to_file(
    session: Session,
    selection: HeadSelection,
    out: str | Path,
    to: Target,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> PreTrainedModel:
    """Prune a session's base model and write it as one file for another engine.

    Args:
        options: of `write_export`.
    """
    base, revision = session.base_path, session.config.revision
    if selection.unit != "neuron":  # their number stands in no config
        check_heads(selection.by_layer, *head_counts(load_config(base, revision)))
    loaded = load_base(
        base, revision=revision, dtype="float32", device="cpu", need_tokenizer=to == "gguf"
    )
    _prune(session, loaded.model, selection, progress)
    write_export(loaded, to, out, overwrite=overwrite, **options)
    return loaded.model


def repairs(session: Session) -> bool:
    """Whether what is kept of a layer is to take over what is removed."""
    return session.config.repair != NONE


def _prune(
    session: Session, model: PreTrainedModel, selection: HeadSelection, progress: Progress
) -> None:
    """Remove what is selected from a copy of the session's base model, and repair it if asked."""
    if not repairs(session):
        prune_units(model, selection)
        return
    session.repairer.check(selection)
    repair = fitted_repair(session, selection, progress, model)
    for warning in repair.record["warnings"]:
        warnings.warn(warning, stacklevel=3)
    prune_units(model, selection, repair)


def take_repair(folder: RunFolder, repair: str) -> RunFolder:
    """Set a run's option to repair: unlike others it may change, nothing before rests on it.

    Raises:
        ConfigError: an unknown way, or one that what is selected cannot have.
        RunFolderError: a folder of the old format.
    """
    config = replace(folder.config, repair=repair)
    if (held := RunFolder.open(folder.path, old=True)).config.repair != repair:
        RunFolder.open(folder.path)  # not an old one, which is only read
        data = runs.read_json(folder.path / runs.CONFIG)
        kept = replace(held.config, repair=repair)
        runs.write_json(folder.path / runs.CONFIG, data | kept.to_json())
        runs.write_run_file(folder.path, kept)
    return replace(folder, config=config)


def holds_pruned(session: Session, folder: RunFolder, selection: HeadSelection) -> bool:
    """Whether model/ lacks these very heads already, and is repaired as it is to be."""
    path = folder.path / runs.MODEL
    if not (path / "config.json").exists():
        return False
    try:
        verify_folder(path)
        for file in recorded_files(folder):
            sums.verify(file)
    except (CheckpointError, RunFolderError) as error:
        watch.event("damaged", level="warning", message=f"{error}; the model is pruned again")
        return False
    read: Any = AutoConfig.from_pretrained
    register()
    wanted = session.repairer.identity(selection.unit) if repairs(session) else None
    if not same_repair(saved_repair(path), wanted) or not same_average(path, selection):
        return False
    if selection.average is not None:
        return True
    if selection.gates is not None or not same_gates(path, selection):
        return same_gates(path, selection)
    return same_units(removed_units(read(path, trust_remote_code=False), selection.unit), selection)


def recorded_files(folder: RunFolder) -> list[Path]:
    """The files of model/ whose checksums the run folder keeps: weights have theirs beside them."""
    files = [path for path in (folder.path / runs.MODEL).rglob("*") if path.is_file()]
    files = [path for path in files if path.name != RECORD]  # written anew after an evaluation
    return sorted(path for path in files if path.suffix not in (".safetensors", ".md"))
