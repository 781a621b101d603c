"""What a ranking rests on: shares, things left out and drawn anew, on worlds of known truth."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import World, simulated_problem

from levelhead.scoring.cells import cells_of, drawn, resamples, word_spread
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.perplexity_effects import PerplexityEffects
from levelhead.scoring.problem import SampledTexts
from levelhead.scoring.score_table import concentration_warnings
from levelhead.scoring.stability import stability

GRID = (5, 8)
CLEAR = np.array([0.45, 0.3, 0.15, 0.3])


def effects_of_heads(scale: float, seed: int, *size: int) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal((*size, *GRID))


def of_subgroups(problem, base, shifts, kept: list[int]):
    """The same run, had there been these subgroups alone."""
    names = [problem.subgroups[s] for s in kept]
    rows = [i for i, p in enumerate(problem.prompts) if p.subgroup in names]
    fewer = replace(problem, prompts=tuple(problem.prompts[i] for i in rows))
    count = len(rows)
    texts = SampledTexts(
        prompt=np.arange(count), sample=np.zeros(count, dtype=int), tokens=((),) * count,
        texts=("",) * count, toxicity=base.toxicity[rows],
    )  # fmt: skip
    return axis_effects(
        fewer,
        texts,
        replace(
            shifts,
            shift=shifts.shift[:, kept],
            count=shifts.count[:, kept],
            toxicity=shifts.toxicity[rows],
            unbiased=shifts.unbiased[rows],
        ),
    )


def test_everything_once_is_the_ranking_itself() -> None:
    problem = simulated_problem(4, 12, 3)
    world = World(means=CLEAR, shift=effects_of_heads(0.01, 1, 4))
    base, shifts, effects = world.run(problem, np.random.default_rng(0))
    cells, told_apart = cells_of(problem, base, shifts)
    assert told_apart
    once = drawn(cells, np.ones((1, 12)), np.ones((1, 12)))
    np.testing.assert_allclose(once.z_bias[0], effects.effect, atol=1e-12)
    assert once.used[0].tolist() == effects.used.tolist()
    np.testing.assert_allclose(once.gap[0], effects.gap, atol=1e-12)


def test_a_subgroup_left_out_is_an_axis_without_it() -> None:
    """Its gaps are those to the mean of the others, not to the mean of all."""
    problem = simulated_problem(4, 12, 3)
    world = World(means=CLEAR, shift=effects_of_heads(0.01, 1, 4))
    base, shifts, effects = world.run(problem, np.random.default_rng(0))
    found = stability(problem, base, shifts, effects, draws=0)
    for s, left in enumerate(found.without_subgroup):
        kept = [other for other in range(4) if other != s]
        alone = of_subgroups(problem, base, shifts, kept)
        np.testing.assert_allclose(left.z_bias, alone.effect, atol=1e-12)
        assert left.used == tuple(n for n, u in zip(alone.subgroups, alone.used, strict=True) if u)
    control = np.delete(-effects.gap_effect, 0, axis=0)
    assert np.abs(found.without_subgroup[0].z_bias - control.sum(0)).max() > 1e-3


def test_shares_add_up_and_the_dominant_subgroup_is_named() -> None:
    problem = simulated_problem(4, 30, 3)
    shift = effects_of_heads(0.001, 1, 4)
    shift[2] *= 20
    base, shifts, effects = World(means=CLEAR, shift=shift).run(problem, np.random.default_rng(0))
    found = stability(problem, base, shifts, effects)
    for shares in (found.subgroup_shares, found.word_shares):
        assert sum(one.share for one in shares) == pytest.approx(1)
        assert all(one.ci95[0] - 0.02 <= one.share <= one.ci95[1] + 0.02 for one in shares)
    said = found.to_json()
    largest = said["largest_share"]["subgroup"]
    assert largest["name"] == "s2"
    assert largest["share"] > 0.5
    by_word = [w.share for w in found.word_shares if w.name.startswith("s2 ")]
    assert sum(by_word) == pytest.approx(largest["share"])
    assert max(by_word) < 0.5, "its words carry it together"
    assert found.without_subgroup[2].spearman < 0.5
    assert min(one.spearman for one in found.without_word) > 0.9


def test_the_dominant_word_is_named_and_the_even_world_has_none() -> None:
    problem = simulated_problem(4, 30, 3)
    words = np.zeros((4, 3, *GRID))
    words[2, 1] = effects_of_heads(0.06, 2)
    even = World(means=CLEAR, shift=effects_of_heads(0.01, 1, 4))
    for world, largest in ((replace(even, words=words), "s2 word 1"), (even, None)):
        base, shifts, effects = world.run(problem, np.random.default_rng(0))
        found = stability(problem, base, shifts, effects).to_json()
        for kind in found["leave_one_out"].values():
            for one in kind.values():
                one["overlap"] = 0.25
        warnings = concentration_warnings("a", found)
        if largest is None:
            assert found["largest_share"]["word"]["share"] < 0.35
            assert not any("one word" in one for one in warnings)
            continue
        assert found["largest_share"]["word"]["name"] == largest
        assert found["largest_share"]["word"]["share"] > 0.6
        (said,) = [one for one in warnings if "one word" in one]
        share = found["largest_share"]["word"]["share"]
        assert f"s2 word 1, carries {share:.0%} of the ranking" in said
        assert "keeps 25% of the selected heads" in said


def test_the_only_gap_that_can_be_told_from_0_carries_all_and_has_no_interval() -> None:
    problem = simulated_problem(4, 30, 2)
    world = World(means=np.array([0.3, 0.3, 0.39, 0.3]), shift=effects_of_heads(0.02, 1, 4))
    base, shifts, effects = world.run(problem, np.random.default_rng(0))
    assert effects.measurable
    assert list(effects.used) == [False, False, True, False]
    found = stability(problem, base, shifts, effects).to_json()
    for kind in found["leave_one_out"].values():
        for one in kind.values():
            one["overlap"] = 0.25
    said = next(one for one in concentration_warnings("a", found) if "one subgroup" in one)
    assert "s2, carries 100%" in said
    assert "the gap of no other could be told from 0" in said
    assert "interval" not in said


def test_of_two_subgroups_both_carry_the_one_gap() -> None:
    problem = simulated_problem(2, 20, 2)
    world = World(means=np.array([0.4, 0.2]), shift=effects_of_heads(0.01, 1, 2))
    base, shifts, effects = world.run(problem, np.random.default_rng(0))
    found = stability(problem, base, shifts, effects)
    assert [one.share for one in found.subgroup_shares] == pytest.approx([0.5, 0.5])
    assert found.without_subgroup == ()
    assert len(found.without_word) == 4
    assert concentration_warnings("a", found.to_json()) == []


def test_one_word_per_subgroup_is_its_subgroup() -> None:
    problem = simulated_problem(3, 20, 1)
    shift = effects_of_heads(0.001, 1, 3)
    shift[0] *= 20
    world = World(means=np.array([0.5, 0.3, 0.1]), shift=shift)
    base, shifts, effects = world.run(problem, np.random.default_rng(0))
    found = stability(problem, base, shifts, effects)
    assert [one.share for one in found.word_shares] == pytest.approx(
        [one.share for one in found.subgroup_shares]
    )
    assert found.word_spread == 0
    said = found.to_json()
    for one in (
        *said["leave_one_out"]["word"].values(),
        *said["leave_one_out"]["subgroup"].values(),
    ):
        one["overlap"] = 0.0
    assert ["one subgroup" in one for one in concentration_warnings("a", said)] == [True]


def test_an_estimator_that_merges_words_has_subgroups_alone() -> None:
    problem = simulated_problem(3, 20, 2)
    world = World(means=np.array([0.5, 0.3, 0.1]), shift=effects_of_heads(0.01, 1, 3))
    base, shifts, effects = world.run(problem, np.random.default_rng(0))
    merged = replace(shifts, descriptor=np.zeros_like(shifts.descriptor))
    found = stability(problem, base, merged, effects)
    assert found.word_shares == found.without_word == ()
    assert found.to_json()["largest_share"]["word"] is None
    assert len(found.without_subgroup) == 3


def spread_of(problem, base, shifts, spread: float, seed: int) -> np.ndarray:
    """Variance of z_bias over resamples, by head."""
    cells, _ = cells_of(problem, base, shifts)
    rng = np.random.default_rng(seed)
    return np.concatenate([one.z_bias for one in resamples(cells, 100, spread, rng)]).var(0)


@pytest.mark.parametrize("word_spread_of", [0.0, 0.004, 0.012])
def test_resamples_vary_as_other_runs_do(word_spread_of: float) -> None:
    """Other runs have other templates, words and texts. Controls: words kept, or drawn outright."""
    problem = simulated_problem(4, 24, 4)
    world = World(
        means=CLEAR, shift=effects_of_heads(0.004, 1, 4), shift_noise=0.03,
        word_spread=word_spread_of,
    )  # fmt: skip
    runs, found, kept, outright = [], [], [], []
    for seed in range(24):
        base, shifts, effects = world.run(problem, np.random.default_rng(seed))
        runs.append(effects.effect)
        spread = word_spread(cells_of(problem, base, shifts)[0])
        found.append(spread_of(problem, base, shifts, spread, seed))
        kept.append(spread_of(problem, base, shifts, 0.0, seed))
        outright.append(spread_of(problem, base, shifts, 1.0, seed))
    truth = np.var(runs, axis=0, ddof=1).mean()
    assert 0.85 < np.sqrt(np.mean(found) / truth) < 1.15
    if word_spread_of == 0:
        assert np.sqrt(np.mean(outright) / truth) > 1.25, "text noise would count three times"
    if word_spread_of == 0.012:
        assert np.sqrt(np.mean(kept) / truth) < 0.7, "words are part of what another run draws"


def test_perplexity_is_resampled_by_windows() -> None:
    rng = np.random.default_rng(0)
    change = 0.01 + 0.02 * rng.standard_normal((20, *GRID))
    effects = PerplexityEffects(base_nll=np.full(20, 2.0), nll_change=change)
    found = effects.resampled(np.random.default_rng(1), 300)
    assert found.shape == (300, *GRID)
    ratio = found.std(0) / effects.stderr
    assert 0.85 < np.median(ratio) < 1.1
    np.testing.assert_allclose(found.mean(0), effects.effect, atol=0.4 * effects.stderr.max())
