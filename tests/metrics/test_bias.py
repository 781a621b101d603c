import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from levelhead.errors import PromptError
from levelhead.metrics.bias import (
    bias,
    bias_of_means,
    corrected_bias,
    corrected_bias_of_half,
    gaps,
    gaps_of_means,
    subgroup_means,
)

scores = st.floats(0, 1, width=32)


def test_bias_is_a_sum_with_a_prompt_weighted_mean():
    toxicity = np.array([0.0, 0.2, 0.4, 1.0])
    subgroup = np.array([0, 0, 0, 1])
    # T_0 = 0.2, T_1 = 1; T_S weighs prompts: 0.4, not 0.6; the sum of |d| is 0.2 + 0.6.
    np.testing.assert_allclose(gaps(toxicity, subgroup, 2), [0.2, -0.6])
    assert bias(toxicity, subgroup, 2) == pytest.approx(0.8)


def test_subgroup_without_data_adds_nothing():
    toxicity, subgroup = np.array([0.1, 0.5]), np.array([0, 2])
    assert np.isnan(subgroup_means(toxicity, subgroup, 3)[1])
    assert np.isnan(gaps(toxicity, subgroup, 3)[1])
    assert bias(toxicity, subgroup, 3) == pytest.approx(0.4)


@pytest.mark.parametrize("subgroup", [[1, 1], []])
def test_fewer_than_two_subgroups_is_an_error(subgroup):
    with pytest.raises(PromptError, match="at least 2 subgroups"):
        bias(np.full(len(subgroup), 0.5), np.array(subgroup, dtype=int), 2)


@given(arrays(float, 12, elements=scores), st.permutations(range(12)), st.permutations(range(3)))
def test_bias_ignores_order_and_names_and_bounds_hold(toxicity, order, names):
    subgroup = np.arange(12) % 3
    value = bias(toxicity, subgroup, 3)
    assert 0 <= value <= 2
    order, names = np.array(order), np.array(names)
    assert bias(toxicity[order], names[subgroup[order]], 3) == pytest.approx(value, abs=1e-9)
    assert bias(toxicity + 0.25, subgroup, 3) == pytest.approx(value, abs=1e-9)
    assert bias(0.5 * toxicity, subgroup, 3) == pytest.approx(0.5 * value, abs=1e-9)


@given(arrays(float, 20, elements=scores), st.integers(2, 19))
def test_bias_of_means_agrees_with_bias_of_entries(toxicity, cut):
    subgroup = (np.arange(20) >= cut).astype(int) + (np.arange(20) == 0) * 2
    means = subgroup_means(toxicity, subgroup, 4)
    counts = np.bincount(subgroup, minlength=4)
    assert bias_of_means(means, counts) == pytest.approx(bias(toxicity, subgroup, 4), abs=1e-12)
    stacked = bias_of_means(np.stack([means, means + 0.1]), counts)
    np.testing.assert_allclose(stacked, bias(toxicity, subgroup, 4), atol=1e-12)


def test_gaps_of_means_sum_to_zero_by_weight():
    weights = np.array([3, 1, 6])
    d = gaps_of_means(np.array([0.1, 0.9, 0.4]), weights)
    assert (weights * d).sum() == pytest.approx(0)


def test_corrected_bias_of_one_split_by_hand():
    # Half A: T = (0, 1), d = (.5, -.5). Half B: T = (.6, .4), d = (-.1, .1): the signs disagree.
    toxicity = np.array([0.0, 1.0, 0.6, 0.4])
    subgroup, half = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    # A's signs on B: -0.2; B's signs on A: -1.0.
    assert corrected_bias_of_half(toxicity, subgroup, half, 2) == pytest.approx(-0.6)


def test_correction_removes_what_noise_adds_and_keeps_what_is_there():
    rng = np.random.default_rng(0)
    subgroup = np.tile(np.repeat(np.arange(5), 4), 24)
    unit = np.repeat(np.arange(24), 20)
    plain, corrected, kept = [], [], []
    for _ in range(200):
        noise = rng.beta(0.4, 3.6, len(subgroup))
        plain.append(bias(noise, subgroup, 5))
        corrected.append(corrected_bias(noise, subgroup, unit, 5, rng, num_splits=5))
        gap = 0.5 * noise + np.array([0.0, 0.1, 0.2, 0.3, 0.4])[subgroup]
        kept.append(corrected_bias(gap, subgroup, unit, 5, rng, num_splits=5))
    assert np.mean(plain) > 0.05  # the control: the plain value sees a gap where there is none
    assert abs(np.mean(corrected)) < 4 * np.std(corrected) / np.sqrt(200)
    assert np.mean(kept) == pytest.approx(0.6, abs=0.01)


def test_corrected_bias_depends_on_the_generator_alone():
    toxicity = np.random.default_rng(1).random(40)
    subgroup, unit = np.arange(40) % 4, np.arange(40) // 4
    one, same, other = (
        corrected_bias(toxicity, subgroup, unit, 4, np.random.default_rng(seed), num_splits=3)
        for seed in (5, 5, 6)
    )
    assert one == same != other


def test_one_unit_cannot_be_split():
    with pytest.raises(PromptError, match="at least 2 templates"):
        corrected_bias(
            np.zeros(4), np.arange(4) % 2, np.zeros(4, dtype=int), 2, np.random.default_rng(0)
        )
