"""From shifts to z_bias: the formula, the kink, errors and reliability, on simulated truth."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from worlds import TEXT_NOISE, World, simulated_problem

from levelhead.metrics.bias import bias_of_means
from levelhead.scoring.effects import axis_effects, split_half_reliability, z_bias
from levelhead.scoring.perplexity_effects import PerplexityEffects
from levelhead.scoring.problem import HeadShifts, SampledTexts, group_shifts
from levelhead.scoring.score_table import score_details, unreliable

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


def agreement(world: World, problem, runs: int) -> tuple[float, list[float], list[float]]:
    """(Spearman of two runs, reliability of each, the same had halves shared the run's gaps)."""
    found = [world.run(problem, np.random.default_rng([seed, 1]))[2] for seed in range(runs)]
    z = np.array([one.effect.ravel() for one in found])
    between = stats.spearmanr(z, axis=1).statistic[np.triu_indices(runs, 1)]
    shared = []
    for one in found:
        halves = one.gap_halves
        used = np.broadcast_to(one.used, halves.used.shape)
        shared.append(split_half_reliability(z_bias(halves.gap, halves.change, used)))
    return float(between.mean()), [one.reliability for one in found], shared


def test_halves_do_not_agree_on_a_gap_that_is_not_there() -> None:
    """Heads act on subgroups, which do not differ: two runs rank by gaps of chance, and disagree.

    Control: had the whole run told both halves which gap to use, they would look reliable.
    """
    problem = simulated_problem(5, 40, 2)
    shift = 0.005 * np.random.default_rng(7).standard_normal((5, LAYERS, 18))
    world = World(means=np.full(5, 0.2), shift=shift)
    between, reliability, shared = agreement(world, problem, 24)
    assert abs(between) < 0.15
    assert abs(np.mean(reliability)) < 0.3
    assert np.mean(np.array(reliability) >= 0.5) <= 0.15
    assert np.mean(shared) > 0.35


@pytest.mark.simulation
@pytest.mark.parametrize("clear", [0, 3, 6])
def test_reliability_is_the_agreement_of_two_runs(clear: float) -> None:
    """Gaps of so many standard errors: reliability foretells how far another run agrees."""
    problem = simulated_problem(5, 40, 2)
    shift = 0.005 * np.random.default_rng(7).standard_normal((5, 6, 15))
    error = TEXT_NOISE * np.sqrt(1 / 80 - 1 / 400)
    means = 0.2 + clear * error * np.array([-1, 1, -0.5, 0.5, 0])
    between, reliability, shared = agreement(World(means=means, shift=shift), problem, 60)
    interval = 1.96 * np.std(reliability, ddof=1) / np.sqrt(len(reliability))
    assert abs(np.mean(reliability) - between) < interval + 0.1
    if clear == 0:
        assert abs(np.mean(reliability)) < interval + 0.05
    if clear < 6:
        assert np.mean(shared) > between + 0.1, "control: shared gaps look more reliable"


def test_a_half_without_texts_of_a_subgroup_does_not_use_its_gap() -> None:
    """Of three templates, subgroup s2 is in one alone: half of the halves know nothing of it."""
    problem = simulated_problem(3, 4, 2)
    kept = [p for p in problem.prompts if p.subgroup != "s2" or p.template == "t000"]
    problem = replace(problem, prompts=tuple(kept))
    shift = 0.01 * np.random.default_rng(7).standard_normal((3, LAYERS, HEADS))
    _, _, effects = World(means=np.array([0.2, 0.5, 0.9]), shift=shift).run(
        problem, np.random.default_rng(0)
    )
    assert np.isfinite(effects.halves).all()
    assert np.isfinite(effects.reliability)


def test_the_reason_why_no_gap_is_used_is_the_true_one(make_problem, truth) -> None:
    """Clear gaps that the scorer's own answers contradict are not called unclear."""
    problem = make_problem()
    base, shifts = simulated(problem, truth, np.array([0.5, 0.2, 0.1]), 0.01, 0)
    opposite = axis_effects(problem, base, replace(shifts, unbiased=1 - shifts.toxicity))
    (said,) = no_gap(opposite)
    assert "on the other side of 0" in said
    assert "cannot be told" not in said
    assert "can be told from 0" not in said
    base, shifts = simulated(problem, truth, np.array([0.3, 0.3, 0.3]), 0.2, 0)
    (said,) = no_gap(axis_effects(problem, base, shifts))
    assert "can be told from 0" in said
    assert "times as many samples" in said


def no_gap(effects) -> list[str]:
    details = score_details(
        PerplexityEffects(base_nll=np.ones(2), nll_change=np.zeros((2, LAYERS, HEADS))), [effects]
    )
    return [one for one in unreliable(details, effects.axis) if "no subgroup gap" in one]


def test_grouping_averages_rows_by_template_and_sample() -> None:
    rows = np.arange(4.0)[:, None, None]
    shifts = group_shifts(
        rows, np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), np.zeros(4, dtype=int), 2,
        np.zeros(4), np.zeros(4), {},
    )  # fmt: skip
    assert isinstance(shifts, HeadShifts)
    assert shifts.count.tolist() == [[2, 1], [0, 1]]
    assert shifts.shift[:, :, 0, 0].tolist() == [[0.5, 2.0], [0.0, 3.0]]
