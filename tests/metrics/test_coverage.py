"""Do nominal 95% intervals cover the truth? On simulated toxicities whose truth is known.

The default tier repeats a few hundred times with tolerances from binomial error; the simulation
tier 2,000 times with the limits as stated in the documentation of `metrics`.
"""

from functools import partial

import numpy as np
import pytest
from benchmarks.simulation import (
    PAIRS,
    SUBGROUPS,
    World,
    bias_coverage,
    gap_coverage,
    paired_coverage,
)

from levelhead.metrics.bias import bias
from levelhead.metrics.clusters import gap_contributions
from levelhead.metrics.differences import bias_difference
from levelhead.metrics.intervals import gap_intervals

LOWEST, HIGHEST = 0.92, 0.98
SLOW_WORLDS = [
    World(gap, kind, templates, samples)
    for templates, samples in ((25, 1), (30, 1), (25, 4))
    for kind in ("beta", "zero-inflated", "binary")
    for gap in ("none", "small", "one", "large")
]


def tolerance(replications):
    return 3 * np.sqrt(0.08 * 0.92 / replications)


def percentile_bootstrap(toxicity, subgroup, template, num_subgroups, rng, draws):
    """What method.md warns of: templates resampled, quantiles of sum |gap| taken."""
    parts = gap_contributions(toxicity, subgroup, template, num_subgroups)
    num_templates = len(parts)
    times = rng.multinomial(num_templates, np.full(num_templates, 1 / num_templates), draws)
    d = times @ (parts + _gaps(toxicity, subgroup, num_subgroups) / num_templates)
    return np.quantile(np.abs(d).sum(axis=1), [0.025, 0.975])


def _gaps(toxicity, subgroup, num_subgroups):
    means = np.bincount(subgroup, toxicity, num_subgroups) / np.bincount(subgroup)
    return toxicity.mean() - means


def test_the_truth_of_the_simulation_is_the_mean_of_many_templates():
    world = World("large", "zero-inflated", templates=20_000)
    d = _gaps(world.draw(np.random.default_rng(0)), world.codes[0], SUBGROUPS)
    np.testing.assert_allclose(d, world.true_gaps, atol=0.005)
    assert World("none", "beta").true_bias == pytest.approx(0, abs=1e-12)
    assert bias(world.draw(np.random.default_rng(1)), world.codes[0], SUBGROUPS) == pytest.approx(
        world.true_bias, abs=0.01
    )


@pytest.mark.parametrize("kind", ["beta", "zero-inflated", "binary"])
@pytest.mark.parametrize("gap", ["none", "small", "large"])
def test_signed_gaps_are_covered(gap, kind):
    covered = gap_coverage(World(gap, kind), 400, seed=1)
    assert LOWEST < covered.mean() < HIGHEST
    assert covered.min() > LOWEST - tolerance(400)


@pytest.mark.parametrize(
    ("gap", "kind"), [("none", "binary"), ("small", "zero-inflated"), ("large", "beta")]
)
def test_bias_is_covered(gap, kind):
    assert bias_coverage(World(gap, kind), 300, seed=2, draws=300) > LOWEST - tolerance(300)


def test_control_percentile_bootstrap_of_bias_covers_nothing_where_there_is_no_gap():
    coverage = partial(bias_coverage, replications=200, seed=3, interval=percentile_bootstrap)
    assert coverage(World("none", "beta")) < 0.05
    assert coverage(World("small", "binary")) < LOWEST - tolerance(200)
    # Where gaps are large it is nearly right: the control is not simply a broken interval.
    assert coverage(World("large", "beta")) > 0.88


@pytest.mark.parametrize(("base", "pruned", "shift"), PAIRS[1:6:2])
def test_paired_differences_are_covered(base, pruned, shift):
    covered = paired_coverage(
        World(base, "beta"), World(pruned, "beta", shift=shift), 200, seed=4, draws=200
    )
    assert covered > LOWEST - tolerance(200)


@pytest.mark.parametrize("two_way", [True, False])
def test_random_descriptors_need_two_way_intervals(two_way):
    rng = np.random.default_rng(5)
    world = World("none", "beta")
    subgroup, template, descriptor = world.codes
    covered = np.zeros(SUBGROUPS)
    for _ in range(300):
        toxicity = world.draw(rng) + rng.normal(0, 0.1, 20)[descriptor]
        given = {"descriptor": descriptor} if two_way else {}
        got = gap_intervals(toxicity, subgroup, template, SUBGROUPS, **given)
        covered += (got.low <= 0) & (got.high >= 0)
    # With four descriptors each the two-way interval is rough; the one-way one is wrong.
    assert (0.90 < covered.mean() / 300 < 0.99) if two_way else (covered.mean() / 300 < 0.7)


def shared_coverage(kept, gap, replications, seed):
    """Common random numbers: a share `kept` of the pruned model's texts are the base model's."""
    rng = np.random.default_rng(seed)
    base, fresh = World(gap, "beta"), World("none", "beta")
    subgroup, template, _ = base.codes
    truth = np.abs(kept * base.true_gaps + (1 - kept) * fresh.true_gaps).sum() - base.true_bias
    covered = 0
    for _ in range(replications):
        effects = base.effects(rng)
        toxicity = base.draw(rng, effects)
        same = rng.random(len(toxicity)) < kept
        pruned = np.where(same, toxicity, fresh.draw(rng, effects))
        got = bias_difference(
            toxicity, pruned, subgroup, template, SUBGROUPS, rng, draws=200
        ).estimate.interval
        covered += got.low <= truth <= got.high
    return covered / replications


@pytest.mark.parametrize("gap", ["none", "large"])
def test_paired_differences_are_covered_under_common_random_numbers(gap):
    assert shared_coverage(0.8, gap, 150, seed=6) > LOWEST - tolerance(150)


@pytest.mark.simulation
@pytest.mark.parametrize("gap", ["none", "small", "large"])
def test_paired_differences_are_covered_under_common_random_numbers_long(gap):
    assert shared_coverage(0.8, gap, 2000, seed=14) > LOWEST


@pytest.mark.simulation
@pytest.mark.parametrize("world", SLOW_WORLDS, ids=str)
def test_signed_gaps_are_covered_long(world):
    covered = gap_coverage(world, 4000, seed=11)
    assert (covered > LOWEST).all()
    assert (covered < HIGHEST).all()


@pytest.mark.simulation
@pytest.mark.parametrize("world", SLOW_WORLDS[:12], ids=str)
def test_bias_is_covered_long(world):
    covered = bias_coverage(world, 2000, seed=12)
    assert covered > LOWEST
    if world.gap_size == "none":
        assert covered > 0.95


@pytest.mark.simulation
@pytest.mark.parametrize("kind", ["beta", "binary"])
@pytest.mark.parametrize(("base", "pruned", "shift"), PAIRS)
def test_paired_differences_are_covered_long(base, pruned, shift, kind):
    covered = paired_coverage(World(base, kind), World(pruned, kind, shift=shift), 2000, seed=13)
    assert LOWEST < covered < HIGHEST
