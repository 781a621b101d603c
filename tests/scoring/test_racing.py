"""The race finds the exhaustive set, saves work, and says how often it may be wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levelhead.scoring.racing import ERROR, FIRST, Race, race_top

HEADS, PROTECTED = 270, 81
MEAN_SPREAD = 1.2
TAILS = {"normal": None, "t with 5": 5, "t with 3": 3}


class Oracle:
    """Known effects; counts what was asked for."""

    def __init__(self, effects: np.ndarray) -> None:
        self.effects, self.calls = effects, 0

    def __call__(self, heads: np.ndarray, window: int) -> np.ndarray:
        self.calls += len(heads)
        return self.effects[window, heads]


def population(
    rng: np.random.Generator, windows: int, tails: int | None, screen_noise: float = 0.3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(effects, linear, fisher) with spreads and correlations as measured on SmolLM2-135M.

    A screen's slope is 1 +- 0.3, and the variance of what it misses differs between heads by a
    factor of e (one sigma). In units of that spread between windows, means are MEAN_SPREAD apart.
    """
    size = (windows, HEADS)
    spread = np.exp(0.55 * rng.standard_normal(HEADS))
    fisher = spread * np.exp(0.7 * rng.standard_normal(size))
    predicted = spread * rng.standard_normal(size)
    if tails is None:
        rest = rng.standard_normal(size)
    else:
        rest = rng.standard_t(tails, size) / np.sqrt(tails / (tails - 2))
    missed = screen_noise * spread * np.exp(0.5 * rng.standard_normal(HEADS))
    slope = 1 + 0.3 * rng.standard_normal(HEADS)
    mean = MEAN_SPREAD * rng.gamma(1.0, 1.0, HEADS) * np.exp(0.3 * rng.standard_normal(HEADS))
    return mean + slope * predicted + missed * rest, predicted, fisher


def exhaustive_set(effects: np.ndarray, count: int) -> np.ndarray:
    mean = effects.mean(0)
    return mean > np.sort(mean)[::-1][count]


def raced(seed: int, windows: int, tails: int | None, **how: float) -> tuple[Race, np.ndarray]:
    rng = np.random.default_rng(seed)
    effects, linear, fisher = population(rng, windows, tails, **how)
    return race_top(Oracle(effects), linear, fisher, PROTECTED, rng), effects


@pytest.mark.parametrize("tails", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("windows", [16, 32])
def test_the_set_is_the_exhaustive_one_but_for_the_stated_probability(
    windows: int, tails: int | None
) -> None:
    runs = 1920 // windows
    wrong, shares = 0, []
    for seed in range(runs):
        race, effects = raced(seed, windows, tails)
        wrong += bool((race.top != exhaustive_set(effects, PROTECTED)).any())
        shares.append(race.seen.mean())
    assert wrong <= runs * ERROR
    assert np.mean(shares) < (0.6 if windows == 16 else 0.45), "work is saved"


def test_placing_heads_by_their_first_windows_would_be_wrong() -> None:
    wrong = 0
    for seed in range(10):
        effects, linear, _ = population(np.random.default_rng(seed), 16, None)
        naive = exhaustive_set(effects[:8] - linear[:8], PROTECTED)
        wrong += bool((naive != exhaustive_set(effects, PROTECTED)).any())
    assert wrong >= 9, "control: the error probability is not met by a task that is easy"


def test_a_screen_that_says_nothing_costs_work_but_not_the_set() -> None:
    good, _ = raced(0, 16, None)
    rng = np.random.default_rng(0)
    effects, linear, fisher = population(rng, 16, None)
    blind = race_top(Oracle(effects), linear[:, ::-1], fisher[:, ::-1], PROTECTED, rng)
    np.testing.assert_array_equal(blind.top, exhaustive_set(effects, PROTECTED))
    assert blind.seen.mean() > good.seen.mean() + 0.05


def test_only_what_is_reported_was_measured_and_estimates_rank_as_the_set_does() -> None:
    rng = np.random.default_rng(3)
    effects, linear, fisher = population(rng, 16, None)
    oracle = Oracle(effects)
    race = race_top(oracle, linear, fisher, PROTECTED, rng)
    assert oracle.calls == race.seen.sum()
    assert (race.seen.sum(0) >= FIRST).all()
    mean = race.values.mean(0)
    assert mean[race.top].min() > mean[~race.top].max()
    everywhere = race.seen.all(0)
    assert 0 < everywhere.sum() < HEADS
    np.testing.assert_allclose(mean[everywhere], effects.mean(0)[everywhere], rtol=1e-3)
    left = ~everywhere
    error = np.abs(mean - effects.mean(0))[left] / race.stderr[left]
    assert np.mean(error < 2) > 0.95, "of effects that were not fully measured, too"
    own = effects.std(0, ddof=1) / 4
    np.testing.assert_allclose(race.stderr[everywhere], own[everywhere], rtol=1e-3)


def test_heads_that_tie_at_the_boundary_are_out() -> None:
    rng = np.random.default_rng(0)
    effects = rng.standard_normal((8, 12))
    effects[:, :4] += 50
    effects[:, 4:7] = effects[:, 4:5]  # ranks 5 to 7 of 12
    effects[:, 4:7] += 20
    race = race_top(Oracle(effects), effects, effects**2, 6, rng)
    assert np.flatnonzero(race.top).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [0, 12])
def test_nothing_and_everything_need_no_race(count: int) -> None:
    rng = np.random.default_rng(0)
    effects = rng.standard_normal((8, 12))
    race = race_top(Oracle(effects), effects, effects**2, count, rng)
    assert race.top.sum() == count
    assert race.seen.sum() == FIRST * 12
    assert np.isfinite(race.values).all()
    assert np.isfinite(race.stderr).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    windows=st.integers(2, 9),
    heads=st.integers(2, 20),
    dead=st.integers(0, 5),
    share=st.floats(0, 1),
)
def test_any_shape_ends_in_a_finite_answer(
    seed: int, windows: int, heads: int, dead: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    effects, linear, fisher = (rng.standard_normal((windows, heads)) for _ in range(3))
    for grid in (effects, linear, fisher):
        grid[:, :dead] = 0
    count = int(share * heads)
    race = race_top(Oracle(effects), linear, fisher**2, count, rng)
    assert race.top.sum() <= count
    assert np.isfinite(race.stderr).all()
    mean = race.values.mean(0)
    if race.top.any() and not race.top.all():
        assert mean[race.top].min() > mean[~race.top].max()
