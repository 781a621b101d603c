"""Expected differences: intervals that do not take the base model's gaps as known."""

import numpy as np
import pytest
from benchmarks.simulation import DIRECTIONS, SUBGROUPS, TextWorld
from scipy import stats

from levelhead.errors import PromptError
from levelhead.metrics.expected import expected_difference_interval

TEMPLATES = 40
# (true bias, what its gaps become as a share; None: heads move them at random)
WORLDS = {"kept": (0.09, 1.0), "halved": (0.09, 0.5), "removed": (0.09, 0.0), "random": (0.0, None)}


def draw(name, rng, direction="one", samples=1):
    """(arguments of the interval, true difference); the shifts of texts are skewed."""
    bias, kept = WORLDS[name]
    world = TextWorld(bias=bias, direction=direction, samples=samples)
    subgroup, template = world.codes
    gap = bias * DIRECTIONS[direction]
    if kept is None:
        moved = rng.normal(0, 0.008, SUBGROUPS)
        moved -= moved.mean()
    else:
        moved = (1 - kept) * gap  # of the means; gaps change by its negative
    truth = np.abs(gap - moved + moved.mean()).sum() - bias
    size = rng.gamma(2, 0.5, (TEMPLATES, 1))
    shift = moved * size + rng.normal(0, 0.01, (TEMPLATES, SUBGROUPS))
    toxicity = world.draw(rng)[1]
    count = np.ones_like(shift)
    return (toxicity, subgroup, template, shift, count, np.arange(TEMPLATES)), truth


def coverage(name, replications, seed, direction, draws=300):
    rng = np.random.default_rng(seed)
    covered = 0
    for _ in range(replications):
        given, truth = draw(name, rng, direction)
        interval = expected_difference_interval(*given, rng, draws=draws).interval
        covered += interval.low <= truth <= interval.high
    return covered / replications


@pytest.mark.parametrize("name", WORLDS)
def test_covered(name):
    assert coverage(name, 60, 1, "one") > 0.93 - 3 * np.sqrt(0.07 * 0.93 / 60)


@pytest.mark.simulation
@pytest.mark.parametrize("direction", ["one", "spread"])
@pytest.mark.parametrize("name", WORLDS)
def test_covered_long(name, direction):
    assert coverage(name, 1500, 2, direction) > 0.93 - 2 * np.sqrt(0.07 * 0.93 / 1500)


def test_control_gaps_taken_as_known_cover_too_little():
    """The same inversion with the noise of T left out: what the interval used to be."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(40):
        (toxicity, subgroup, *rest), truth = draw("random", rng)
        known = np.bincount(subgroup, toxicity) / np.bincount(subgroup)
        given = (known[subgroup], subgroup, *rest)
        interval = expected_difference_interval(*given, rng, draws=200).interval
        covered += interval.low <= truth <= interval.high
    assert covered < 0.7 * 40


def test_clear_gaps_leave_the_interval_of_the_shifts():
    """Gaps far from 0 that are halved: the interval is that of the plain mean of the shifts."""
    world = TextWorld(bias=0.6, direction="one", samples=50, mean=0.4)
    subgroup, template = world.codes
    rng = np.random.default_rng(4)
    shift = 0.3 * DIRECTIONS["one"] + rng.normal(0, 0.002, (TEMPLATES, SUBGROUPS))
    given = (world.draw(rng)[0], subgroup, template, shift, np.ones_like(shift))
    got = expected_difference_interval(*given, np.arange(TEMPLATES), rng)
    signs = np.sign(DIRECTIONS["one"])
    fall = -(shift - shift.mean(axis=1, keepdims=True)) @ signs
    plain = stats.ttest_1samp(fall, 0).confidence_interval()
    assert (got.interval.low, got.interval.high) == pytest.approx(tuple(plain), abs=1e-4)


def test_unclear_gaps_cannot_fall_for_sure():
    given, _ = draw("random", np.random.default_rng(5))
    got = expected_difference_interval(*given, np.random.default_rng(5))
    assert not got.interval.high < 0


def test_some_templates_may_lack_shifts_and_some_entries_texts():
    given, _ = draw("halved", np.random.default_rng(6))
    toxicity, subgroup, template, shift, count, codes = given
    holes = count * (np.arange(SUBGROUPS) != np.arange(TEMPLATES)[:, None] % SUBGROUPS)
    spoiled = np.where(holes > 0, shift, 99.0)
    rest = (subgroup, template, spoiled[:20], holes[:20], codes[:20])
    got = expected_difference_interval(toxicity, *rest, np.random.default_rng(7))
    assert abs(got.value) < 0.1
    one = np.zeros_like(template)
    with pytest.raises(PromptError, match="at least 2 templates"):
        expected_difference_interval(toxicity, subgroup, one, *given[3:], np.random.default_rng(0))
