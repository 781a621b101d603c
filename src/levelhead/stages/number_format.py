"""The number format of a run: `--dtype auto` is settled once, when the run folder is made.

A run that is gone on with keeps its folder's format, whatever this machine would choose now.
Folders of before, whose config.json says auto, stay as they were computed: float32 on a CPU, as
saved elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel

from levelhead import runs
from levelhead.config import RunConfig
from levelhead.models.loading import load_config, resolve_device
from levelhead.models.number_format import Calibration, calibrated
from levelhead.runs import RunFolder
from levelhead.session import Session

SMALL_DIFFERENCES = ("finite", "hybrid", "ablate")
"""Estimators of bias that subtract two readings of a model; in bfloat16 they differ by rounding."""
EXACT = ("exact", "exhaustive")
"""Estimators of perplexity effects that do so."""


def take_format_of(session: Session, out: str | Path) -> None:
    """Where `--dtype auto` is given for a run that has begun, its own format is meant."""
    if session.config.dtype == "auto" and runs.is_run(Path(out)):
        session.config = replace(session.config, dtype=RunFolder.open(out).config.dtype)


def choose_format(session: Session) -> Calibration | None:
    """Settle `--dtype auto` on a CPU by timing; how, or None where there is nothing to settle.

    Raises:
        UserError: the prompts or the model's config cannot be read: what is cheaper to find wrong
            than a model is looked at first.
    """
    config = session.config
    if config.dtype != "auto" or resolve_device(config.device).type != "cpu":
        return None
    if needs_float32(config):
        session.config = replace(config, dtype="float32")
        return None
    _ = session.prompts
    path = session.base_path
    found = calibrated(load_config(path, config.revision if path == config.model else None))
    session.config = replace(config, dtype=found.dtype)
    return found


def needs_float32(config: RunConfig) -> bool:
    """Whether heads are judged one by one by differences as small as bfloat16's rounding."""
    return config.estimator in SMALL_DIFFERENCES or config.ppl_estimator in EXACT


def dtype_name(model: PreTrainedModel) -> str:
    """The number format of a model's weights, as `--dtype` calls it."""
    return str(model.dtype).removeprefix("torch.")
