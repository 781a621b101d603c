"""Planned looks: levels that add up, and nested looks that hold the error together."""

import numpy as np
import pytest
from benchmarks.simulation import SUBGROUPS, TextWorld
from scipy import stats

from levelhead.errors import ConfigError
from levelhead.metrics.differences import bias_difference
from levelhead.metrics.looks import look_level, look_levels


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
@pytest.mark.parametrize("planned", [(1,), (1, 4), (1, 2, 4, 8), (4, 5)])
def test_levels_add_up(planned, spending):
    levels = look_levels(planned, 0.05, spending)
    assert sum(levels) == pytest.approx(0.05)
    assert all(level > 0 for level in levels)
    assert look_level(planned[-1], planned, 0.05, spending) == levels[-1]


def test_what_is_spent():
    assert look_levels([1, 4]) == pytest.approx((0.0000888, 0.0499112), abs=1e-5)
    assert look_levels([1, 4], spending="pocock") == pytest.approx((0.0179, 0.0321), abs=1e-4)


def test_no_look_that_was_not_planned():
    with pytest.raises(ConfigError, match="not among the planned"):
        look_level(2, [1, 4])
    for wrong in ([], [0, 4], [4, 4], [4, 1]):
        with pytest.raises(ConfigError, match="do not ascend"):
            look_levels(wrong)
    with pytest.raises(ConfigError, match="alpha"):
        look_levels([1, 4], 1.5)


def z_of_looks(replications, seed, planned=(1, 4)):
    """z values of nested means of noise at each look."""
    rng = np.random.default_rng(seed)
    total = np.cumsum(rng.standard_normal((replications, planned[-1])), axis=1)
    return np.stack([total[:, k - 1] / np.sqrt(k) for k in planned], axis=1)


def test_nested_looks_hold_the_error_and_unplanned_ones_do_not():
    p = 2 * stats.norm.sf(np.abs(z_of_looks(100_000, 0)))
    for spending in ("obrien-fleming", "pocock"):
        wrong = (p <= look_levels([1, 4], 0.05, spending)).any(axis=1).mean()
        assert wrong < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100_000)
    assert (p <= 0.05).any(axis=1).mean() > 0.08  # the control


@pytest.mark.simulation
@pytest.mark.parametrize("bias", [0.0, 0.09])
def test_nested_looks_at_differences_of_bias(bias):
    """Samples of the first look are among those of the second; nothing changes."""
    rng = np.random.default_rng(1)
    world = TextWorld(bias=bias, samples=4)
    subgroup, template = world.codes
    first = np.arange(len(subgroup)) % 4 == 0
    wrong = 0
    levels = look_levels([1, 4], spending="pocock")
    for _ in range(600):
        effects = world.effects(rng)
        x, y = (world.draw(rng, effects)[1] for _ in range(2))
        p = [
            bias_difference(
                x[at], y[at], subgroup[at], template[at], SUBGROUPS, rng, draws=500
            ).p_value
            for at in (first, slice(None))
        ]
        wrong += any(found <= level for found, level in zip(p, levels, strict=True))
    assert wrong / 600 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
