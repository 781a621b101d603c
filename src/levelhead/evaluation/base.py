"""The base model's side of a comparison, computed once for however many models are compared.

A model to compare is a `Variant`: a context in which it exists. A pruned model is always there; the
base model without some heads is the same model in memory, gated while the context is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from transformers.modeling_utils import PreTrainedModel

from levelhead.models.average_edit import AverageEdit, edit_of
from levelhead.models.gates import ablate, gated
from levelhead.models.repair import NONE, Repair, refuse_unrepairable
from levelhead.models.units import ablate_units
from levelhead.progress import Progress, silent
from levelhead.records import HeadSelection
from levelhead.sampling import pad_id
from levelhead.scoring.matched_reader import MatchedReader
from levelhead.scoring.matched_rows import MatchedRows, matched_rows
from levelhead.scoring.problem import MAIN, BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.rounds import of_sample
from levelhead.scoring.teacher_forcing import read_rows_by
from levelhead.scoring.token_model import TokenModel, token_models
from levelhead.session import Session
from levelhead.toxicity import ToxicityScorer

EXPECTED_GROUPS = 40
"""Matched groups read with both models: their paired difference has a small error already."""

Variant = Callable[[], AbstractContextManager[PreTrainedModel]]


def pruned_model(model: PreTrainedModel) -> Variant:
    """A model that has lost its heads physically."""
    return lambda: nullcontext(model)


def without_heads(model: PreTrainedModel, heads: Mapping[int, Sequence[int]]) -> Variant:
    """The base model with heads ({layer: heads}) gated off: exactly what pruning them gives."""

    @contextmanager
    def gated_off() -> Iterator[PreTrainedModel]:
        with ablate(model, heads):
            yield model

    return gated_off


def without_units(model: PreTrainedModel, selection: HeadSelection) -> Variant:
    """As `without_heads`, for what a selection names: heads, layers or MLP neurons, or gates."""

    @contextmanager
    def gated_off() -> Iterator[PreTrainedModel]:
        if selection.gates is None:
            with ablate_units(model, selection.unit, selection.by_layer):
                yield model
        else:
            with gated(model, torch.tensor(selection.gates, device=model.device)):
                yield model

    return gated_off


def edited(model: PreTrainedModel, edit: AverageEdit) -> Variant:
    """The base model with an edit of its weights, which it loses again: as `apply` makes it."""

    @contextmanager
    def for_a_while() -> Iterator[PreTrainedModel]:
        with edit.applied(model):
            yield model

    return for_a_while


def as_pruned(session: Session, selection: HeadSelection, progress: Progress = silent) -> Variant:
    """The base model as pruning makes it by the run's options: with `repair`, repaired as well."""
    model = session.base.model
    if selection.average is not None:
        return edited(model, edit_of(selection))
    gated_off = without_units(model, selection)
    if session.config.repair == NONE or not selection.heads:
        return gated_off
    refuse_unrepairable(selection)
    found: list[Repair] = []

    @contextmanager
    def repaired() -> Iterator[PreTrainedModel]:
        if not found:
            found.append(fitted_repair(session, selection, progress))
        with found[0].applied(model), gated_off():
            yield model

    return repaired


def fitted_repair(
    session: Session,
    selection: HeadSelection,
    progress: Progress,
    whole: PreTrainedModel | None = None,
) -> Repair:
    """The repair that a run's options ask for, of what a selection leaves.

    Args:
        whole: as in `Repairer.repair`.
    """
    repairer = session.repairer
    if isinstance(repairer.averaging, MatchedReader):
        repairer.averaging.progress = progress
    with progress("repair: reading text", repairer.work(selection)) as advance:
        return repairer.repair(selection, whole, advance)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseReading:
    """What one scorer makes of the base model's continuations."""

    scorer: ToxicityScorer
    texts: SampledTexts
    """The continuations, with this scorer's toxicities."""
    token: TokenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseAxis:
    """What the base model writes and expects on one axis' prompts."""

    problem: BiasProblem
    readings: Mapping[str, BaseReading]
    """`MAIN` first; the others are those of `problem.readers`."""
    matched: MatchedRows
    """One continuation of each matched group after every subgroup's prompt."""
    matched_sample: SampledTexts
    """The continuations that `matched.source` counts."""
    matched_toxicity: Mapping[str, Float[np.ndarray, " rows"]]
    """By reading: sum_t r_t of each matched row under the base model."""

    @property
    def texts(self) -> SampledTexts:
        """The continuations, as the main scorer reads them."""
        return self.readings[MAIN].texts

    @property
    def token(self) -> TokenModel:
        """The main scorer's."""
        return self.readings[MAIN].token


def base_axis(
    problem: BiasProblem,
    progress: Progress,
    texts: SampledTexts | None = None,
    groups: int = EXPECTED_GROUPS,
) -> BaseAxis:
    """Sample the base model, unless its continuations are given, and read what it wrote.

    Raises:
        ScorerError: the token model cannot be fitted to the scorer's answers.
    """
    if texts is None:
        texts = sample_texts(problem, progress, f"sampling the base model ({problem.axis})")
    readings = base_readings(problem, texts, progress)
    one = of_sample(texts, problem.first_sample)
    matched = matched_rows(replace(problem, samples=1), one, groups)
    tokens = {name: reading.token for name, reading in readings.items()}
    return BaseAxis(
        problem=problem,
        readings=readings,
        matched=matched,
        matched_sample=one,
        matched_toxicity=expected_of_rows(problem, matched, tokens, progress, "base"),
    )


def base_readings(
    problem: BiasProblem, texts: SampledTexts, progress: Progress
) -> dict[str, BaseReading]:
    """What the problem's scorer, and each of its other readers, makes of the same continuations."""
    scorers = {MAIN: problem.scorer, **problem.readers}
    read = {
        name: texts if name == MAIN else texts.read_by(scorer, problem)
        for name, scorer in scorers.items()
    }
    tokens = token_models(problem, read, scorers, progress)
    return {
        name: BaseReading(scorer=scorer, texts=read[name], token=tokens[name])
        for name, scorer in scorers.items()
    }


def expected_of_rows(
    problem: BiasProblem,
    matched: MatchedRows,
    tokens: Mapping[str, TokenModel],
    progress: Progress,
    name: str,
) -> dict[str, Float[np.ndarray, " rows"]]:
    """sum_t r_t of each matched row under the problem's model, by reading; `name` is for people."""
    title = f"reading with the {name} model ({problem.axis})"
    with progress(title, len(matched.rows)) as advance:
        read = read_rows_by(
            problem.model,
            matched.rows,
            [token.tau for token in tokens.values()],
            pad=pad_id(problem.tokenizer),
            batch_size=problem.batch_size,
            advance=advance,
        )
    return {reading: toxicity for reading, (toxicity, _) in zip(tokens, read, strict=True)}
