"""Agreement of seeds on tables with a known truth, and its control: shuffled heads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from by_seed_tables import by_seed_table, write
from scipy import stats

from levelhead.diagnosis.agreement import (
    Agreement,
    agreement,
    chance_spearman,
)
from levelhead.diagnosis.by_seed import SeedScores, read_by_seed
from levelhead.diagnosis.overlap import set_overlap
from levelhead.diagnosis.repetition import left_out_correlations
from levelhead.errors import SelectionError
from levelhead.metrics.reliability import spearman_brown


def simulated(
    rng: np.random.Generator, heads: int, seeds: int, correlation: float, folder: Path
) -> SeedScores:
    frame = by_seed_table(rng, heads=heads, seeds=seeds, correlation=correlation)
    return read_by_seed(write(frame, folder))[0]


def agreed(scores: SeedScores) -> Agreement:
    found = agreement(scores)
    assert found is not None
    return found


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5, 0.9])
def test_the_known_correlation_is_found(tmp_path: Path, correlation: float) -> None:
    found = agreed(simulated(np.random.default_rng(2), 1500, 4, correlation, tmp_path))
    truth = 6 / np.pi * np.arcsin(correlation / 2)  # Spearman of a bivariate normal
    assert found.spearman.value == pytest.approx(truth, abs=0.04)
    assert found.reliability.value == pytest.approx(spearman_brown(truth, 4), abs=0.06)
    # Mean toxicity has nothing to do with it; that intervals cover is in test_simulations.py.
    for left in (found.without_toxicity, found.without_toxicity_corrected):
        assert left.value == pytest.approx(found.reliability.value, abs=0.05)
    for estimate in (found.spearman, found.reliability, found.without_toxicity):
        assert estimate.interval.low < estimate.value < estimate.interval.high
    assert found.spearman.interval.high - found.spearman.interval.low < 0.1


def test_the_spearman_is_scipys(tmp_path: Path) -> None:
    scores = simulated(np.random.default_rng(3), 144, 2, 0.4, tmp_path)
    bias = scores.bias.copy()
    bias[:, ::5] = bias[0, 0]  # ties
    bias[0, 3] = bias[1, 7] = np.nan
    common = np.isfinite(bias).all(axis=0)
    expected = stats.spearmanr(*bias[:, common]).statistic
    assert agreed(replace(scores, bias=bias)).spearman.value == pytest.approx(expected, abs=1e-12)


def test_reliability_foretells_how_new_seeds_would_agree() -> None:
    """The mean over K seeds against the mean over K others, which a user could measure."""
    rng = np.random.default_rng(4)
    heads, seeds = 20_000, 3
    truth = rng.normal(size=heads)
    first, second = truth + 1.5 * rng.normal(size=(2, seeds, heads))
    rerun = stats.spearmanr(first.mean(0), second.mean(0)).statistic
    pair = stats.spearmanr(first[0], first[1]).statistic
    assert spearman_brown(pair, seeds) == pytest.approx(rerun, abs=0.03)
    assert abs(pair - rerun) > 0.2, "the control: a pair alone says less than the mean"


def test_correlations_without_each_head_are_those_of_a_table_without_it() -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(0, 9, size=(3, 40)).astype(float)  # many ties
    found = left_out_correlations(values)
    assert found.shape == (41, 3, 3)
    for row, kept in enumerate([values, *(np.delete(values, head, axis=1) for head in range(40))]):
        np.testing.assert_allclose(found[row], stats.spearmanr(kept.T).statistic, atol=1e-12)


def test_one_head_that_carries_all_agreement_makes_the_interval_wide(tmp_path: Path) -> None:
    scores = simulated(np.random.default_rng(6), 24, 2, 0.0, tmp_path)
    one = np.zeros((2, 24))
    one[:, 3] = 1.0  # all other heads tie; without it, there is no ranking
    found = agreed(replace(scores, bias=one))
    assert found.reliability.value == pytest.approx(1.0)
    assert found.reliability.interval.low < 0


def test_what_mean_toxicity_explains_is_taken_out(tmp_path: Path) -> None:
    """Bias repeats because mean toxicity does, with the noise of the same texts or its own."""
    rng = np.random.default_rng(7)
    scores = simulated(rng, 1000, 3, 0.0, tmp_path)
    true = rng.normal(size=1000)
    toxicity = true + 0.6 * rng.normal(size=(3, 1000))
    noise = 0.5 * rng.normal(size=(3, 1000))
    own = agreed(replace(scores, mean_toxicity=toxicity, bias=toxicity + noise))
    assert own.reliability.value > 0.75
    assert own.toxicity is not None
    assert own.toxicity.value > 0.8
    assert abs(own.without_toxicity.value) < 0.2
    assert abs(own.without_toxicity_corrected.value) < 0.2
    echo = agreed(replace(scores, mean_toxicity=toxicity, bias=true + noise))
    assert echo.without_toxicity.value > 0.2, "the control: a regression on it leaves some in"
    assert abs(echo.without_toxicity_corrected.value) < 0.2
    bias = 0.8 * true + rng.normal(size=1000) + noise
    both = agreed(replace(scores, mean_toxicity=toxicity, bias=bias))
    assert both.without_toxicity_corrected.value > 0.85, "what is more than an echo stays"
    same = agreed(replace(scores, mean_toxicity=toxicity, bias=toxicity))
    assert same.without_toxicity.value == 0.0, "nothing is left"
    none = agreed(replace(scores, mean_toxicity=np.full((3, 1000), 0.1), bias=bias))
    assert none.toxicity is None
    assert none.without_toxicity == none.without_toxicity_corrected == none.reliability


@pytest.mark.parametrize(("heads", "seeds"), [(18, 2), (18, 3), (72, 3), (144, 5)])
def test_noise_is_seldom_above_chance(heads: int, seeds: int) -> None:
    rng = np.random.default_rng(6)
    pairs = np.triu_indices(seeds, 1)
    limit = chance_spearman(heads, len(pairs[0]))
    ranks = rng.normal(size=(4000, seeds, heads)).argsort(-1).argsort(-1)
    means = np.array([np.corrcoef(r)[pairs].mean() for r in ranks])
    assert (means > limit).mean() < 0.02
    assert (means > limit / 2).mean() > 0.05, "the control: half of it is common"


def test_seeds_that_cannot_be_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    scores = simulated(rng, 24, 2, 0.9, tmp_path)
    assert agreement(scores.of_seeds([0])) is None
    apart = scores.bias.copy()
    apart[0, :12] = apart[1, 12:] = np.nan
    assert agreement(replace(scores, bias=apart)) is None
    assert set_overlap(replace(scores, bias=apart), 0.3, 0.1) is None


def test_overlap_from_all_to_chance_to_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    scores = simulated(rng, 1000, 2, 0.9, tmp_path)
    same = replace(scores, bias=np.stack([scores.bias[0]] * 2))
    whole = set_overlap(same, 0.3, 0.1)
    assert whole is not None
    assert whole.share == 1.0
    assert whole.chance == pytest.approx(100 / 700)
    # Heads that are protected cannot be chosen, so the reversed ranking shares none of 100.
    reverse = replace(scores, bias=np.stack([scores.bias[0], -scores.bias[0]]))
    none = set_overlap(reverse, 0.3, 0.1)
    assert none is not None
    assert none.share == 0.0
    shares = []
    for _ in range(30):
        shuffled = np.stack([rng.permutation(scores.bias[0]) for _ in range(2)])
        found = set_overlap(replace(scores, bias=shuffled), 0.3, 0.1)
        assert found is not None
        shares.append(found.share)
    assert np.mean(shares) == pytest.approx(100 / 700, abs=0.02)


@pytest.mark.parametrize("seeds", [2, 4])
def test_the_overlap_of_unrelated_seeds_has_a_uniform_p(tmp_path: Path, seeds: int) -> None:
    rng = np.random.default_rng(12)
    scores = simulated(rng, 144, seeds, 0.0, tmp_path)
    ps = []
    for _ in range(80):
        bias = rng.normal(size=(seeds, 144))
        found = set_overlap(replace(scores, bias=bias), 0.3, 0.1)
        assert found is not None
        ps.append(found.p)
    assert np.mean(np.array(ps) <= 0.05) <= 0.125  # 0.05, and three standard errors
    assert np.mean(np.array(ps) <= 0.5) <= 0.67
    assert np.mean(np.array(ps) <= 0.8) >= 0.6, "the control: it is not always large"


def test_the_p_of_one_pair_is_hypergeometric(tmp_path: Path) -> None:
    scores = simulated(np.random.default_rng(13), 144, 2, 0.6, tmp_path)
    found = set_overlap(scores, 0.3, 0.1)
    assert found is not None
    count, free = 14, 144 - 43
    exact = stats.hypergeom.sf(round(found.share * count) - 1, free, count, count)
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact / 2000) + 1 / 2000)
    assert found.p < 0.05


def test_pairs_of_a_few_seeds_are_no_independent_tests(tmp_path: Path) -> None:
    """Six pairs of four seeds that share one head more than chance gives are weak evidence."""
    rng = np.random.default_rng(14)
    scores = simulated(rng, 144, 4, 0.35, tmp_path)
    found = set_overlap(scores, 0.3, 0.1)
    assert found is not None
    assert found == set_overlap(scores, 0.3, 0.1), "a table has one p-value"
    reversed_seeds = scores.of_seeds([3, 2, 1, 0])
    again = set_overlap(reversed_seeds, 0.3, 0.1)
    assert again is not None
    assert again.p == pytest.approx(found.p, abs=0.03)


def test_chance_where_seeds_protect_different_heads(tmp_path: Path) -> None:
    """Seeds with perplexities of their own protect other heads and can agree on fewer."""
    rng = np.random.default_rng(9)
    scores = simulated(rng, 1000, 2, 0.9, tmp_path)
    ppl = np.stack([np.arange(1000.0), np.arange(1000.0)[::-1]])
    shares = []
    for _ in range(30):
        shuffled = np.stack([rng.permutation(scores.bias[0]) for _ in range(2)])
        found = set_overlap(replace(scores, bias=shuffled, ppl=ppl), 0.3, 0.1)
        assert found is not None
        shares.append(found.share)
    # 700 unprotected heads each, 400 of them the same.
    assert found.chance == pytest.approx(100 * 400 / (700 * 700))
    assert np.mean(shares) == pytest.approx(found.chance, abs=0.02)


def test_overlap_is_among_common_heads(tmp_path: Path) -> None:
    scores = simulated(np.random.default_rng(10), 100, 2, 0.9, tmp_path)
    bias = np.stack([scores.bias[0]] * 2)
    best = np.argsort(bias[0])[:20]
    bias[1, best] = np.nan  # a head that was never scored is no disagreement
    found = set_overlap(replace(scores, bias=bias), 0.3, 0.1)
    assert found is not None
    assert found.share == 1.0
    assert found.chance == pytest.approx(8 / 56)


def test_shares_that_cannot_be_satisfied(tmp_path: Path) -> None:
    scores = simulated(np.random.default_rng(11), 24, 2, 0.9, tmp_path)
    with pytest.raises(SelectionError, match="lower one of them"):
        set_overlap(scores, 0.8, 0.5)
