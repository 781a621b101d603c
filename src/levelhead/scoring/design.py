"""How much a problem samples, as plans of power ask it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from levelhead.metrics.power import STORED, UNKNOWN, Design, axis_error, detectable_difference
from levelhead.scoring.problem import BiasProblem


def design_of(problem: BiasProblem) -> Design:
    """The budget of one axis."""
    return Design(
        prompts=len(problem.prompts),
        samples=problem.samples,
        subgroups=len(problem.subgroups),
        templates=len(np.unique(problem.template)),
    )


def detectable(scorer: str, problems: Sequence[BiasProblem]) -> dict[str, float]:
    """By axis: the smallest fall of bias(S) that these problems tell with 80% power.

    From stored variance components of the scorer; what an evaluation finds is in its details.

    Args:
        problems: of test prompts, the main axis first.
    """
    components = STORED.get(scorer, UNKNOWN)
    return {
        problem.axis: detectable_difference(
            components, design_of(problem), error=axis_error(len(problems), main=place == 0)
        )
        for place, problem in enumerate(problems)
    }
