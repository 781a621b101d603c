"""What is to be verified, and against which base: a run folder, a model of ours, or any other.

A model of ours says in `levelhead.json`, its adapter or its card what it was made from. That is
where to look, not what to believe: the base is loaded and both are measured. It measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from levelhead import runs
from levelhead.config import RunConfig
from levelhead.data.gguf_files import gguf_model_path, is_gguf
from levelhead.errors import ConfigError, ModelError, RunFolderError
from levelhead.models.adapter import ADAPTER, read_adapter
from levelhead.models.checkpoint import load
from levelhead.models.checksums import MANIFEST
from levelhead.models.removed_heads import removed_heads, removed_neurons
from levelhead.records import ranges_text
from levelhead.runs import RunFolder
from levelhead.session import Session
from levelhead.sharing.run_card import CARD, EMBEDDED_NAME

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model, where it is, and where its base is."""

    path: str
    """What is loaded: a folder, a name on the hub, or an adapter's file."""
    kind: str
    """run, adapter or model."""
    base: str | None
    """None: the embedded model."""
    config: RunConfig | None
    """Of the run it belongs to."""
    manifest: Json
    """levelhead.json; empty for a model that is not ours."""

    @property
    def name(self) -> str:
        """For people: of a local path only its last parts."""
        path = Path(self.path)
        if not path.exists():
            return self.path
        return "/".join(path.resolve().parts[-2:])


def find_subject(path: str | Path, base: str | Path | None) -> Subject:
    """Where a model and its base are; nothing large is read.

    Args:
        path: a run folder (its model/ is meant), a model's folder, a name on the hub, a GGUF
            file, or an adapter's file or folder.
        base: the base model; None: what the run or the model itself names.

    Raises:
        RunFolderError: a run without a pruned model.
        ConfigError: no base is known.
        CheckpointError: an adapter that is damaged.
    """
    where = Path(path)
    given = None if base is None else str(base)
    if where.name == runs.MODEL and runs.is_run(where.parent):
        where = where.parent
    if runs.is_run(where):
        folder = RunFolder.open(where)
        model = folder.require(runs.MODEL, f"prune {where}")
        return Subject(
            path=str(model),
            kind="run",
            base=given or folder.config.model,
            config=folder.config,
            manifest=_json(model / MANIFEST),
        )
    adapter = where / ADAPTER if where.is_dir() else where
    if adapter.is_file() and adapter.suffix == ".json":
        return Subject(
            path=str(where),
            kind="adapter",
            base=given or read_adapter(adapter).base,
            config=None,
            manifest=_json(where / MANIFEST),
        )
    found = _located(str(path), MANIFEST)
    manifest = _json(found) if found else {}
    named = given or _recorded_base(str(path), manifest)
    if named is None:
        raise ConfigError(
            f"{path} does not say which model it was made from; name it with --base "
            "(a hub id or a folder)"
        )
    embedded = named == EMBEDDED_NAME and given is None
    return Subject(
        path=str(path),
        kind="model",
        base=None if embedded else named,
        config=None,
        manifest=manifest,
    )


def load_candidate(subject: Subject, session: Session) -> PreTrainedModel:
    """The model to be verified, in the base's number format and on its device.

    Raises:
        ModelError: another tokenizer than the base's: continuations cannot be compared.
    """
    base = session.base.model
    if subject.kind == "adapter":
        model = load(subject.path, dtype=base.dtype, base=session.base_path)
        model.to(base.device).eval().requires_grad_(False)  # type: ignore[arg-type, unused-ignore]
        return model
    path = subject.path
    if is_gguf(path):
        path = str(gguf_model_path(path))
    loaded = session.load(path)
    if loaded.tokenizer is not None:
        _same_tokens(session.tokenizer, loaded.tokenizer, subject.name)
    return loaded.model


def removed(subject: Subject, model: PreTrainedModel) -> dict[str, list[int]]:
    """The heads that are gone, by layer, as the config or levelhead.json says."""
    found: Mapping[Any, Any] = removed_heads(model) or subject.manifest.get("removed_heads") or {}
    return {str(layer): [int(head) for head in heads] for layer, heads in found.items()}


def removed_ranges(subject: Subject, model: PreTrainedModel) -> dict[str, str]:
    """The MLP neurons that are gone, by layer, as numbers and ranges ("0-3,17")."""
    found = {str(layer): ranges_text(gone) for layer, gone in removed_neurons(model).items()}
    return found or dict(subject.manifest.get("removed_neurons") or {})


def _same_tokens(base: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, name: str) -> None:
    if base.get_vocab() != other.get_vocab():
        raise ModelError(
            f"{name} has another vocabulary than its base ({len(other.get_vocab()):,} and "
            f"{len(base.get_vocab()):,} tokens): their continuations cannot be compared draw by "
            "draw; is --base the model it was made from?"
        )


def _recorded_base(name: str, manifest: Json) -> str | None:
    """The base that levelhead.json or the model card names; None where neither does."""
    objective = manifest.get("objective")
    if isinstance(objective, dict) and isinstance(objective.get("base"), str):
        return str(objective["base"])
    card = _located(name, CARD)
    if card is None:
        return None
    from huggingface_hub import ModelCard

    try:
        data: Any = ModelCard.load(card, ignore_metadata_errors=True).data
    except (OSError, ValueError):
        return None
    base = data.get("base_model")
    base = base[0] if isinstance(base, list) and base else base
    return base if isinstance(base, str) and base else None


def _located(name: str, file: str) -> Path | None:
    """A file of a local model, or of one on the hub; None where there is none."""
    folder = Path(name)
    if folder.exists():
        return folder / file if (folder / file).is_file() else None
    try:
        found = cached_file(
            name,
            file,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):
        return None  # loading says what is wrong
    return None if found is None else Path(found)


def _json(path: Path) -> Json:
    """What a file says, if it is there and says it as an object."""
    if not path.is_file():
        return {}
    try:
        data = runs.read_json(path)
    except RunFolderError:
        return {}
    return data if isinstance(data, dict) else {}
