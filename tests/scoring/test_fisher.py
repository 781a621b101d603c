"""The Fisher matrix of heads: its form, its diagonal, and what it says of real sets."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from levelhead.models.architectures import attention_modules, head_counts
from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.scores import ScoreTable
from levelhead.scoring.curvature import curvature, derivatives
from levelhead.scoring.exact import exhaustive
from levelhead.scoring.fisher import cost_warnings, fisher_matrix
from levelhead.selection import select_heads
from levelhead.set_cost import SetCost, indicator
from levelhead.testing import tiny_model

WINDOWS = torch.randint(5, 200, (8, 48), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():  # type: ignore[no-untyped-def]
    found = tiny_model("llama", num_layers=4, num_heads=6, num_key_value_heads=6)
    found.requires_grad_(False)
    return found


@torch.inference_mode()
def measured_kl(model, heads) -> float:  # type: ignore[no-untyped-def]
    p = model(input_ids=WINDOWS).logits[:, :-1].double().log_softmax(-1)
    with ablate(model, heads):
        q = model(input_ids=WINDOWS).logits[:, :-1].double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_it_is_positive_semidefinite_with_the_clipped_values_on_its_diagonal(model) -> None:  # type: ignore[no-untyped-def]
    found = derivatives(model, WINDOWS, silent, 0)
    matrix = found.cost(1.0).fisher
    assert matrix == pytest.approx(matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9 * np.trace(matrix)
    assert np.diag(matrix) == pytest.approx(found.clipped_fisher.mean(0).ravel(), rel=1e-4)
    off = matrix - np.diag(np.diag(matrix))
    assert np.abs(off).max() > 0.05 * np.diag(matrix).max()  # control: heads do share costs


def test_a_window_that_blows_up_counts_for_little() -> None:
    rng = np.random.default_rng(0)
    stretches = rng.normal(size=(20, 6, 2, 3)).astype(np.float32)
    plain = fisher_matrix(stretches, (stretches**2).sum(1))
    wild = stretches.copy()
    wild[7, :, 0, 1] *= 1000
    found = fisher_matrix(wild, (wild**2).sum(1))
    assert found[1, 1] < 1.3 * plain[1, 1]
    assert found[1, 1] == pytest.approx(plain[1, 1], rel=0.3)
    assert np.linalg.eigvalsh(found).min() > -1e-9
    raw = (wild.reshape(120, 6).T @ wild.reshape(120, 6)) / 20
    assert raw[1, 1] > 1000 * plain[1, 1]  # control: unclipped it would decide everything


def test_it_orders_and_sizes_the_cost_of_sets(model) -> None:  # type: ignore[no-untyped-def]
    """Random weights share little, so only what holds everywhere is asked: order and size."""
    cost = curvature(model, WINDOWS, silent, 0, 0.3).cost
    assert cost is not None
    rng = np.random.default_rng(1)
    num_layers, num_heads = head_counts(model)
    measured, predicted = [], []
    for size in (1, 2, 3, 4, 5) * 4:
        flat = rng.choice(num_layers * num_heads, size, replace=False)
        heads = [divmod(int(i), num_heads) for i in flat]
        by_layer: dict[int, list[int]] = {}
        for layer, head in heads:
            by_layer.setdefault(layer, []).append(head)
        measured.append(measured_kl(model, by_layer))
        predicted.append(float(cost.kl(indicator(heads, num_layers, num_heads))))
    assert stats.pearsonr(measured, predicted).statistic > 0.9
    shuffled = rng.permutation(predicted)
    assert stats.pearsonr(measured, shuffled).statistic < 0.8  # control
    assert 0.3 < np.sum(predicted) / np.sum(measured) < 3


@torch.no_grad()
def cancelling_pair(model, layer: int, one: int, other: int) -> None:  # type: ignore[no-untyped-def]
    """Make two heads of a layer write the same with opposite signs: together they do nothing."""
    attention = attention_modules(model)[layer]
    width = attention.head_dim
    a, b = slice(one * width, (one + 1) * width), slice(other * width, (other + 1) * width)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[b] = projection.weight[a]
    attention.o_proj.weight[:, a] *= 4
    attention.o_proj.weight[:, b] = -attention.o_proj.weight[:, a]


def test_sets_of_a_model_against_all_sets_and_one_at_a_time() -> None:
    """Brute force over all pairs of a model in which two heads cancel each other's output."""
    model = tiny_model("llama", num_layers=3, num_heads=6, num_key_value_heads=6, seed=1)
    model.requires_grad_(False)
    cancelling_pair(model, 1, 2, 4)
    effects = curvature(model, WINDOWS, silent, 0, 0.3)
    table = ScoreTable.of_effects({"ppl": effects.effect, "bias:a": 0 * effects.effect})
    table = table.with_cost(effects.cost)
    every = [divmod(head, 6) for head in range(18)]
    measured = {}
    for pair in combinations(every, 2):
        by_layer: dict[int, list[int]] = {}
        for layer, head in pair:
            by_layer.setdefault(layer, []).append(head)
        measured[pair] = measured_kl(model, by_layer)
    best = min(measured, key=measured.__getitem__)
    assert best == ((1, 2), (1, 4))
    assert measured[best] < 1e-9
    chosen = select_heads(table, axis="a", method="fisher_only", alpha=0.12)
    assert chosen.heads == best
    one_at_a_time = select_heads(table, axis="a", method="ppl_only", alpha=0.12)
    assert not set(one_at_a_time.heads) & set(best)
    assert measured[one_at_a_time.heads] > 100 * measured[best]
    # Larger sets hold the pair, too.
    four = select_heads(table, axis="a", method="fisher_only", alpha=0.23)
    assert set(best) < set(four.heads)


def test_exact_effects_make_the_slope(model) -> None:  # type: ignore[no-untyped-def]
    """What single heads were measured to cost, less what the Fisher values say, is linear."""
    effects = exhaustive(model, WINDOWS, silent, 0, 0.3)
    assert effects.cost is not None
    assert effects.fisher is not None
    slope = effects.fisher / 2 - effects.nll_change.mean(0)
    assert effects.cost.slope.reshape(4, 6) == pytest.approx(slope, abs=1e-9)


def test_it_survives_its_file() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 6))
    cost = SetCost(fisher=rows.T @ rows, slope=rng.normal(size=6), calibration=0.5)
    again = SetCost.of_arrays(cost.arrays())
    assert again is not None
    x = rng.random((5, 6))
    assert again.kl(x) == pytest.approx(cost.kl(x))
    assert again.nll(x) == pytest.approx(0.5 * cost.kl(x) - x @ cost.slope)
    assert SetCost.of_arrays({}) is None


def test_many_heads_are_warned_of() -> None:
    assert cost_warnings(1024) == []
    assert "5,120 x 5,120" in cost_warnings(5120)[0]
