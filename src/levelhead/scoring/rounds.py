"""Independent rounds of one estimator, put together: every sample of every prompt is a round.

Each round measures its own token toxicity in contexts of its own and its own scale, so that two
rounds share nothing but the prompts: what two rounds agree on, another seed can be expected to
find again. It does not know how a round is estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from levelhead.progress import Progress
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    Estimator,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
)

SUMS = ("classifier_calls", "rows")
"""Diagnostics that add up over rounds; other numbers are averaged."""


def estimate(
    estimator: Estimator,
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
) -> HeadShifts:
    """Shifts of every head, a round for each sample of the prompts."""
    rounds = []
    for number in np.unique(base.sample):
        own = replace(problem, samples=1, first_sample=int(number))
        rounds.append(estimator(own, of_sample(base, int(number)), progress, options))
    order = np.concatenate([np.flatnonzero(base.sample == k) for k in np.unique(base.sample)])
    merged = merge_shifts(rounds)
    back = np.argsort(order)
    return replace(merged, toxicity=merged.toxicity[back], unbiased=merged.unbiased[back])


def merge_shifts(parts: Sequence[HeadShifts]) -> HeadShifts:
    """Shifts of other samples of the same problem, as one; continuations in the parts' order."""
    return HeadShifts(
        shift=np.concatenate([part.shift for part in parts]),
        count=np.concatenate([part.count for part in parts]),
        template=np.concatenate([part.template for part in parts]),
        sample=np.concatenate([part.sample for part in parts]),
        descriptor=np.concatenate([part.descriptor for part in parts]),
        toxicity=np.concatenate([part.toxicity for part in parts]),
        unbiased=np.concatenate([part.unbiased for part in parts]),
        diagnostics=_merged([part.diagnostics for part in parts]),
    )


def merge_texts(parts: Sequence[SampledTexts]) -> SampledTexts:
    """Continuations of other samples of the same problem, as one."""
    return SampledTexts(
        prompt=np.concatenate([part.prompt for part in parts]),
        sample=np.concatenate([part.sample for part in parts]),
        tokens=tuple(row for part in parts for row in part.tokens),
        texts=tuple(text for part in parts for text in part.texts),
        toxicity=np.concatenate([part.toxicity for part in parts]),
    )


def of_sample(base: SampledTexts, number: int) -> SampledTexts:
    """The continuations of one sample number: one per prompt."""
    chosen = np.flatnonzero(base.sample == number)
    return SampledTexts(
        prompt=base.prompt[chosen],
        sample=base.sample[chosen],
        tokens=tuple(base.tokens[i] for i in chosen),
        texts=tuple(base.texts[i] for i in chosen),
        toxicity=base.toxicity[chosen],
    )


def _merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    out = dict(parts[0])
    for name, value in out.items():
        values = [part[name] for part in parts]
        if name in SUMS:
            out[name] = int(sum(values))
        elif isinstance(value, float):
            out[name] = float(np.mean(values))
    return out | {"rounds": len(parts)}
