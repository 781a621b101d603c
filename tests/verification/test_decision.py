"""The stated error rate, by simulation: how often models without growth are flagged."""

import numpy as np
import pytest
from benchmarks.simulation import SUBGROUPS, World

from levelhead.errors import ConfigError
from levelhead.evaluation.pairs import Toxicities
from levelhead.records import Estimate, Interval
from levelhead.verification.decision import (
    GAP,
    PERPLEXITY,
    Check,
    Errors,
    draws_for,
    exit_code,
    headline,
    look_errors,
    one_sided,
    passes,
    verdict_of,
)
from levelhead.verification.measure import axis_checks
from levelhead.verification.policy import Policy

AXES = 3
ERRORS = Errors(passing=0.05, failing=0.01)
NO_GROWTH = Policy(max_gap_increase=0.0, max_mean_toxicity_increase=0.0)
SMALL = World("small", "zero-inflated", templates=25)
NONE = World("none", "zero-inflated", templates=25)
LARGE = World("large", "zero-inflated", templates=25)


def check(low: float, high: float, limit: float = 0.0, quantity: str = GAP) -> Check:
    interval = Interval(low, high, 0.98)
    estimate = Estimate(value=(low + high) / 2, interval=interval)
    return Check(quantity=quantity, axis="gender", difference=estimate, limit=limit, errors=ERRORS)


def verified(base: World, candidate: World, rng: np.random.Generator, confidence: float) -> str:
    """The verdict over three axes: gaps and mean toxicity, independent draws of each model."""
    errors = look_errors(confidence, 2 * AXES, 1, (1,))
    checks = []
    for _ in range(AXES):
        effects = base.effects(rng)
        subgroup, template, _ = base.codes
        pair = Toxicities(
            base=base.draw(rng, effects), pruned=candidate.draw(rng, effects),
            subgroup=subgroup, template=template, num_subgroups=SUBGROUPS,
        )  # fmt: skip
        checks += axis_checks("a", pair, NO_GROWTH, errors, rng)
    return verdict_of(checks)


def share_failed(
    base: World,
    candidate: World,
    replications: int,
    confidence: float = 0.95,
    seed: int = 0,
) -> float:
    rng = np.random.default_rng(seed)
    found = [verified(base, candidate, rng, confidence) for _ in range(replications)]
    return found.count("failed") / replications


def test_equal_models_fail_no_oftener_than_stated() -> None:
    """Short: of 8 runs at 80% confidence, more than 5 fail with a probability of 0.1%."""
    assert share_failed(SMALL, SMALL, 8, confidence=0.8) <= 5 / 8


def test_planted_growth_is_flagged() -> None:
    """Control: the same decision on a candidate whose gaps are far larger."""
    assert share_failed(NONE, LARGE, 3) == 1


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
        one = Check(
            quantity=GAP, axis="a", difference=estimate, limit=0.0, swaps=swaps, errors=ERRORS
        )
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


def test_more_checks_cost_the_lower_ends_alone() -> None:
    one, five = (look_errors(0.95, checks, 4, (4,)) for checks in (1, 5))
    assert one.passing == one.failing == five.passing == pytest.approx(0.05)
    assert five.failing == pytest.approx(0.01)
    assert one.passing_level == pytest.approx(0.9)
    assert five.failing_level == pytest.approx(0.98)
    assert draws_for(0.9) == 2000
    assert draws_for(0.996) == 10_000
    assert draws_for(1 - 1e-9) == 50_000


def test_planned_looks_share_the_errors() -> None:
    looks = (1, 2, 4)
    spent = [look_errors(0.95, 2, samples, looks) for samples in looks]
    assert sum(one.passing for one in spent) == pytest.approx(0.05)
    assert sum(one.failing for one in spent) == pytest.approx(0.025)
    assert spent[-1].passing > 0.035, "the last look keeps most"
    assert spent[0].failing > 0.005, "and a broken limit can be told early"
    with pytest.raises(ConfigError, match="not among the planned"):
        look_errors(0.95, 2, 3, looks)


def test_each_end_is_of_its_own_interval() -> None:
    narrow = Estimate(value=0.1, interval=Interval(0.0, 0.2, 0.9))
    wide = Estimate(value=0.1, interval=Interval(-0.1, 0.3, 0.98))
    found = one_sided(narrow, wide).interval
    assert (found.low, found.high) == (-0.1, 0.2)
    assert found.level == pytest.approx(0.94)


def test_exit_codes() -> None:
    for policy in ("fail", "pass"):
        assert exit_code("passed", policy) == 0
        assert exit_code("failed", policy) == 1
    assert exit_code("cannot tell", "fail") == 3
    assert exit_code("cannot tell", "pass") == 0


def test_warnings_stand_in_the_headline() -> None:
    assert headline([check(-2, -1)], "m", "fail", ["gender: erased."]).endswith(" gender: erased.")
