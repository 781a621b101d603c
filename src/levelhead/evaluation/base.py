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

from levelhead.models.gates import ablate, gated
from levelhead.models.units import ablate_units
from levelhead.progress import Progress
from levelhead.records import HeadSelection
from levelhead.sampling import pad_id
from levelhead.scoring.matched_rows import MatchedRows, matched_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.rounds import of_sample
from levelhead.scoring.teacher_forcing import read_rows
from levelhead.scoring.token_model import TokenModel, token_model

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


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseAxis:
    """What the base model writes and expects on one axis' prompts."""

    problem: BiasProblem
    texts: SampledTexts
    token: TokenModel
    matched: MatchedRows
    """One continuation of each matched group after every subgroup's prompt."""
    matched_sample: SampledTexts
    """The continuations that `matched.source` counts."""
    matched_toxicity: Float[np.ndarray, " rows"]
    """sum_t r_t of each matched row under the base model."""


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
    token = token_model(problem, texts, progress)
    one = of_sample(texts, problem.first_sample)
    matched = matched_rows(replace(problem, samples=1), one, groups)
    return BaseAxis(
        problem=problem,
        texts=texts,
        token=token,
        matched=matched,
        matched_sample=one,
        matched_toxicity=expected_of_rows(problem, matched, token, progress, "base"),
    )


def expected_of_rows(
    problem: BiasProblem, matched: MatchedRows, token: TokenModel, progress: Progress, name: str
) -> Float[np.ndarray, " rows"]:
    """sum_t r_t of each matched row under the problem's model; `name` is for people."""
    title = f"reading with the {name} model ({problem.axis})"
    with progress(title, len(matched.rows)) as advance:
        toxicity, _ = read_rows(
            problem.model,
            matched.rows,
            token.tau,
            pad=pad_id(problem.tokenizer),
            batch_size=problem.batch_size,
            advance=advance,
        )
    return toxicity
