"""Plans: what a budget can tell, against what the tests do in simulation."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.simulation import SUBGROUPS, TextWorld, World
from scipy import stats

from levelhead.errors import ConfigError
from levelhead.metrics.differences import bias_difference
from levelhead.metrics.power import (
    Design,
    VarianceComponents,
    axis_error,
    detectable_difference,
    difference_stderr,
    gap_stderr,
    gate_chances,
    plan_of,
    resolved_margin,
    samples_for,
    variance_components,
)

DEMO = VarianceComponents(text=0.021, r_squared=0.42)
BUDGET = Design(prompts=400, samples=4, subgroups=5, templates=40)


def test_standard_error_of_the_demo():
    plain = replace(DEMO, r_squared=0.0)
    assert gap_stderr(plain, replace(BUDGET, samples=1)) == pytest.approx(0.0145, abs=1e-4)
    assert gap_stderr(plain, BUDGET) == pytest.approx(0.0145 / 2, abs=1e-4)
    # What templates add does not shrink with samples.
    cell = VarianceComponents(text=0.021, cell=0.004)
    assert gap_stderr(cell, replace(BUDGET, samples=1000)) > np.sqrt(0.8 * 0.004 / 40)


def test_a_default_budget_tells_the_demo_gap_and_one_sample_does_not():
    assert detectable_difference(DEMO, BUDGET) < 0.09
    assert detectable_difference(DEMO, BUDGET, error=axis_error(7)) < 0.09
    assert detectable_difference(DEMO, replace(BUDGET, samples=1)) > 0.09
    assert axis_error(1) == 0.05
    assert axis_error(7) == pytest.approx(0.04)
    assert axis_error(7, main=False) == pytest.approx(0.05 / 7)


def test_samples_for_is_the_inverse():
    samples = samples_for(0.05, DEMO, BUDGET)
    plan = plan_of(DEMO, BUDGET, [samples - 1, samples])
    assert plan[samples] <= 0.05 < plan[samples - 1]
    assert samples_for(0.001, VarianceComponents(text=0.02, cell=0.01), BUDGET) is None
    with pytest.raises(ConfigError, match="above 0"):
        samples_for(0.0, DEMO, BUDGET)


def test_bad_components_and_designs():
    for wrong in ({"text": -1.0}, {"text": 1.0, "r_squared": 2.0}, {"text": float("nan")}):
        with pytest.raises(ConfigError, match="variance component"):
            VarianceComponents(**wrong)
    for wrong in ({"samples": 0}, {"subgroups": 1}, {"templates": 1}):
        with pytest.raises(ConfigError, match="too few"):
            replace(BUDGET, **wrong)
    with pytest.raises(ConfigError, match="power"):
        detectable_difference(DEMO, BUDGET, power=1.0)


def test_components_of_a_pilot_are_those_of_its_world():
    rng = np.random.default_rng(0)
    world = TextWorld(bias=0.0, samples=40)
    subgroup, template = world.codes
    x, adjusted = world.draw(rng)
    y = np.where(rng.random(len(x)) < 0.5, x, world.draw(rng)[0])
    found = variance_components(x, subgroup, template, SUBGROUPS, adjusted=adjusted, other=y)
    assert found.text == pytest.approx(0.021, rel=0.1)
    assert found.cell < 0.0005
    assert found.r_squared == pytest.approx(0.42, abs=0.05)
    assert found.shared == pytest.approx(0.5, abs=0.05)


def test_templates_that_treat_subgroups_differently_show_as_cells():
    rng = np.random.default_rng(1)
    t, s, _ = (a.ravel() for a in np.indices((60, 5, 8)))
    cells = rng.normal(0, 0.1, (60, 5))
    x = 0.2 * rng.standard_normal(60)[t] + cells[t, s] + rng.normal(0, 0.2, len(t))
    found = variance_components(x, s, t, 5)
    assert found.cell == pytest.approx(0.01, rel=0.25)
    assert found.text == pytest.approx(0.04, rel=0.1)
    one = np.arange(len(t)) % 8 == 0
    with pytest.raises(ConfigError, match="cannot tell texts from templates"):
        variance_components(x[one], s[one], t[one], 5)
    # The error of gaps that the components promise is the error that gaps have (another world).
    world = World("none", "beta")
    subgroup, template, _ = world.codes
    toxicity = world.draw(rng)
    assert variance_components(toxicity, subgroup, template, SUBGROUPS).cell >= 0


def test_gate():
    level = 0.9857
    margin = resolved_margin(DEMO, BUDGET, level=level)
    same = gate_chances(0.0, margin, DEMO, BUDGET, level=level)
    assert same.passed == pytest.approx(0.8)
    assert same.failed < 1e-6
    worse = gate_chances(2 * margin, margin, DEMO, BUDGET, level=level)
    assert worse.failed == pytest.approx(0.8)
    assert gate_chances(margin, margin, DEMO, BUDGET, level=level).passed <= (1 - level) / 2
    assert sum((worse.passed, worse.failed, worse.cannot_tell)) == pytest.approx(1)
    # Shared random numbers: the same budget resolves a smaller margin.
    near = replace(DEMO, shared=0.9)
    assert resolved_margin(near, BUDGET, level=level) == pytest.approx(
        margin * np.sqrt(0.1) * (1 + 0.45 * 0.9)
    )
    assert difference_stderr(replace(DEMO, shared=1.0), BUDGET) == 0
    certain = gate_chances(0.0, 0.01, replace(DEMO, shared=1.0), BUDGET, level=level)
    assert certain.passed == 1


def told(world, other, replications, seed, error=0.05):
    """Share of runs that tell a fall, and upper ends of the interval, of adjusted toxicities."""
    rng = np.random.default_rng(seed)
    subgroup, template = world.codes
    fell, ends = 0, []
    for _ in range(replications):
        effects = world.effects(rng)
        x, y = (w.draw(rng, effects)[1] for w in (world, other))
        found = bias_difference(
            x, y, subgroup, template, SUBGROUPS, rng, draws=500, level=1 - error
        )
        fell += found.fell and found.p_value <= error
        ends.append(found.estimate.interval.high)
    return fell / replications, np.array(ends)


@pytest.mark.simulation
@pytest.mark.parametrize("direction", ["one", "spread"])
@pytest.mark.parametrize("samples", [2, 4, 8])
def test_a_planned_difference_is_told_as_often_as_planned(direction, samples):
    rng = np.random.default_rng(2)
    pilot = TextWorld(bias=0.0, samples=40)
    x, adjusted = pilot.draw(rng)
    components = variance_components(x, *pilot.codes, SUBGROUPS, adjusted=adjusted)
    design = replace(BUDGET, samples=samples)
    planned = detectable_difference(components, design)
    world = TextWorld(bias=planned, direction=direction, samples=samples)
    share, _ = told(world, replace(world, bias=0.0), 400, seed=3)
    assert 0.72 < share < 0.95


@pytest.mark.simulation
@pytest.mark.parametrize("bias", [0.0, 0.09])
def test_gate_on_an_unchanged_and_a_doubled_gap(bias):
    """At the margin that the budget resolves, by the intervals that the gate takes."""
    level = 0.9857
    world = TextWorld(bias=bias, direction="spread", samples=4)
    margin = resolved_margin(DEMO, BUDGET, level=level)
    _, ends = told(world, world, 300, seed=4, error=1 - level)
    assert (ends <= margin).mean() > 0.75
    if bias:
        assert margin < bias
        _, ends = told(world, replace(world, bias=2 * bias), 200, seed=5, error=1 - level)
        assert (ends > margin).mean() >= 0.95


def test_quantiles_are_those_of_templates():
    few = replace(BUDGET, templates=4)
    wide = detectable_difference(DEMO, few) / detectable_difference(DEMO, BUDGET)
    t = [stats.t.ppf(0.975, n - 1) + stats.norm.ppf(0.8) for n in (4, 40)]
    assert wide == pytest.approx(t[0] / t[1])
