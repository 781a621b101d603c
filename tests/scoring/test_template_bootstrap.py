"""z_bias on templates drawn anew: the whole where nothing is redrawn, the jackknife's errors."""

import numpy as np
import pytest

from levelhead.progress import silent
from levelhead.scoring.effects import axis_effects, half_gaps
from levelhead.scoring.problem import sample_texts
from levelhead.scoring.template_bootstrap import resampled_effects, template_draws
from levelhead.scoring.token_gradient import token_gradient


@pytest.fixture(scope="module")
def scored(make_problem):
    problem = make_problem(samples=4)
    base = sample_texts(problem, silent, "base")
    shifts = token_gradient(problem, base, silent)
    return problem, base, shifts, axis_effects(problem, base, shifts)


def test_every_template_once_gives_the_effects_themselves(scored) -> None:
    problem, base, shifts, effects = scored
    once = resampled_effects(problem, base, shifts, effects.used, np.ones((1, 12), dtype=int))
    np.testing.assert_allclose(once[0], effects.effect, atol=1e-12)
    twice = resampled_effects(problem, base, shifts, effects.used, np.full((1, 12), 2))
    np.testing.assert_allclose(twice, once, atol=1e-12)


def test_half_of_the_templates_is_that_half(scored) -> None:
    """As `half_gaps` makes them, template by template."""
    problem, base, shifts, _ = scored
    halves = half_gaps(problem, base, shifts, np.random.default_rng(3))
    assert halves is not None
    z = halves.z_bias()
    first = np.random.default_rng(3).permutation(np.arange(12))[:6]
    draw = np.isin(np.arange(12), first).astype(int)
    for half, own in enumerate((draw, 1 - draw)):
        used = halves.used[0, half]
        found = resampled_effects(problem, base, shifts, used, own[None])
        np.testing.assert_allclose(found[0], z[0, half], atol=1e-12)


def test_the_spread_is_about_the_standard_error(scored) -> None:
    problem, base, shifts, effects = scored
    draws = template_draws(12, 400, np.random.default_rng(0))
    assert draws.sum(axis=1).tolist() == [12] * 400
    drawn = resampled_effects(problem, base, shifts, effects.used, draws)
    ratio = drawn.std(axis=0).ravel() / effects.stderr.ravel()
    assert 0.7 < np.median(ratio) < 1.2
