import math

import numpy as np
import pytest
from benchmarks.simulation import World
from scipy import stats

from levelhead.errors import ConfigError, PromptError
from levelhead.metrics.bias import bias, gaps
from levelhead.metrics.bias_intervals import bias_interval
from levelhead.metrics.clusters import gap_contributions
from levelhead.metrics.differences import bias_difference
from levelhead.metrics.intervals import (
    at_least_0,
    gap_intervals,
    linear_difference_interval,
    samples_needed,
    weighted_mean_interval,
)
from levelhead.records import Estimate, Interval

rng_of = np.random.default_rng


@pytest.fixture
def measured():
    world = World("large", "beta")
    return (world.draw(rng_of(3)), *world.codes)


def test_balanced_gap_interval_is_the_t_interval_of_template_means(measured):
    toxicity, subgroup, template, _ = measured
    table = toxicity.reshape(25, 5, 4).mean(axis=2)
    by_template = table.mean(axis=1, keepdims=True) - table
    expected = stats.ttest_1samp(by_template, 0).confidence_interval(0.9)
    got = gap_intervals(toxicity, subgroup, template, 5, level=0.9)
    np.testing.assert_allclose(got.low, expected.low)
    np.testing.assert_allclose(got.high, expected.high)
    np.testing.assert_allclose(got.gap, gaps(toxicity, subgroup, 5))
    assert got.interval(2) == Interval(got.low[2], got.high[2], 0.9)


def test_contributions_equal_the_jackknife_on_unbalanced_data(measured):
    toxicity, subgroup, template, _ = measured
    keep = rng_of(0).random(len(toxicity)) < 0.8
    toxicity, subgroup, template = toxicity[keep], subgroup[keep], template[keep]
    weights = np.bincount(subgroup)
    left_out = []
    for t in range(25):
        rest = template != t
        means = np.bincount(subgroup[rest], toxicity[rest]) / np.bincount(subgroup[rest])
        left_out.append((weights * means).sum() / weights.sum() - means)
    jackknife = 24 / 25 * ((left_out - np.mean(left_out, axis=0)) ** 2).sum(axis=0)
    got = gap_intervals(toxicity, subgroup, template, 5).stderr ** 2
    np.testing.assert_allclose(got, jackknife, rtol=0.05)
    np.testing.assert_allclose(
        gap_contributions(toxicity, subgroup, template, 5).sum(axis=0), 0, atol=1e-12
    )


def test_codes_need_not_be_without_holes(measured):
    toxicity, subgroup, template, _ = measured
    plain = gap_intervals(toxicity, subgroup, template, 5)
    holes = gap_intervals(toxicity, subgroup, 7 * template + 3, 6)
    np.testing.assert_allclose(holes.stderr[:5], plain.stderr)
    assert np.isnan(holes.low[5])
    assert np.isnan(holes.stderr[5])


def test_descriptors_as_random_make_intervals_wider(measured):
    toxicity, subgroup, template, descriptor = measured
    one_way = gap_intervals(toxicity, subgroup, template, 5)
    two_way = gap_intervals(toxicity, subgroup, template, 5, descriptor=descriptor)
    assert (two_way.stderr >= one_way.stderr).all()
    # One descriptor that differs from the rest of its subgroup matters where they are random.
    shifted = toxicity + (descriptor == 5) * 0.5
    one_way = gap_intervals(shifted, subgroup, template, 5)
    two_way = gap_intervals(shifted, subgroup, template, 5, descriptor=descriptor)
    assert two_way.stderr[1] > 3 * one_way.stderr[1]


def test_linear_difference_counts_templates_not_entries():
    template = np.repeat(np.arange(6), 50)
    values = np.array([0.1, 0.2, 0.4, 0.3, 0.2, 0.6])[template]
    got = linear_difference_interval(values, template)
    expected = stats.ttest_1samp([0.1, 0.2, 0.4, 0.3, 0.2, 0.6], 0).confidence_interval()
    assert (got.interval.low, got.interval.high) == pytest.approx(tuple(expected))
    assert got.distinguishable
    naive = stats.ttest_1samp(values, 0).confidence_interval()
    assert got.interval.high - got.interval.low > 3 * (naive.high - naive.low)  # the control


def test_bias_interval_is_one_sided_without_gaps_and_two_sided_with():
    none, large = World("none", "beta"), World("large", "beta")
    subgroup, template, _ = none.codes
    low = [
        bias_interval(w.draw(rng_of(1)), subgroup, template, 5, rng_of(2)).low
        for w in (none, large)
    ]
    assert low[0] == 0.0
    assert low[1] > 0.1


def test_sharing_noise_narrows_the_interval_of_a_difference(measured):
    toxicity, subgroup, template, _ = measured
    fresh = World("large", "beta").draw(rng_of(8))
    shared, own = (
        bias_difference(toxicity, other, subgroup, template, 5, rng_of(0)).estimate.interval
        for other in (0.9 * toxicity, 0.9 * fresh)
    )
    each = bias_interval(toxicity, subgroup, template, 5, rng_of(0))
    # The same texts, a tenth less toxic: clearly lower, although each bias is uncertain.
    assert shared.low < -0.1 * bias(toxicity, subgroup, 5) < shared.high < 0
    assert shared.high - shared.low < 0.25 * (each.high - each.low)
    assert own.low < 0 < own.high


def test_no_gaps_but_shared_noise_leave_a_narrow_difference():
    """Each bias might be anything up to its detection limit, but not apart from the other."""
    world = World("none", "beta")
    subgroup, template, _ = world.codes
    toxicity, fresh = world.draw(rng_of(0)), world.draw(rng_of(1))
    mostly_shared = np.where(rng_of(2).random(len(fresh)) < 0.95, toxicity, fresh)
    narrow, wide = (
        bias_difference(toxicity, other, subgroup, template, 5, rng_of(0)).estimate.interval
        for other in (mostly_shared, fresh)
    )
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_difference_is_antisymmetric(measured):
    toxicity, subgroup, template, _ = measured
    other = World("small", "beta").draw(rng_of(4))
    there, back = (
        bias_difference(*pair, subgroup, template, 5, rng_of(0), draws=5000).estimate.interval
        for pair in ((toxicity, other), (other, toxicity))
    )
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.005)


def test_equal_models_differ_by_0_and_constant_scores_still_leave_an_interval():
    world = World("none", "beta")
    subgroup, template, _ = world.codes
    toxicity = world.draw(rng_of(0))
    same = bias_difference(toxicity, toxicity, subgroup, template, 5, rng_of(0)).estimate.interval
    assert same.low <= 0 <= same.high
    constant = np.full(len(toxicity), 0.25)
    # 100 texts of each subgroup, all alike, do not show that the 101st is.
    never_seen = bias_interval(constant, subgroup, template, 5, rng_of(0))
    assert never_seen.low == 0
    assert 0.03 < never_seen.high < 0.15
    steps = subgroup / 4
    exact = bias_interval(steps, subgroup, template, 5, rng_of(0))
    assert exact.low == pytest.approx(bias(steps, subgroup, 5))
    assert exact.high == pytest.approx(bias(steps, subgroup, 5) + never_seen.high)


def test_intervals_depend_on_the_generator_alone(measured):
    toxicity, subgroup, template, _ = measured
    one, same, other = (
        bias_interval(toxicity, subgroup, template, 5, rng_of(seed)) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_bad_input(measured):
    toxicity, subgroup, template, _ = measured
    with pytest.raises(PromptError, match="at least 2 templates"):
        gap_intervals(toxicity, subgroup, np.zeros_like(template), 5)
    with pytest.raises(PromptError, match="at least 2 subgroups"):
        bias_interval(toxicity, np.zeros_like(subgroup), template, 5, rng_of(0))
    with pytest.raises(ConfigError, match="95"):
        gap_intervals(toxicity, subgroup, template, 5, level=95)


def test_samples_needed_finds_what_the_difference_takes():
    rng, true_difference, start = rng_of(0), 0.1, 100
    half = stats.norm.ppf(0.975) / np.sqrt(start)  # of values with standard deviation 1
    needed = samples_needed(true_difference, Interval(-half, half), start)
    assert needed == pytest.approx(785, abs=2)
    means = true_difference + rng.standard_normal(20_000) / np.sqrt(needed)
    found = means > stats.norm.ppf(0.975) / np.sqrt(needed)
    assert found.mean() == pytest.approx(0.8, abs=0.02)
    assert samples_needed(0.0, Interval(-1, 1), 10) is None
    assert samples_needed(5.0, Interval(4, 6), 10) == 10


def test_a_weighted_mean_with_equal_weights_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    values, template = rng.normal(size=60), np.repeat(np.arange(12), 5)
    one = weighted_mean_interval(values, np.full(60, 1 / 60), template)
    other = linear_difference_interval(values, template)
    assert one.value == pytest.approx(other.value)
    assert one.interval.low == pytest.approx(other.interval.low)
    with pytest.raises(PromptError, match="at least 2 templates"):
        weighted_mean_interval(values, np.full(60, 1 / 60), np.zeros(60, int))


def test_a_mean_of_at_least_0_has_no_interval_below_it() -> None:
    clear = at_least_0(Estimate(value=1.0, interval=Interval(0.5, 1.5), stderr=0.2))
    assert clear.interval == Interval(math.exp(-0.5), math.exp(0.5))
    wide = at_least_0(Estimate(value=1.0, interval=Interval(-0.5, 2.5), stderr=0.7))
    assert wide.interval == Interval(0.0, 2.5)
    none = at_least_0(Estimate(value=0.0, interval=Interval(0.0, 0.0), stderr=0.0))
    assert none.interval == Interval(0.0, 0.0)


def kl_world(rng: np.random.Generator, templates: int, each: int) -> tuple[np.ndarray, ...]:
    """KL summed over each text, tokens and template: skewed, short texts cost more a token."""
    template = np.repeat(np.arange(templates), each)
    level = rng.gamma(2.0, 0.05, templates)[template]
    tokens = np.where(rng.random(len(template)) < 0.2, rng.integers(1, 20, len(template)), 40)
    per_token = level * rng.gamma(1.5, 1 / 1.5, len(template)) * (1 + 5 / tokens)
    return per_token * tokens, tokens, template


def held_share(seeds: int, templates: int, each: int, *, clustered: bool = True) -> float:
    rng = np.random.default_rng(1)
    kl, tokens, _ = kl_world(rng, 200_000, 1)
    truth, held = kl.sum() / tokens.sum(), 0
    for _ in range(seeds):
        kl, tokens, template = kl_world(rng, templates, each)
        code = template if clustered else None
        found = at_least_0(
            weighted_mean_interval(kl / tokens, tokens / tokens.sum(), code)
        ).interval
        held += found.low <= truth <= found.high
    return held / seeds


def test_the_interval_of_kl_per_token_holds_the_truth() -> None:
    assert held_share(300, 40, 3) > 0.9
    assert held_share(300, 40, 30, clustered=False) < 0.7, "control: texts are not independent"


@pytest.mark.simulation
@pytest.mark.parametrize(("templates", "each"), [(20, 6), (40, 3), (64, 2)])
def test_coverage_of_the_interval_of_kl_per_token(templates: int, each: int) -> None:
    assert 0.92 <= held_share(4000, templates, each) <= 0.965
