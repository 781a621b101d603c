"""How much a problem samples, as plans of power ask it."""

from __future__ import annotations

import numpy as np

from levelhead.metrics.power import Design
from levelhead.scoring.problem import BiasProblem


def design_of(problem: BiasProblem) -> Design:
    """The budget of one axis."""
    return Design(
        prompts=len(problem.prompts),
        samples=problem.samples,
        subgroups=len(problem.subgroups),
        templates=len(np.unique(problem.template)),
    )
