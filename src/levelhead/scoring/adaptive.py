"""Sample until the ranking of heads is reliable, or the budget is spent; and say which it was.

Every continuation already written is kept: more samples of the same prompts are added to it. It
does not know which estimator it drives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from levelhead import journal
from levelhead.journal import watch
from levelhead.progress import Progress
from levelhead.scoring.effects import AxisEffects, axis_effects
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    Estimator,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
    sample_texts,
)
from levelhead.scoring.rounds import estimate, merge_shifts, merge_texts

Stopped = Literal["reliability reached", "max-samples", "time-budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingBudget:
    """When to stop adding samples to those a problem starts with."""

    reliability: float
    """Split-half reliability to reach, with a gap that can be told from 0."""
    most_samples: int
    """Continuations per prompt."""
    seconds: float | None = None
    """Nothing is begun that would, at the pace so far, end later; the first round always runs."""


def score_axis(
    problem: BiasProblem,
    estimator: Estimator,
    budget: SamplingBudget,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
    *,
    clock: Callable[[], float] = journal.now,
) -> tuple[SampledTexts, HeadShifts, AxisEffects]:
    """All continuations, what they say of every head, and its effects on one axis.

    The effects' diagnostics gain `samples`, `stopped` and `history`: the reliability after each
    round.
    """
    start = clock()
    base, shifts = _round(problem, estimator, progress, options)
    samples = problem.samples
    history: list[dict[str, Any]] = []
    while True:
        effects = axis_effects(problem, base, shifts)
        history.append(
            {
                "samples": samples,
                "reliability": effects.reliability,
                "measurable": effects.measurable,
            }
        )
        watch.reliability(problem.axis, effects.reliability, samples)
        more, stopped = _more(effects, samples, budget, clock() - start)
        if stopped is not None:
            break
        extra = replace(problem, first_sample=problem.first_sample + samples, samples=more)
        new_base, new_shifts = _round(extra, estimator, progress, options)
        base, shifts = merge_texts([base, new_base]), merge_shifts([shifts, new_shifts])
        samples += more
    found = {"samples": samples, "stopped": stopped, "history": history}
    return base, shifts, replace(effects, diagnostics=effects.diagnostics | found)


def _round(
    problem: BiasProblem, estimator: Estimator, progress: Progress, options: EstimatorOptions
) -> tuple[SampledTexts, HeadShifts]:
    base = sample_texts(problem, progress, f"sampling ({problem.axis})")
    return base, estimate(estimator, problem, base, progress, options)


def _more(
    effects: AxisEffects, samples: int, budget: SamplingBudget, spent: float
) -> tuple[int, Stopped | None]:
    """(how many samples to add, why none): as many again, while the budget lasts."""
    reached = effects.reliability is not None and effects.reliability >= budget.reliability
    if effects.measurable and reached:
        return 0, "reliability reached"
    if samples >= budget.most_samples:
        return 0, "max-samples"
    more = min(samples, budget.most_samples - samples)
    if budget.seconds is not None:
        more = min(more, int((budget.seconds - spent) / (spent / samples)))
    return (more, None) if more > 0 else (0, "time-budget")
