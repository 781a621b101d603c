"""The base's side of an axis on some templates alone: one part to fit to, another to choose on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from levelhead.evaluation.base import BaseAxis, expected_of_rows
from levelhead.progress import silent
from levelhead.scoring.matched_rows import matched_rows

EVERY = 3
"""Of so many templates in a row one is chosen on."""


def two_parts(base: BaseAxis, groups: int) -> tuple[BaseAxis, BaseAxis]:
    """To fit to, and to choose on: no template is in both.

    What scorers make of words (`token`) is that of all templates.

    Args:
        groups: matched groups that are read of the second part, at most.
    """
    templates = sorted({prompt.template for prompt in base.problem.prompts})
    chosen_on = set(templates[EVERY - 1 :: EVERY])
    return part(base, set(templates) - chosen_on, 1), part(base, chosen_on, groups)


def part(base: BaseAxis, templates: Collection[str], groups: int) -> BaseAxis:
    """Prompts of these templates, what was written after them, and matched rows of these alone."""
    problem = base.problem
    kept = [i for i, prompt in enumerate(problem.prompts) if prompt.template in templates]
    place = {old: new for new, old in enumerate(kept)}
    own = np.flatnonzero(np.isin(base.texts.prompt, kept))
    own_problem = replace(
        problem,
        prompts=tuple(problem.prompts[i] for i in kept),
        prompt_ids=tuple(problem.prompt_ids[i] for i in kept),
    )
    readings = {}
    for name, reading in base.readings.items():
        texts, token = reading.texts, reading.token
        readings[name] = replace(
            reading,
            texts=replace(
                texts,
                prompt=np.array([place[int(p)] for p in texts.prompt[own]]),
                sample=texts.sample[own],
                tokens=tuple(texts.tokens[i] for i in own),
                texts=tuple(texts.texts[i] for i in own),
                toxicity=texts.toxicity[own],
            ),
            token=replace(token, expected=token.expected[own], adjusted=token.adjusted[own]),
        )
    found = replace(base, problem=own_problem, readings=readings)
    matched = matched_rows(own_problem, found.texts, groups)
    tokens = {name: reading.token for name, reading in readings.items()}
    return replace(
        found,
        matched=matched,
        matched_sample=found.texts,
        matched_toxicity=expected_of_rows(own_problem, matched, tokens, silent, "base"),
    )
