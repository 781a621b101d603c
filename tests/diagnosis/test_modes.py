"""Two modes and drift are found; clean seeds, outliers, rounding and layers are no alarm."""

from collections.abc import Callable

import numpy as np
import pytest

from levelhead.diagnosis.by_seed import SeedScores
from levelhead.diagnosis.modes import drift, modes

Draw = Callable[[np.random.Generator, int], np.ndarray]


def outliers(rng: np.random.Generator, n: int) -> np.ndarray:
    """One in 24 heads far away, all at the same place: the hardest case."""
    values = rng.normal(size=n)
    values[rng.permutation(n)[: n // 24]] += 30
    return values


CLEAN: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "log-normal": lambda rng, n: rng.lognormal(0, 1, n),
    "heavy tails": lambda rng, n: rng.standard_t(3, n),
    "outliers": outliers,
    "layers differ": lambda rng, n: np.repeat(rng.normal(size=n // 12), 12) + rng.normal(size=n),
    "rounded": lambda rng, n: np.round(0.115 + 0.004 * rng.normal(size=n), 2),
}


def ids(n: int) -> list[tuple[int, int]]:
    return [divmod(i, 12) for i in range(n)]


def scores(mean_toxicity: np.ndarray) -> SeedScores:
    seeds, n = mean_toxicity.shape
    return SeedScores(
        axis="gender",
        seeds=tuple(range(seeds)),
        heads=tuple(ids(n)),
        bias=mean_toxicity,
        mean_toxicity=mean_toxicity,
        ppl=mean_toxicity,
    )


@pytest.mark.parametrize("kind", CLEAN)
@pytest.mark.parametrize("heads", [24, 72, 144])
def test_clean_seeds_give_no_alarm(kind: str, heads: int) -> None:
    rng = np.random.default_rng(1)
    draws = 600
    alarms = sum(modes(CLEAN[kind](rng, heads), ids(heads)) is not None for _ in range(draws))
    # A table has several seeds and axes; 3 of 600 would be 0.5% for each of them.
    assert alarms <= 3 if heads == 24 else alarms == 0


def test_a_published_kind_of_bimodal_run_is_described() -> None:
    """0.14 or 0.53, in runs of head ids, with stray heads between them."""
    rng = np.random.default_rng(2)
    high = np.repeat([True, False, True, False], [60, 90, 100, 134])
    values = np.where(high, 0.527, 0.139) + 0.005 * rng.normal(size=384)
    values[[7, 200, 300]] = [0.18, 0.30, 0.45]
    found = modes(values, ids(384))
    assert found is not None
    assert found.low == pytest.approx(0.139, abs=0.002)
    assert found.high == pytest.approx(0.527, abs=0.002)
    assert found.heads_low + found.heads_high == 384
    assert abs(found.heads_high - 160) <= 3
    assert found.switches <= 3 + 6
    assert found.switches_by_chance > 150
    assert found.first_switch in {(0, 7), (5, 0)}


@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
@pytest.mark.parametrize("heads", [24, 72, 1024])
def test_modes_ten_deviations_apart_are_found(heads: int, share: float) -> None:
    rng = np.random.default_rng(3)
    inside = max(5, round(share * heads))
    inside = min(inside, heads - 5)
    for _ in range(20):
        high = rng.permutation(heads) < inside
        assert modes(np.where(high, 10.0, 0.0) + rng.normal(size=heads), ids(heads)) is not None


def test_two_exact_values_are_two_modes_but_one_decimal_step_is_not() -> None:
    high = np.arange(72) % 3 == 0
    assert modes(np.where(high, 0.53, 0.14), ids(72)) is not None
    assert modes(np.where(high, 0.12, 0.11), ids(72)) is None
    assert modes(np.full(72, 0.14), ids(72)) is None


def test_few_heads_are_not_judged() -> None:
    assert modes(np.array([0.1] * 9 + [0.9] * 9), ids(18)) is None


def test_drift_is_found_in_the_seed_that_drifts() -> None:
    rng = np.random.default_rng(4)
    clean = rng.normal(size=(3, 144))
    step = np.where(np.arange(144) < 48, 0.0, 3.5)
    found = drift(scores(clean + np.outer([0, 1, 0], step)))
    assert list(found) == [1]
    assert abs(found[1].change[0] * 12 + found[1].change[1] - 48) <= 6
    assert found[1].before == pytest.approx(0, abs=0.5)
    assert found[1].after == pytest.approx(3.5, abs=0.5)
    trend = np.linspace(0, 6, 144)
    assert list(drift(scores(clean + np.outer([0, 0, 1], trend)))) == [2]
    assert list(drift(scores(clean[:2] + np.outer([0, 1], trend)))) == [1]


def test_layers_that_differ_in_every_seed_are_no_drift() -> None:
    rng = np.random.default_rng(5)
    layers = np.repeat(np.linspace(0, 8, 12), 12)
    values = layers + rng.normal(size=(3, 144))
    assert drift(scores(values)) == {}
    assert drift(scores(values[:1])), "the control: one seed cannot tell structure from drift"


@pytest.mark.parametrize("kind", ["normal", "log-normal", "outliers", "rounded"])
def test_a_random_order_is_no_drift(kind: str) -> None:
    rng = np.random.default_rng(6)
    for heads in (24, 72, 144):
        for _ in range(100):
            assert drift(scores(CLEAN[kind](rng, heads)[None])) == {}


def test_drift_with_heads_missing() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=(2, 144)) + np.outer([0, 1], np.linspace(0, 6, 144))
    values[0, 3:20] = values[1, 100] = np.nan
    assert list(drift(scores(values))) == [1]
