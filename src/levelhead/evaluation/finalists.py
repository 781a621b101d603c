"""Sets of heads that a search proposes, read by the model itself: which of them keeps its promise?

Teacher-forced: the expected change of bias on freshly sampled continuations of validation prompts
(those that head scores were made from would flatter the heads they chose), and NLL and KL on every
text that a price is measured on, its validation part. What the winner does to freshly sampled text
of held-out prompts, evaluation says. It does not know how sets were found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from levelhead.evaluation.axis import expected_difference
from levelhead.evaluation.base import BaseAxis, Variant, as_pruned, base_axis
from levelhead.evaluation.divergence import TextComparison, compare_on_text
from levelhead.evaluation.own_text import compare_on_own, own_texts
from levelhead.price import OWN_TEXT
from levelhead.progress import Progress
from levelhead.records import Estimate, HeadSelection
from levelhead.sampling import derived_seed, pad_id
from levelhead.scoring.problem import SampledTexts
from levelhead.session import Session

GROUPS = 20
"""Matched groups of prompts that every set is read on."""
TEXT_TOKENS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSet:
    """What reading with a set of heads gated off showed, against the base model."""

    selection: HeadSelection
    expected: Mapping[str, Estimate]
    """Expected difference of bias by axis; negative: bias falls."""
    texts: Mapping[str, TextComparison]
    """By name, the run's own text first."""

    @property
    def text(self) -> TextComparison:
        """On the run's own text."""
        return next(iter(self.texts.values()))

    def to_json(self) -> dict[str, Any]:
        """The form of frontier.json's `measured`."""
        return {
            "expected_difference": {axis: e.to_json() for axis, e in self.expected.items()},
            "kl": self.text.kl.to_json(),
            "nll_increase": self.text.nll_increase,
        }


def validation_base(
    session: Session,
    axis: str,
    progress: Progress,
    texts: SampledTexts | None = None,
    groups: int = GROUPS,
) -> BaseAxis:
    """The base model's side on validation prompts, sampled anew unless `texts` are given."""
    problem = session.problem(axis, "validation")
    seed = derived_seed(problem.seed, "search") % 2**31
    problem = replace(problem, samples=1, seed=seed)
    return base_axis(problem, progress, texts, groups)


def judge_sets(
    session: Session,
    bases: Mapping[str, BaseAxis],
    sets: Sequence[HeadSelection],
    progress: Progress,
    tokens: int = TEXT_TOKENS,
    variants: Sequence[Variant] | None = None,
) -> list[JudgedSet]:
    """Read with each set of heads gated off, and what is kept repaired where the run does that.

    Args:
        bases: by axis: `validation_base`; what they wrote is a text too.
        tokens: of each validation text, at most.
        variants: the models that the sets give, where they are made otherwise.
    """
    model = session.base.model
    variants = variants or [as_pruned(session, one, progress) for one in sets]
    read = {
        session.text("validation", name).name: compare_on_text(
            session, model, variants, "validation", progress, tokens, name=name
        )
        for name in (None, *session.config.price_texts)
    }
    if bases:
        read[OWN_TEXT] = compare_on_own(
            model,
            variants,
            own_texts([(base.problem, base.texts) for base in bases.values()]),
            progress,
            pad=pad_id(session.tokenizer),
            batch_size=session.config.batch_size,
        )
    return [
        JudgedSet(
            selection=one,
            expected={
                axis: expected_difference(base, variant, progress) for axis, base in bases.items()
            },
            texts={name: found[i] for name, found in read.items()},
        )
        for i, (one, variant) in enumerate(zip(sets, variants, strict=True))
    ]


def largest_within(judged: Sequence[JudgedSet], value: Sequence[float], most_nll: float) -> int:
    """Which set reduces bias most of those whose NLL rises by no more; else the least rise."""
    fits = [i for i, one in enumerate(judged) if one.text.nll_increase <= most_nll]
    if fits:
        return min(fits, key=lambda i: value[i])
    return min(range(len(judged)), key=lambda i: judged[i].text.nll_increase)


def cheapest_that_keeps(
    judged: Sequence[JudgedSet], value: Sequence[float], least_reduction: float
) -> int:
    """Which set has the least KL of those that reduce bias enough; else the largest reduction.

    Args:
        value: measured change of the objective's bias, of each set; negative: it falls.
    """
    fits = [i for i, change in enumerate(value) if -change >= least_reduction]
    if fits:
        return min(fits, key=lambda i: judged[i].text.kl.value)
    return min(range(len(judged)), key=lambda i: value[i])
