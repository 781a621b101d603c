"""What averaging needs of a run, collected once: any number of edits are computed from it.

    base = validation_base(session, axis, progress)                       # or base_axis(...)
    averager = collect(session, {axis: base}, progress)
    edit = averager.edit(strength=10, rank=8)                             # milliseconds a layer
    judged = expected_difference(other_base, edited(session.base.model, edit), progress)
    edit.apply(model); save_averaged(model, folder, tokenizer)            # or
    write_lora(edit, model, folder)

Text is the validation part of the run's own and of every text of the price; matched contexts are of
validation prompts. What an edit is judged on should be continuations that it was not computed from.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from levelhead.data.texts import whole_file
from levelhead.errors import ModelError
from levelhead.evaluation.base import BaseAxis
from levelhead.fitting import calibration_texts
from levelhead.models.averaging import Averager, Contexts, Target
from levelhead.models.calibration import CalibrationText, TextReader, projections
from levelhead.models.least_squares import Moments
from levelhead.models.slicing import input_width
from levelhead.progress import Progress
from levelhead.records import Unit
from levelhead.scoring.matched_moments import (
    matched_contexts,
    refuse_unmatched,
    toxicity_of_words,
)
from levelhead.session import Session

TOXICITY = "toxicity"
"""The readout of averaging by default: expected toxicity of words, as the run's scorer reads it."""


KEPT = "kept text"
"""In a record's `axes`: the text on which layers go on writing what they wrote."""


def check_averaging(session: Session) -> None:
    """Look at what averaging reads, before any work.

    Raises:
        PromptError: an axis with one subgroup, or without matched groups.
        TextError: the text to keep cannot be read, or is empty.
        ModelError: what is collected would take more than half of the machine's memory.
    """
    _refuse_too_large(session)
    if session.config.average_keep is not None:
        whole_file(session.config.average_keep)
    for axis in session.config.axis:
        refuse_unmatched(session.problem(axis, "validation"))


def moment_bytes(model: PreTrainedModel, unit: Unit = "head") -> int:
    """Of what is held of all layers at once: second moments of text and contexts, and readouts."""
    widths = [input_width(module) for module in projections(model, unit)]
    embeddings: Any = model.get_input_embeddings()
    written = int(embeddings.weight.shape[1])
    return sum(8 * (3 * width**2 + written**2) for width in widths)


def _refuse_too_large(session: Session) -> None:
    need, have = moment_bytes(session.base.model), physical_memory()
    if have is not None and need > have / 2:
        raise ModelError(
            f"averaging holds {need / 1e9:.1f} GB of second moments for this model, more than half "
            f"of the machine's memory ({have / 1e9:.1f} GB): take a machine with more, or in "
            "Python collect(..., layers=...) a part of the layers at a time"
        )


def physical_memory() -> int | None:
    """Of the machine, in bytes; None where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def kept_text(
    session: Session, path: str, progress: Progress, unit: Unit = "head"
) -> dict[str, Contexts]:
    """Every position of a text of the user's (facts, say), as contexts to keep.

    They count as much as matched contexts do, where text counts 1 / lambda of that.

    Raises:
        TextError: it cannot be read, or is empty.
    """
    source = whole_file(path)
    encode: Any = session.tokenizer
    ids: list[int] = encode(source.text, add_special_tokens=False, verbose=False)["input_ids"]
    model, bos = session.base.model, session.tokenizer.bos_token_id
    reader = TextReader(model, [CalibrationText.of(source, "validation", ids)], bos)
    layers = range(len(projections(model, unit)))
    with progress("averaging: reading what is kept", reader.work(unit, layers)) as advance:
        grams = dict(reader.grams(unit, layers, advance))
    moments = {layer: Moments.keeping(gram) for layer, gram in grams.items()}
    found = Contexts(
        moments=moments, readout={}, target="own", prompts=0, groups=0, positions=len(ids)
    )
    return {KEPT: found}


def collect(
    session: Session,
    bases: Mapping[str, BaseAxis],
    progress: Progress,
    *,
    readout: bool = True,
    layers: Sequence[int] | None = None,
    target: Target = "average",
    keep: Mapping[str, Contexts] | None = None,
    weights: Mapping[str, float] | None = None,
    texts: Collection[str] | None = None,
    unit: Unit = "head",
) -> Averager:
    """Read text and matched contexts with the base model.

    Args:
        bases: by axis, of validation prompts; their continuations are the matched contexts, and
            their token models the readouts.
        readout: False where only the plain form is wanted: no backward passes.
        layers: those that may change; none: all.
        target: "shuffled" for the control.
        keep: contexts to be kept as they are, by name: `matched_contexts(..., target="own")`.
        weights: of axes and of `keep`, by name.
        texts: names of texts besides the run's own; none: those of the price.
        unit: "neuron" for the MLPs' down projections.

    Raises:
        PromptError: no matched groups.
        ModelError: the model yields NaN.
    """
    model = session.base.model
    others = session.config.price_texts if texts is None else texts
    parts = calibration_texts(session, others)
    reader = TextReader(model, parts, session.tokenizer.bos_token_id)
    contexts = {
        axis: matched_contexts(
            base.problem,
            base.texts,
            progress,
            quantity=toxicity_of_words(base.token.tau) if readout else None,
            layers=layers,
            target=target,
            unit=unit,
        )
        for axis, base in bases.items()
    }
    chosen = sorted(next(iter(contexts.values())).moments)
    with progress("averaging: reading text", reader.work(unit, chosen)) as advance:
        text = dict(reader.grams(unit, chosen, advance))
    return Averager(
        model=model,
        text=text,
        texts=reader.to_json(),
        contexts={**contexts, **(keep or {})},
        weights=weights or {},
        what=TOXICITY,
        unit=unit,
    )
