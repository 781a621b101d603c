"""How often resamples select a head, where the answer is known; and the core of a selection."""

from dataclasses import replace

import numpy as np
import pytest

from levelhead.errors import SelectionError
from levelhead.scores import ScoreTable, bias_metric, column
from levelhead.selection.inclusion import (
    Rule,
    check_core,
    core_of,
    inclusion,
    inclusion_details,
    overlap,
)
from levelhead.selection.rules import select_heads

SHAPE = (8, 10)
RULE = Rule(axis="a", method="fasp", gamma=0.3, alpha=0.1)


def table_of(z_ppl: np.ndarray, z_bias: np.ndarray) -> ScoreTable:
    columns = {}
    for metric, z in (("ppl", z_ppl), (bias_metric("a"), z_bias)):
        columns |= {column(metric, "base"): 1.0, column(metric, "without"): 1.0 - z}
    return ScoreTable.build(columns, *SHAPE)


def redrawn(rng: np.random.Generator, z: np.ndarray, noise: float, draws: int = 400) -> np.ndarray:
    return z + noise * rng.standard_normal((draws, *SHAPE))


def test_resamples_that_agree_include_the_selection_always() -> None:
    rng = np.random.default_rng(0)
    z_ppl, z_bias = rng.standard_normal((2, *SHAPE))
    table = table_of(z_ppl, z_bias)
    drawn = {"ppl": redrawn(rng, z_ppl, 0), "bias:a": redrawn(rng, z_bias, 0)}
    for method in ("fasp", "bias_only", "ppl_only"):
        found = inclusion(table, drawn, replace(RULE, method=method))
        heads = select_heads(table, axis="a", method=method, gamma=0.3, alpha=0.1).heads
        wanted = np.zeros(SHAPE)
        wanted[tuple(np.array(heads).T)] = 1
        np.testing.assert_array_equal(found.share, wanted)
        assert found.expected_overlap(heads) == 1


def test_noise_includes_every_head_as_often() -> None:
    rng = np.random.default_rng(1)
    zero = np.zeros(SHAPE)
    table = table_of(zero, rng.standard_normal(SHAPE))
    drawn = {"ppl": redrawn(rng, zero, 1, 2000), "bias:a": redrawn(rng, zero, 1, 2000)}
    found = inclusion(table, drawn, RULE)
    np.testing.assert_allclose(found.share, 0.1, atol=0.04)
    assert found.share.sum() == pytest.approx(8)


def test_expected_overlap_is_that_of_two_runs_and_plain_inclusion_is_more() -> None:
    """Resamples scatter around what was measured, noise included; other runs around the truth."""
    truth = np.random.default_rng(2).standard_normal(SHAPE)
    z_ppl = np.random.default_rng(3).standard_normal(SHAPE)
    rng, sets, expected, plain = np.random.default_rng(4), [], [], []
    for _ in range(30):
        z = truth + rng.standard_normal(SHAPE)
        table = table_of(z_ppl, z)
        drawn = {"ppl": redrawn(rng, z_ppl, 0, 200), "bias:a": redrawn(rng, z, 1, 200)}
        found = inclusion(table, drawn, RULE)
        heads = select_heads(table, axis="a", gamma=0.3, alpha=0.1).heads
        sets.append(set(heads))
        expected.append(found.expected_overlap(heads))
        plain.append(np.mean([found.share[head] for head in heads]))
    two = [len(a & b) / 8 for i, a in enumerate(sets) for b in sets[:i]]
    assert np.mean(expected) == pytest.approx(np.mean(two), abs=0.08)
    assert np.mean(plain) > np.mean(two) + 0.1


def test_equal_numbers_per_layer_leave_out_draws_that_cannot_have_them() -> None:
    rng = np.random.default_rng(5)
    z_ppl, z_bias = rng.standard_normal((2, *SHAPE))
    drawn = {"ppl": redrawn(rng, z_ppl, 0.1), "bias:a": redrawn(rng, z_bias, 0.1)}
    drawn["ppl"][:100, 0] = -9  # protects all of layer 0
    found = inclusion(table_of(z_ppl, z_bias), drawn, replace(RULE, groups=1))
    assert found.resamples == 300
    np.testing.assert_allclose(found.share.sum(axis=1), 1)


def test_methods_that_rank_by_nothing_resampled_have_none() -> None:
    rng = np.random.default_rng(6)
    z = rng.standard_normal(SHAPE)
    table = table_of(z, z)
    both = {"ppl": redrawn(rng, z, 1), "bias:a": redrawn(rng, z, 1)}
    for method in ("magnitude", "mask_gradient", "random", "joint", "fisher_only"):
        assert inclusion(table, both, replace(RULE, method=method)) is None
    assert inclusion(table, {"ppl": both["ppl"]}, RULE) is None


def test_the_core_is_what_is_selected_often() -> None:
    rng = np.random.default_rng(7)
    z_ppl, z_bias = rng.standard_normal((2, *SHAPE))
    table = table_of(z_ppl, z_bias)
    drawn = {"ppl": redrawn(rng, z_ppl, 0.2), "bias:a": redrawn(rng, z_bias, 0.3)}
    found = inclusion(table, drawn, RULE)
    chosen = select_heads(table, axis="a", gamma=0.3, alpha=0.1)
    core = core_of(chosen, found, 0.8)
    assert 0 < len(core.heads) < len(chosen.heads)
    assert set(core.heads) == {head for head in chosen.heads if found.share[head] >= 0.8}
    assert core_of(chosen, found, 0.0) == chosen
    said = inclusion_details(core, found, 0.8, len(chosen.heads))
    assert said["inclusion"] == [round(float(found.share[head]), 4) for head in core.heads]
    assert said["core"] == 0.8
    assert said["selected"] == 8
    assert "core" not in inclusion_details(chosen, found, None, 8)
    assert inclusion_details(chosen, None, None, 8) == {}


def test_a_core_of_nothing_says_how_far_to_lower_it() -> None:
    rng = np.random.default_rng(8)
    z_ppl, z_bias = rng.standard_normal((2, *SHAPE))
    table = table_of(z_ppl, z_bias)
    drawn = {"ppl": redrawn(rng, z_ppl, 1), "bias:a": redrawn(rng, z_bias, 2)}
    found = inclusion(table, drawn, RULE)
    chosen = select_heads(table, axis="a", gamma=0.3, alpha=0.1)
    most = max(found.share[head] for head in chosen.heads)
    with pytest.raises(SelectionError, match=f"the largest inclusion frequency is {most:.3f}"):
        core_of(chosen, found, 1.0)
    with pytest.raises(SelectionError, match="score it again"):
        core_of(chosen, None, 0.5)
    for core in (-0.1, 1.5, float("nan")):
        with pytest.raises(SelectionError, match="between 0 and 1"):
            check_core(core)


def test_overlap_of_two_rankings() -> None:
    rng = np.random.default_rng(9)
    z_ppl, z_bias = rng.standard_normal((2, *SHAPE))
    effects = {"ppl": z_ppl, "bias:a": z_bias}
    assert overlap(RULE, effects, effects) == 1
    assert overlap(RULE, effects, effects | {"bias:a": -z_bias}) == 0
