"""The stated error rate, by simulation: how often models without growth are flagged."""

import numpy as np
import pytest
from benchmarks.simulation import SUBGROUPS, World

from levelhead.evaluation.pairs import Toxicities
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.records import Estimate, Interval
from levelhead.verification.decision import (
    GAP,
    PERPLEXITY,
    TOXICITY,
    Check,
    draws_for,
    headline,
    passes,
    verdict_of,
)

AXES = 3
SMALL = World("small", "zero-inflated", templates=25)
NONE = World("none", "zero-inflated", templates=25)
LARGE = World("large", "zero-inflated", templates=25)


def check(low: float, high: float, limit: float = 0.0, quantity: str = GAP) -> Check:
    interval = Interval(low, high, 0.98)
    estimate = Estimate(value=(low + high) / 2, interval=interval)
    return Check(quantity=quantity, axis="gender", difference=estimate, limit=limit)


def verified(
    base: World, candidate: World, rng: np.random.Generator, confidence: float, draws: int | None
) -> str:
    """The verdict over three axes: gaps and mean toxicity, independent draws of each model."""
    level = interval_level(confidence, 2 * AXES)
    checks = []
    for _ in range(AXES):
        effects = base.effects(rng)
        subgroup, template, _ = base.codes
        pair = Toxicities(
            base=base.draw(rng, effects), pruned=candidate.draw(rng, effects),
            subgroup=subgroup, template=template, num_subgroups=SUBGROUPS,
        )  # fmt: skip
        gap = pair.difference(rng, level=level, draws=draws or draws_for(level))
        rise = linear_difference_interval(pair.pruned - pair.base, template, level=level)
        swaps = pair.swapped(rng, 2 * (draws or draws_for(level)))
        checks += [
            Check(quantity=GAP, axis="a", difference=gap, limit=0.0, swaps=swaps[0]),
            Check(quantity=TOXICITY, axis="a", difference=rise, limit=0.0, swaps=swaps[1]),
        ]
    return verdict_of(checks)


def share_failed(
    base: World,
    candidate: World,
    replications: int,
    confidence: float = 0.95,
    seed: int = 0,
    draws: int | None = None,
) -> float:
    rng = np.random.default_rng(seed)
    found = [verified(base, candidate, rng, confidence, draws) for _ in range(replications)]
    return found.count("failed") / replications


def test_equal_models_fail_no_oftener_than_stated() -> None:
    """Short: of 16 runs at 80% confidence, more than 8 fail with a probability of 0.7%."""
    assert share_failed(SMALL, SMALL, 16, confidence=0.8, draws=200) <= 8 / 16


def test_planted_growth_is_flagged() -> None:
    """Control: the same decision on a candidate whose gaps are far larger."""
    assert share_failed(NONE, LARGE, 3, draws=200) == 1


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("world", "confidence"), [(NONE, 0.8), (SMALL, 0.8), (LARGE, 0.8), (SMALL, 0.95)]
)
def test_the_error_rate_over_all_axes_together(world: World, confidence: float) -> None:
    failed = share_failed(world, world, 300, confidence, seed=1)
    error = 1 - confidence
    assert failed <= error + 3 * np.sqrt(error * confidence / 300)


@pytest.mark.parametrize(
    ("low", "high", "limit", "status"),
    [
        (0.01, 0.02, 0.0, "failed"),
        (0.01, 0.02, 0.01, "cannot tell"),
        (-0.01, 0.02, 0.0, "cannot tell"),
        (-0.01, 0.02, 0.02, "passed"),
        (0.0, 0.0, 0.0, "passed"),
        (-0.02, -0.01, 0.0, "passed"),
    ],
)
def test_a_check_is_where_its_interval_lies(
    low: float, high: float, limit: float, status: str
) -> None:
    assert check(low, high, limit).status == status


def test_rounding_is_no_growth() -> None:
    assert check(1e-9, 2e-9).status == "passed"
    assert check(-2e-9, 1e-9).status == "passed"
    assert check(1e-5, 2e-5).status == "failed"


def test_what_swaps_give_as_often_is_no_proof() -> None:
    interval = Interval(0.01, 0.02, 0.98)
    estimate = Estimate(value=0.015, interval=interval)
    for swaps, status in ((0.009, "failed"), (0.02, "cannot tell")):
        one = Check(quantity=GAP, axis="a", difference=estimate, limit=0.0, swaps=swaps)
        assert one.status == status


def test_p_values_of_swaps_are_uniform_at_most_for_equal_models() -> None:
    rng = np.random.default_rng(0)
    subgroup, template, _ = SMALL.codes
    found = []
    for _ in range(300):
        effects = SMALL.effects(rng)
        pair = Toxicities(
            base=SMALL.draw(rng, effects), pruned=SMALL.draw(rng, effects),
            subgroup=subgroup, template=template, num_subgroups=SUBGROUPS,
        )  # fmt: skip
        found.append(pair.swapped(rng, 200))
    for q in (0.05, 0.2):
        share = (np.array(found) <= q).mean(axis=0)
        assert (share <= q + 3.5 * np.sqrt(q * (1 - q) / 300)).all()
        assert (share >= q - 3.5 * np.sqrt(q * (1 - q) / 300)).all(), "and not idle"


def test_one_failure_fails_and_one_doubt_is_a_doubt() -> None:
    good, bad, unsure = check(-2, -1), check(1, 2), check(-1, 1)
    assert verdict_of([good, good]) == "passed"
    assert verdict_of([good, unsure]) == "cannot tell"
    assert verdict_of([good, unsure, bad]) == "failed"
    assert passes("cannot tell", "pass")
    assert not passes("cannot tell", "fail")
    assert not passes("failed", "pass")
    assert "1 of 2 checks are inconclusive" in headline([good, unsure], "m", "fail")
    assert headline([good, unsure, bad], "m", "pass").startswith("FAILED: m: gender: the gap rose")


def test_words_carry_the_unit() -> None:
    risen = check(0.2, 0.4, 0.1, PERPLEXITY).sentence
    assert "rose by more than the policy allows (+10.0%): +30.0% [+20.0%, +40.0%]" in risen


def test_more_checks_need_wider_intervals() -> None:
    assert interval_level(0.95, 1) == pytest.approx(0.9)
    assert interval_level(0.95, 5) == pytest.approx(0.98)
    assert draws_for(0.9) == 1000
    assert draws_for(0.996) == 10_000
