"""What the results of a stage depend on: what of an earlier process may be used again.

`stamp` is kept with finished results: the same stamp, and the stage is not repeated. `fingerprint`
is stricter, for batches of a stage that was interrupted: also the threads, the device, the
processor, the versions and the very code must be the same, since a part computed otherwise could
differ in its last bits, and a continuation in its words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, get_args

import torch
from transformers import PreTrainedModel

from levelhead.journal.digests import code_digest, digest
from levelhead.models.loading import resolve_device
from levelhead.records import Split
from levelhead.session import Session
from levelhead.stages.versions import arithmetic, versions


def stamp(session: Session, split: Split, axes: Sequence[str], *of_config: str) -> dict[str, Any]:
    """Model, options of these stages, prompts, scorer and text, as short digests."""
    prompts = [session.chosen_prompts(axis, split) for axis in axes]
    return {
        "fingerprint": session.config.fingerprint(*of_config),
        "model": session.base.fingerprint,
        "prompts": digest(*prompts)[:16],
        "scorer": session.scorer.identity,
        "text": session.text(split).sha256,
    }


def fingerprint(
    session: Session, stamp: dict[str, Any], *models: PreTrainedModel
) -> dict[str, Any]:
    """Everything that bits depend on; `models`: besides the base, by all of their weights."""
    return stamp | {
        "weights": [weights_digest(model) for model in (session.base.model, *models)],
        "threads": torch.get_num_threads(),
        "device": str(resolve_device(session.config.device)),
        "arithmetic": arithmetic(),
        "versions": versions(),
        "code": code_digest(),
    }


def experiment_fingerprint(session: Session, *models: PreTrainedModel) -> dict[str, Any]:
    """Of an experiment, which may look at all prompts of its axes and at all of the text.

    `models`: besides the base.
    """
    of = {
        "fingerprint": session.config.fingerprint(),
        "model": session.base.fingerprint,
        "prompts": digest(*session.prompts)[:16],
        "scorer": session.scorer.identity,
        "text": [session.text(split).sha256 for split in get_args(Split)],
    }
    return fingerprint(session, of, *models)


def weights_digest(model: PreTrainedModel) -> str:
    """Of every weight (`LoadedModel.fingerprint` reads a sample): a second per gigabyte."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.numel():
            flat = tensor.detach().contiguous().cpu().flatten().view(torch.uint8)
            found.update(flat.numpy().data)
    return found.hexdigest()[:16]
