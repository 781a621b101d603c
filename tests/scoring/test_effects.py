"""From shifts to z_bias: the formula, the kink, errors and reliability, on simulated truth."""

from dataclasses import replace

import numpy as np
import pytest

from levelhead.metrics.bias import bias_of_means
from levelhead.scoring.effects import axis_effects, z_bias
from levelhead.scoring.problem import HeadShifts, SampledTexts, group_shifts

LAYERS, HEADS = 4, 5


def simulated(problem, truth: np.ndarray, means: np.ndarray, noise: float, seed: int):
    """Base texts with these subgroup means, and shifts of every text around `truth` [S, L, H]."""
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(len(problem.prompts)), problem.samples)
    sample = np.tile(np.arange(problem.samples), len(problem.prompts))
    subgroup, template = problem.subgroup[prompt], problem.template[prompt]
    toxicity = means[subgroup] + noise * rng.standard_normal(len(prompt))
    base = SampledTexts(
        prompt=prompt, sample=sample, tokens=((),) * len(prompt), texts=("",) * len(prompt),
        toxicity=toxicity,
    )  # fmt: skip
    rows = truth[subgroup] + noise * 0.1 * rng.standard_normal((len(prompt), LAYERS, HEADS))
    shifts = group_shifts(rows, subgroup, template, sample, 3, toxicity, toxicity, {})
    return base, shifts


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return 0.01 * np.random.default_rng(5).standard_normal((3, LAYERS, HEADS))


def test_effect_is_the_change_of_bias(make_problem, truth) -> None:
    """Without noise and with clear gaps: z_bias = bias(T) - bias(T + dT), from metrics.bias."""
    problem = make_problem()
    means = np.array([0.5, 0.2, 0.1])
    base, shifts = simulated(problem, truth, means, 1e-6, 0)
    effects = axis_effects(problem, base, shifts)
    assert effects.used.all()
    moved = np.moveaxis(means[:, None, None] + truth, 0, -1)
    expected = bias_of_means(means, problem.weights) - bias_of_means(moved, problem.weights)
    np.testing.assert_allclose(effects.effect, expected, atol=1e-5)
    assert effects.bias == pytest.approx(float(bias_of_means(means, problem.weights)), abs=1e-4)


def test_standard_errors_cover_the_truth(make_problem, truth) -> None:
    problem = make_problem()
    means = np.array([0.9, 0.3, 0.3])
    z = []
    for seed in range(60):
        base, shifts = simulated(problem, truth, means, 0.1, seed)
        effects = axis_effects(problem, base, shifts)
        used = effects.used
        gap = means @ problem.weights - means
        change = truth - np.tensordot(problem.weights, truth, 1)
        change = -change  # d_s = T_S - T_s
        true_effect = z_bias(gap, change, used)
        z.append((effects.effect - true_effect) / effects.stderr)
    inside = np.mean(np.abs(np.array(z)) < 2.2)  # t quantile for 12 templates
    assert 0.9 < inside < 0.99


def test_a_gap_of_unknown_sign_reverses_no_ranking(make_problem) -> None:
    """The kink: two clear gaps and one that is 0, on which heads act most.

    With each seed's own sign of the third gap two seeds may rank heads in opposite ways; with
    unclear gaps left out they agree.
    """
    problem = make_problem()
    means = np.array([0.6, 0.2, 0.4])
    rng = np.random.default_rng(0)
    truth = np.zeros((3, LAYERS, HEADS))
    truth[0] = 0.003 * rng.standard_normal((LAYERS, HEADS))
    truth[2] = 0.01 * rng.standard_normal((LAYERS, HEADS))
    kept, naive = [], []
    for seed in range(8):
        base, shifts = simulated(problem, truth, means, 0.05, seed)
        effects = axis_effects(problem, base, shifts)
        assert effects.used.tolist() == [True, True, False]
        kept.append(effects.effect.ravel())
        naive.append(z_bias(effects.gap, -effects.gap_effect, np.ones(3, dtype=bool)).ravel())
    pairs = np.triu_indices(8, 1)
    assert np.corrcoef(kept)[pairs].min() > 0.6
    assert np.corrcoef(naive)[pairs].min() < -0.3, "control: own-seed signs reverse the ranking"


def test_a_contradicted_gap_is_not_used(make_problem, truth) -> None:
    problem = make_problem()
    base, shifts = simulated(problem, truth, np.array([0.5, 0.2, 0.1]), 0.01, 0)
    assert axis_effects(problem, base, shifts).used.all()
    opposite = replace(shifts, unbiased=1 - shifts.toxicity)
    effects = axis_effects(problem, base, opposite)
    assert not effects.measurable


def test_reliability_sees_signal_and_is_near_zero_for_shuffled_labels(make_problem, truth) -> None:
    problem = make_problem(samples=4)
    base, shifts = simulated(problem, truth, np.array([0.9, 0.3, 0.1]), 0.02, 0)
    assert axis_effects(problem, base, shifts).reliability > 0.9
    noise: list[float] = []
    for seed in range(10):
        base, shifts = simulated(
            problem, np.zeros_like(truth), np.array([0.3, 0.3, 0.3]), 0.2, seed
        )
        noise.append(axis_effects(problem, base, shifts).reliability)
    assert abs(np.mean(noise)) < 0.35
    assert min(noise) < 0.2


def test_grouping_averages_rows_by_template_and_sample() -> None:
    rows = np.arange(4.0)[:, None, None]
    shifts = group_shifts(
        rows, np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), np.zeros(4, dtype=int), 2,
        np.zeros(4), np.zeros(4), {},
    )  # fmt: skip
    assert isinstance(shifts, HeadShifts)
    assert shifts.count.tolist() == [[2, 1], [0, 1]]
    assert shifts.shift[:, :, 0, 0].tolist() == [[0.5, 2.0], [0.0, 3.0]]
