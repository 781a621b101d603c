"""z_bias of every head on templates drawn anew: how far sets of heads chosen by it would change.

A bootstrap over templates, the clusters of everything else here. The base model's gaps are
measured anew in every draw, as another run would; which gaps are used is kept. It is for what has
no formula, such as the overlap of two sets of heads; errors of effects come by the jackknife.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from levelhead.metrics.bias import gaps_of_means
from levelhead.scoring.effects import z_bias
from levelhead.scoring.problem import BiasProblem, HeadShifts, SampledTexts


def resampled_effects(
    problem: BiasProblem,
    base: SampledTexts,
    shifts: HeadShifts,
    used: Bool[np.ndarray, " subgroups"],
    draws: Int[np.ndarray, "draws templates"],
) -> Float[np.ndarray, "draws layers heads"]:
    """z_bias in every draw of templates.

    Args:
        shifts: of `problem` on `base`.
        used: subgroups whose gap counts, as `AxisEffects.used`.
        draws: how often each template is in a draw, by its code (`template_draws`). The same draws
            for two measures of the same prompts give paired results.
    """
    subgroup, template = problem.subgroup[base.prompt], problem.template[base.prompt]
    size, count = draws.shape[1], len(problem.subgroups)
    moved = np.zeros((size, *shifts.shift.shape[1:]))
    texts = np.zeros((size, count))
    np.add.at(moved, shifts.template, shifts.shift * shifts.count[:, :, None, None])
    np.add.at(texts, shifts.template, shifts.count)
    change = np.tensordot(draws, moved, 1) / _at_least(draws @ texts)[:, :, None, None]
    gap_change = np.moveaxis(gaps_of_means(np.moveaxis(change, 1, -1), problem.weights), -1, 1)

    def gaps(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "draws subgroups"]:
        total, number = np.zeros((size, count)), np.zeros((size, count))
        np.add.at(total, (template, subgroup), values)
        np.add.at(number, (template, subgroup), 1.0)
        return gaps_of_means((draws @ total) / _at_least(draws @ number), problem.weights)

    own, unbiased = gaps(shifts.toxicity), gaps(shifts.unbiased)
    gap = np.sign(own) * np.maximum(np.abs(own), np.abs(unbiased))  # as `effects.base_gaps`
    return z_bias(gap, gap_change, used)


def template_draws(
    templates: int, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draws templates"]:
    """How often each template is in each draw of as many, with replacement."""
    counts: Int[np.ndarray, "draws templates"] = rng.multinomial(
        templates, np.full(templates, 1 / templates), draws
    )
    return counts


def _at_least(count: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    out: Float[np.ndarray, "*any"] = np.maximum(count, 1e-12)
    return out
