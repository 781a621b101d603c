"""Words for differences: Holm, the common factor, and how often each word is false.

The worlds are those in which texts are the noise (`TextWorld`): a gap's standard error is 0.0145
with 400 texts. The default tier repeats a few times; the simulation tier states the limits.
"""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.simulation import SUBGROUPS, TextWorld, judged_share, text_evidence
from scipy import stats

from levelhead.errors import ConfigError
from levelhead.metrics.bias import gaps
from levelhead.metrics.differences import (
    BiasDifference,
    CommonFactor,
    bias_difference,
    common_factor,
    harmless_floor,
    relative_difference_interval,
)
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.metrics.verdicts import Evidence, holm, main_weights, verdicts
from levelhead.records import Estimate, Interval


def difference(low, high, p, value=None):
    value = (low + high) / 2 if value is None else value
    return BiasDifference(estimate=Estimate(value=value, interval=Interval(low, high)), p_value=p)


FELL, SAME, ROSE = (
    difference(-0.1, -0.02, 0.001),
    difference(-0.05, 0.04, 0.8),
    difference(0.02, 0.1, 0.001),
)
LESS_TOXIC = Estimate(value=-0.02, interval=Interval(-0.03, -0.01))
AS_TOXIC = Estimate(value=0.0, interval=Interval(-0.01, 0.01))


def evidence(change, beyond=FELL, factor=0.8, toxicity=LESS_TOXIC, **more):
    known = None if beyond is None else CommonFactor(factor=factor, beyond=beyond)
    return Evidence(difference=change, factor=known, toxicity=toxicity, **more)


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (evidence(FELL), "lower"),
        (evidence(FELL, SAME), "less toxic for everyone"),
        (evidence(FELL, ROSE), "less toxic for everyone"),
        (evidence(FELL, SAME, toxicity=AS_TOXIC), "not distinguishable"),
        (evidence(FELL, SAME, factor=1.1, toxicity=AS_TOXIC), "lower"),
        (evidence(FELL, None), "not distinguishable"),
        (evidence(ROSE, ROSE), "higher"),
        (evidence(SAME), "not distinguishable"),
        (evidence(SAME, plain=FELL), "echo only"),
        (evidence(SAME, plain=FELL, echo=LESS_TOXIC), "echo only"),
        (evidence(SAME, plain=FELL, echo=AS_TOXIC), "not distinguishable"),
        (evidence(SAME, plain=ROSE), "not distinguishable"),
        (evidence(FELL, plain=FELL), "lower"),
        # Rounding: the interval excludes 0, the difference does not differ.
        (evidence(difference(-2e-16, -1e-16, 0.001)), "not distinguishable"),
        (evidence(difference(1e-9, 2e-9, 0.001)), "not distinguishable"),
    ],
)
def test_words(row, word):
    judged = verdicts({"axis": row})["axis"]
    assert judged.verdict == word
    if word in {"echo only", "less toxic for everyone"}:
        assert judged.reason


def test_holm_is_holm():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.04, 0.04], [0.8, 0.2]) == pytest.approx((0.05, 0.05))
    assert holm([0.03, 0.04], [2, 2]) == holm([0.03, 0.04])
    for p, weights, why in (
        ([1.2], None, "between 0 and 1"),
        ([0.5, 0.5], [1.0], "1 weights for 2"),
        ([0.5], [0.0], "above 0"),
        ([0.5], [np.inf], "above 0"),
    ):
        with pytest.raises(ConfigError, match=why):
            holm(p, weights)


@pytest.mark.parametrize("weights", [None, (0.8, 0.1, 0.1)])
def test_holm_holds_the_error_for_whatever_is_true(weights):
    """Correlated p-values of true and false nulls: the chance of any false rejection is 5%."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((4000, 1))
    z = 0.6 * shared + 0.8 * rng.standard_normal((4000, 3)) + np.array([3.0, 0, 0])
    p = 2 * stats.norm.sf(np.abs(z))
    false = [min(holm(row, weights)[1:]) <= 0.05 for row in p]
    assert np.mean(false) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
    unadjusted = (p[:, 1:].min(axis=1) <= 0.05).mean()
    assert unadjusted > 0.07  # the control


def test_weights_of_a_main_axis():
    assert main_weights(["a", "b", "c"], "a") == pytest.approx((0.8, 0.1, 0.1))
    assert main_weights(["a", "b"], None) == (1.0, 1.0)
    assert main_weights(["a"], "a") == (1.0,)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        verdicts({}, error=5)


def test_one_axis_among_many_needs_a_smaller_p_value():
    near = evidence(difference(-0.1, -0.001, 0.04), difference(-0.1, -0.001, 0.04))
    rows = {"main": near} | {str(i): evidence(SAME) for i in range(6)}
    assert verdicts({"main": near})["main"].verdict == "lower"
    assert verdicts(rows)["main"].verdict == "not distinguishable"
    assert verdicts(rows, weights=main_weights(list(rows), "main"))["main"].verdict == "lower"


@pytest.mark.parametrize(
    "world",
    [TextWorld(bias=0.0, direction="spread"), TextWorld(bias=0.2, direction="spread", samples=4)],
)
def test_p_values_and_intervals_agree(world):
    rng = np.random.default_rng(3)
    seen = set()
    for bias in (0.0, 0.03, 0.09, 0.2):
        row = text_evidence(world, replace(world, bias=bias), rng, draws=300)
        for found in (row.difference, row.factor.beyond):
            assert found.estimate.distinguishable == (found.p_value <= 0.05)
            seen.add(found.estimate.distinguishable)
            assert found.estimate.interval.low < found.value < found.estimate.interval.high
    assert seen == {True, False}


def test_p_values_shrink_with_the_difference_and_are_symmetric():
    world = TextWorld(bias=0.1, samples=4)
    subgroup, template = world.codes
    x, y = (replace(world, bias=b).draw(np.random.default_rng(0))[0] for b in (0.1, 0.0))
    half = np.where(np.random.default_rng(1).random(len(x)) < 0.5, x, y)
    found = [
        bias_difference(x, other, subgroup, template, SUBGROUPS, np.random.default_rng(2))
        for other in (x, half, y)
    ]
    assert found[0].p_value == 1.0
    assert found[0].value == 0
    assert found[0].p_value > found[1].p_value >= found[2].p_value
    back = bias_difference(y, x, subgroup, template, SUBGROUPS, np.random.default_rng(2))
    assert found[2].fell
    assert not back.fell
    assert back.p_value == pytest.approx(found[2].p_value, abs=0.02)


def test_the_common_factor_is_that_of_the_excess():
    world = TextWorld(bias=0.09, samples=2)
    subgroup, template = world.codes
    x, _ = world.draw(np.random.default_rng(0))
    thinned = world.floor + 0.35 * (x - world.floor)
    given = (x, thinned, subgroup, template, SUBGROUPS)
    found = common_factor(*given, world.floor, np.random.default_rng(1))
    assert found.factor == pytest.approx(0.35)
    assert found.beyond.value == pytest.approx(0, abs=1e-12)
    assert not found.beyond.estimate.distinguishable
    assert found.beyond.p_value == 1.0
    # Against mean toxicity itself, floor and all, the same thing passes for a fall: the control.
    wrong = common_factor(*given, 0.0, np.random.default_rng(1))
    assert wrong.beyond.estimate.interval.high < 0
    relative = [
        relative_difference_interval(*given, np.random.default_rng(1), floor=floor)
        for floor in (world.floor, 0.0)
    ]
    assert relative[0].high > -1e-9
    assert relative[1].high < 0
    # A mean at the floor has no factor, and a model below the floor has factor 0.
    none = np.full(len(x), 0.036) + np.random.default_rng(2).normal(0, 0.1, len(x))
    assert common_factor(none, x, *given[2:], 0.036, np.random.default_rng(1)) is None
    gone = common_factor(x, 0 * x, *given[2:], 0.036, np.random.default_rng(1))
    assert gone.factor == 0
    assert gone.beyond.value == 0


@pytest.mark.parametrize(("share", "word"), [(0.0, False), (0.03, True)])
def test_the_others_must_fall_too_for_everyone(share, word):
    """Of one group 8% is toxic and of the others `share`; then a quarter is left of each."""
    templates, each, subgroups = 60, 6, 5
    cells = np.repeat(np.arange(templates * subgroups), each)
    template, subgroup = np.divmod(cells, subgroups)
    told = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rate = np.where(subgroup == 0, 0.08, share)
        x = (rng.random(len(cells)) < rate).astype(float)
        y = x * (rng.random(len(cells)) < 0.25)
        given = (x, y, subgroup, template, subgroups)
        row = Evidence(
            difference=bias_difference(*given, rng, draws=500),
            factor=common_factor(*given, 0.0, rng, draws=500),
            toxicity=linear_difference_interval(y - x, template),
        )
        told.append(verdicts({"it": row})["it"].verdict)
    assert told.count("lower") <= 1, told
    assert ("less toxic for everyone" in told) == word, told


def test_floor_of_harmless_texts():
    world = TextWorld(bias=0.09, samples=4, harmless=0.01)
    x, _ = world.draw(np.random.default_rng(0))
    assert harmless_floor(0.036, x, x) > 0.036
    assert harmless_floor(0.2, x, x) == 0.2


def test_gaps_of_the_text_world_are_as_noisy_as_the_demo():
    world = TextWorld(bias=0.0)
    rng = np.random.default_rng(0)
    found = [gaps(world.draw(rng)[0], world.codes[0], SUBGROUPS) for _ in range(400)]
    assert np.std(found) == pytest.approx(0.0145, abs=0.0015)
    plain, adjusted = replace(world, samples=100).draw(rng)
    assert np.var(adjusted) / np.var(plain) == pytest.approx(0.58, abs=0.03)
    assert adjusted.mean() == pytest.approx(plain.mean(), abs=0.003)


def test_a_removed_gap_is_lower_and_a_thinned_one_is_not():
    world = TextWorld(bias=0.09, samples=4)
    removed = judged_share(world, replace(world, bias=0.0), 12, seed=1, draws=300)
    assert removed.get("lower", 0) >= 0.8
    thinned = judged_share(world, replace(world, kept=0.35), 12, seed=2, draws=300)
    assert thinned.get("lower", 0) <= 0.1
    assert thinned["less toxic for everyone"] >= 0.7


LIMIT = 0.05
"""Of runs; simulated shares get three binomial standard errors on top."""


def limit(replications):
    return LIMIT + 3 * np.sqrt(LIMIT * (1 - LIMIT) / replications)


NULLS = [
    TextWorld(bias=0.0, kind="near-binary"),
    TextWorld(bias=0.0, samples=4),
    TextWorld(bias=0.09),
    TextWorld(bias=0.09, direction="spread"),
    TextWorld(bias=0.09, direction="spread", kind="near-binary", samples=4),
]


@pytest.mark.simulation
@pytest.mark.parametrize("world", NULLS, ids=str)
@pytest.mark.parametrize("main", [True, False])
def test_nothing_changes_on_seven_axes(world, main):
    said = judged_share(world, world, 100, seed=5, axes=7, main=main, draws=1000)
    assert said.get("lower", 0) <= limit(100)
    assert said.get("higher", 0) <= limit(100)


@pytest.mark.simulation
@pytest.mark.parametrize("world", NULLS, ids=str)
@pytest.mark.parametrize("harmless", [0.0, 0.008])
def test_less_toxicity_for_everybody_is_not_lower(world, harmless):
    before = replace(world, harmless=harmless)
    said = judged_share(before, replace(before, kept=0.35), 500, seed=6)
    assert said.get("lower", 0) <= limit(500)


@pytest.mark.simulation
@pytest.mark.parametrize("kind", ["skewed", "near-binary"])
@pytest.mark.parametrize("direction", ["one", "spread"])
def test_a_removed_gap_is_told_with_four_samples(kind, direction):
    world = TextWorld(bias=0.09, direction=direction, kind=kind, samples=4)
    gone = replace(world, bias=0.0)
    assert judged_share(world, gone, 200, seed=7)["lower"] >= 0.8
    # The axis that heads were selected for, among seven.
    among = judged_share(world, gone, 40, seed=8, axes=7, main=True, draws=1000)
    assert among["main: lower"] >= 0.8
