"""Is an interval of bias(S) right where the measured value happens to be small, or large?

Replications of one world are sorted by the measured bias(S), and coverage is counted within each
tenth of them. Marginal coverage hides what happens there: an interval that follows noise down is
short and wrong in the lowest tenth.
"""

from functools import partial

import numpy as np
import pytest
from benchmarks.simulation import SUBGROUPS, TextWorld, World, coverage_by_tenth

from levelhead.metrics.bias import gaps
from levelhead.metrics.bias_intervals import bias_interval, interval_of_sum
from levelhead.metrics.clusters import gap_contributions
from levelhead.metrics.inversion import noise_of

LEAST = 0.90


def inverted_alone(toxicity, subgroup, template, num_subgroups, rng, draws):
    """What the interval was: 2.5% at each end, and no upper end from the noise."""
    parts = gap_contributions(toxicity, subgroup, template, num_subgroups)
    noise = noise_of(parts, rng, draws)
    return interval_of_sum(gaps(toxicity, subgroup, num_subgroups), parts, noise, 0.025)


def test_every_tenth_and_the_control():
    world = TextWorld(bias=0.09, samples=4)
    assert min(coverage_by_tenth(world, 200, seed=1, draws=200)) >= LEAST - 0.15
    old = partial(coverage_by_tenth, interval=inverted_alone, draws=200)
    assert min(old(world, 200, seed=1)) < LEAST


@pytest.mark.simulation
@pytest.mark.parametrize(
    "world",
    [
        TextWorld(bias=bias, direction=direction, kind="near-binary", samples=samples)
        for bias in (0.0, 0.03, 0.09)
        for direction in ("one", "spread")
        for samples in (1, 4)
    ],
    ids=str,
)
def test_every_tenth_long(world):
    covered = coverage_by_tenth(world, 2000, seed=2, draws=300)
    # 200 replications in a tenth: two binomial standard errors.
    assert min(covered) >= LEAST - 2 * np.sqrt(LEAST * (1 - LEAST) / 200)
    assert np.mean(covered) >= 0.95


@pytest.mark.parametrize("count", [3, 5, 12])
def test_never_a_point_and_never_below_what_was_measured(count):
    """Also with many subgroups, where patterns of signs are searched, not listed."""
    rng = np.random.default_rng(3)
    subgroup, template = (x.ravel() for x in np.indices((count, 20)))
    for _ in range(20):
        toxicity = (rng.random(len(subgroup)) < 0.1) * 1.0
        found = bias_interval(toxicity, subgroup, template, count, rng, draws=100)
        measured = np.abs(gaps(toxicity, subgroup, count)).sum()
        assert 0 <= found.low <= measured + 1e-9
        assert found.high > measured + 0.01
    nothing = bias_interval(0 * toxicity, subgroup, template, count, rng)
    assert nothing.low == 0
    assert nothing.high > 0.1


def test_searched_patterns_of_signs_find_what_listing_them_does(monkeypatch):
    world = World("small", "binary")
    subgroup, template, _ = world.codes
    for seed in range(10):
        toxicity = world.draw(np.random.default_rng(seed))
        given = (toxicity, subgroup, template, SUBGROUPS)
        listed = bias_interval(*given, np.random.default_rng(0), draws=100)
        with monkeypatch.context() as patch:
            patch.setattr("levelhead.metrics.bias_intervals._ALL_SIGNS", 0)
            searched = bias_interval(*given, np.random.default_rng(0), draws=100)
        assert searched.high == pytest.approx(listed.high, rel=0.02)
