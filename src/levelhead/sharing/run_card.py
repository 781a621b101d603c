"""The card of a run's pruned model, from the run's files; and the licence of a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from levelhead import runs
from levelhead.errors import RunFolderError
from levelhead.runs import RunFolder
from levelhead.sharing.model_card import model_card, on_hub
from levelhead.sharing.record import is_of, other_units, write_record

CARD = "README.md"
EMBEDDED_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Where the embedded model comes from."""
EMBEDDED_LICENCE = "apache-2.0"


def write_card(folder: RunFolder, at: Path | None = None, *, name: str | None = None) -> Path:
    """Write README.md into a run's model/, from what the run's files say now.

    Args:
        at: another folder with the run's pruned model.
        name: of the pruned model; by default the base's with "-pruned".

    Raises:
        RunFolderError: nothing selected or pruned yet, the model lacks other heads than are
            selected, or a file cannot be read.
    """
    model = at or folder.require(runs.MODEL, f"prune {folder.path}")
    selection = runs.read_json(folder.require(runs.SELECTION, f"select {folder.path}"))
    manifest = _optional(model / "levelhead.json") or {}
    if units := other_units(manifest, selection):
        verb = "has" if units == "gates" else "lacks"
        raise RunFolderError(
            f"{model} {verb} other {units} than {runs.SELECTION} names; "
            f"run: levelhead prune {folder.path}"
        )
    details = _optional(folder.path / runs.DETAILS)
    evaluation = _optional(folder.path / runs.EVALUATION)
    repair = manifest.get("repair")
    if evaluation is not None and not is_of(evaluation, selection, repair):
        evaluation = None  # of another selection, or of a model repaired otherwise
    base = folder.config.model
    record = write_record(folder, model, hub_name(base))
    text = model_card(
        evaluation,
        selection,
        folder.config.to_json(),
        details,
        base or EMBEDDED_NAME,
        (details or {}).get("revision") or folder.config.revision,
        licence=EMBEDDED_LICENCE if base is None else base_licence(base),
        form=manifest.get("format", "compact"),
        digests=manifest.get("sha256"),
        record=record["digest"],
        repair=repair,
        name=name,
    )
    runs.write_text(model / CARD, text)
    return model / CARD


def hub_name(model: str | None) -> str | None:
    """The base's name on the hub; None for a folder or file of this machine."""
    if model is None:
        return EMBEDDED_NAME
    return model if on_hub(model) and not model.lower().endswith(".gguf") else None


def base_licence(name: str) -> str | None:
    """The licence that a model's own card names: of a local folder, or the hub's local cache.

    None where there is no card or it names none; nothing is fetched.
    """
    from huggingface_hub import ModelCard, try_to_load_from_cache

    path: Any = Path(name) / CARD
    if not path.is_file():
        try:
            path = try_to_load_from_cache(name, CARD)
        except ValueError:  # not a name the hub could have
            return None
    if not isinstance(path, str | Path):
        return None
    try:
        data: Any = ModelCard.load(path, ignore_metadata_errors=True).data
    except (OSError, ValueError):
        return None
    licence = data.get("license_name") if data.get("license") == "other" else data.get("license")
    return licence if isinstance(licence, str) and licence else None


def _optional(path: Path) -> Any:
    return runs.read_json(path) if path.exists() else None


def card_of_selection(
    selection: dict[str, Any],
    base_name: str,
    revision: str | None,
    form: str,
    repair: dict[str, Any] | None = None,
) -> str:
    """The card of a model pruned outside of a run: nothing is measured, and it says so."""
    return model_card(
        None, selection, None, None, base_name, revision,
        licence=base_licence(base_name), form=form, repair=repair,
    )  # fmt: skip
