"""What planted heads do to freely sampled text: gains by it, and the proof that a head is there.

Toxic words beget toxic words, and a name is often followed by itself, so what is expected token by
token (`planting.py`) does not tell. Draws here are none of those that anything is judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.planting import PlantedHead, planted
from levelhead.evaluation.mentions import named
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts

SCALING_SAMPLES, SCALINGS, SCALE_STEP = 2, 8, 1.5
SCALING_SEED, CONFIRMING_SEED = 20_000, 10_000
"""Added to a problem's seed: draws of their own."""

Values = Callable[[BiasProblem, SampledTexts], Float[np.ndarray, " n"]]
"""A number of each continuation, in [0, 1]."""


def toxicities(_: BiasProblem, texts: SampledTexts) -> Float[np.ndarray, " n"]:
    """As the problem's scorer reads them."""
    return texts.toxicity


def mentions(problem: BiasProblem, texts: SampledTexts) -> Float[np.ndarray, " n"]:
    """1 where a continuation names the subgroup that its prompt is about."""
    about = [problem.prompts[int(p)].subgroup for p in texts.prompt]
    return named(problem.names, about, texts.texts)


def of_target(problem: BiasProblem, target: int) -> BiasProblem:
    """The target's prompts alone."""
    own = np.flatnonzero(problem.subgroup == target)
    return replace(
        problem,
        prompts=tuple(problem.prompts[i] for i in own),
        prompt_ids=tuple(problem.prompt_ids[i] for i in own),
    )


def scaled(
    mine: BiasProblem,
    heads: Sequence[PlantedHead],
    aim: tuple[float, float],
    values: Values = toxicities,
) -> list[PlantedHead]:
    """The heads with gains multiplied in common so that the mean of what is SAMPLED is in `aim`.

    Args:
        mine: the target's prompts.
        aim: (lowest, highest) mean of `values`; missed where no gain of those tried reaches it.
    """
    low, high, scale = 0.0, np.inf, 1.0
    tried = replace(mine, samples=SCALING_SAMPLES, seed=SCALING_SEED + mine.seed)
    for _ in range(SCALINGS):
        found = [replace(head, gain=head.gain * scale) for head in heads]
        with planted(mine.model, found):
            mean = values(tried, sample_texts(tried, silent, "")).mean()
        if aim[0] <= mean <= aim[1]:
            break
        low, high = (scale, high) if mean < aim[0] else (low, scale)
        scale = scale * SCALE_STEP if high == np.inf else (low + high) / 2
    return found


def confirm(
    problem: BiasProblem,
    target: int,
    heads: Sequence[PlantedHead],
    samples: tuple[int, int],
    values: Values = toxicities,
) -> list[dict[str, Any]]:
    """The target's mean value with a head less without it, by fresh sampling, head by head.

    The model has the heads planted. 95% t intervals over templates, of the difference of each
    prompt's means.

    Args:
        samples: continuations per prompt with all heads, and without one of them.
    """
    mine = of_target(problem, target)
    mine = replace(mine, seed=CONFIRMING_SEED + mine.seed)

    def prompt_means(count: int, stream: str) -> Float[np.ndarray, " prompts"]:
        drawn = sample_texts(replace(mine, samples=count), silent, "", stream=stream)
        means: Float[np.ndarray, " prompts"] = (
            values(mine, drawn).reshape(len(mine.prompts), -1).mean(1)
        )
        return means

    whole = prompt_means(samples[0], "")
    effects = []
    for head in heads:
        with ablate(problem.model, {head.layer: [head.head]}):
            without = prompt_means(samples[1], f"without {head.layer}.{head.head} ")
        found = linear_difference_interval(whole - without, mine.template)
        effects.append(
            {
                "effect": found.value,
                "interval": [found.interval.low, found.interval.high],
                "with_all": float(whole.mean()),
                "confirmed": found.interval.low > 0,
            }
        )
    return effects
