"""Scores of neurons, layers and weights, where the answer is known by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from tests.rounding import SAME
from tests.units.conftest import NEURON, VowelScorer

from levelhead.errors import ConfigError, ModelError
from levelhead.models.attention_weights import attention_weights, describe, without_weights
from levelhead.models.gates import ablate
from levelhead.models.neuron_gates import ablate_neurons, gated_neurons
from levelhead.models.neuron_layouts import neuron_counts
from levelhead.models.neurons import prune_neurons
from levelhead.progress import silent
from levelhead.sampling import pad_id
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.layers import layer_ablation, layer_finite, layer_gradient
from levelhead.scoring.matched_rows import rows_to_read
from levelhead.scoring.neurons import ablated_nll_neurons, neuron_curvature, neuron_gradient
from levelhead.scoring.perplexity_effects import window_nll
from levelhead.scoring.problem import sample_texts
from levelhead.scoring.teacher_forcing import read_rows
from levelhead.scoring.token_gradient import token_gradient
from levelhead.scoring.token_model import token_model
from levelhead.scoring.weights import weight_effects
from levelhead.testing import tiny_model


def scored(problem, estimator):
    base = sample_texts(problem, silent, "base")
    return axis_effects(problem, base, estimator(problem, base, silent))


def test_the_planted_neuron_comes_first(make_problem):
    effects = scored(make_problem(samples=2), neuron_gradient)
    assert effects.measurable
    assert effects.reliability is not None
    best = np.unravel_index(np.argmax(effects.effect), effects.effect.shape)
    assert tuple(map(int, best)) == NEURON
    assert (
        effects.effect[NEURON]
        > 5 * np.delete(effects.effect.ravel(), np.argmax(effects.effect)).max()
    )
    assert effects.effect[NEURON] > 3 * effects.stderr[NEURON]


def test_without_the_planted_neuron_none_stands_out(make_problem):
    """Control: the same estimator on the model without what the neuron writes."""
    problem = make_problem(samples=2)
    whole = scored(problem, neuron_gradient).effect.max()
    with ablate_neurons(problem.model, {NEURON[0]: [NEURON[1]]}):
        assert scored(problem, neuron_gradient).effect.max() < whole / 5


def summed_toxicity(problem, rows, model):
    found, _ = read_rows(
        problem.model, rows, model.tau, pad=pad_id(problem.tokenizer), batch_size=7
    )
    return found


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_neuron_gradients_equal_finite_differences(family, make_problem):
    problem = make_problem()
    model = tiny_model(family).requires_grad_(False) if family != "llama" else problem.model
    problem = replace(problem, model=model, scorer=VowelScorer())
    base = sample_texts(problem, silent, "base")
    problem = replace(problem, model=model.double())
    shifts = neuron_gradient(problem, base, silent)
    token = token_model(problem, base, silent)
    chosen = rows_to_read(problem, base, matched=True)
    subgroup, template = problem.subgroup[chosen.prompt], problem.template[chosen.prompt]
    step = 0.05
    for layer, neuron in (NEURON, (0, 3), (1, 40)):
        ends = []
        for sign in (1, -1):
            gates = torch.ones(neuron_counts(model), dtype=torch.float64)
            gates[layer, neuron] += sign * step
            with gated_neurons(model, gates):
                ends.append(summed_toxicity(problem, chosen.rows, token))
        slope = -token.beta * (ends[0] - ends[1]) / (2 * step)
        # Of women: the planted neuron is at rest where no text has the name.
        expected = [slope[(subgroup == 2) & (template == t)].mean() for t in shifts.template]
        found = shifts.shift[:, 2, layer, neuron]
        assert np.abs(expected).max() > 0
        assert np.corrcoef(found, expected)[0, 1] > 0.999
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.02 * np.abs(expected).max())


def test_perplexity_effects_of_neurons_rank_as_exact_ablation_does(trained):
    model, windows = trained
    effects = neuron_curvature(model, windows, silent, 0, 0.3)
    num_layers, each = neuron_counts(model)
    pairs = [(layer, neuron) for layer in range(num_layers) for neuron in range(each)]
    exact = ablated_nll_neurons(model, windows[:-2], pairs)
    change = (exact - effects.base_nll[:, None]).mean(0)
    predicted = effects.nll_change.mean(0).ravel()
    assert stats.spearmanr(predicted, change).statistic > 0.6
    shuffled = np.random.default_rng(0).permutation(predicted)
    assert abs(stats.spearmanr(shuffled, change).statistic) < 0.3
    assert effects.halves(np.random.default_rng(0), 3).shape == (3, 2, num_layers, each)


def test_layers_are_ablated_for_true(make_problem, windows):
    problem = make_problem()
    base = sample_texts(problem, silent, "base")
    shifts = layer_finite(problem, base, silent)
    token = token_model(problem, base, silent)
    rows = rows_to_read(problem, base, matched=True)
    whole = summed_toxicity(problem, rows.rows, token)
    with ablate(problem.model, {1: range(6)}):
        without = summed_toxicity(problem, rows.rows, token)
    own = problem.subgroup[rows.prompt] == 2
    expected = token.beta * (without - whole)[own].mean()
    assert shifts.shift[:, 2, 1, 0].mean() == pytest.approx(expected, abs=SAME)
    assert abs(expected) > 100 * SAME

    effects = layer_ablation(problem.model, windows, silent, 0, 0.3)
    with ablate(problem.model, {2: range(6)}), torch.no_grad():
        nll = window_nll(problem.model, windows).double().numpy()
    np.testing.assert_allclose(effects.nll_change[:, 2, 0], nll - effects.base_nll, atol=1e-5)
    assert effects.effect.shape == (3, 1)


def test_the_layer_of_the_planted_head_comes_first(make_problem, planted_neuron):
    effects = scored(make_problem(samples=2), layer_finite)
    assert int(effects.effect.argmax()) == planted_neuron.head[0]
    assert effects.effect.max() > 3 * np.sort(effects.effect.ravel())[-2]


def test_first_order_effects_of_layers_are_the_sums_of_their_heads(make_problem):
    problem = make_problem()
    base = sample_texts(problem, silent, "base")
    heads = token_gradient(problem, base, silent).shift
    layers = layer_gradient(problem, base, silent).shift
    size = np.abs(layers).max()
    np.testing.assert_allclose(layers[..., 0], heads.sum(-1), atol=SAME * size)
    assert np.abs(layers[..., 0] - heads[..., 0]).max() > 0.1 * size  # control: one head is not all


def test_bias_of_weights_is_predicted_to_first_order(make_problem, windows):
    """Zeroing small sets of weights changes bias as their scores add up to."""
    problem = make_problem(samples=1)
    base = sample_texts(problem, silent, "base")
    scores = weight_effects(problem, base, windows, silent)
    token = token_model(problem, base, silent)
    chosen = rows_to_read(problem, base, matched=True)
    whole = summed_toxicity(problem, chosen.rows, token)
    subgroup = problem.subgroup[chosen.prompt]
    signs = np.array([scores.diagnostics["signs"][name] for name in problem.subgroups])

    def fall(masks):
        with without_weights(problem.model, masks):
            moved = token.beta * (summed_toxicity(problem, chosen.rows, token) - whole)
        shift = np.array([moved[subgroup == s].mean() for s in range(3)])
        return -float(signs @ (problem.weights @ shift - shift))

    rng = np.random.default_rng(0)
    predicted, true = [], []
    for _ in range(25):
        masks = {
            name: torch.from_numpy(rng.random(tuple(values.shape)) < 0.01)
            for name, values in scores.fall.items()
        }
        predicted.append(sum(float(scores.fall[n][m].sum()) for n, m in masks.items()))
        true.append(fall(masks))
    found = stats.linregress(predicted, true)
    assert found.rvalue > 0.9
    assert 0.7 < found.slope < 1.4
    # Control: other weights' scores say nothing.
    shuffled = rng.permutation(predicted)
    assert abs(np.corrcoef(shuffled, true)[0, 1]) < 0.6


@pytest.mark.slow
def test_cost_of_weights_is_predicted(make_problem, trained):
    """Sets of those whose zeroing costs most and least, half of each."""
    model, windows = trained
    problem = replace(make_problem(), model=model, scorer=VowelScorer())
    scores = weight_effects(problem, sample_texts(problem, silent, "base"), windows, silent)
    rng = np.random.default_rng(0)
    predicted, true = [], []
    with torch.no_grad():
        before = window_nll(model, windows).double().mean()
        for _ in range(25):
            tilt = rng.normal()
            masks = {}
            for name, cost in scores.cost.items():
                rank = cost.flatten().argsort().argsort().reshape(cost.shape) / cost.numel()
                odds = 0.03 * torch.exp(tilt * (2 * rank - 1))
                masks[name] = torch.from_numpy(rng.random(tuple(cost.shape))) < odds
            predicted.append(sum(float(scores.cost[n][m].sum()) for n, m in masks.items()))
            with without_weights(model, masks):
                true.append(float(window_nll(model, windows).double().mean() - before))
    assert stats.spearmanr(predicted, true).statistic > 0.8
    assert abs(stats.spearmanr(rng.permutation(predicted), true).statistic) < 0.6


def test_weights_come_back_and_collect_no_gradients(make_problem, windows):
    problem = make_problem()
    before = {n: w.detach().clone() for n, w in attention_weights(problem.model).items()}
    masks = {name: weight > 0 for name, weight in before.items()}
    with without_weights(problem.model, masks):
        assert any(
            bool((w != before[n]).any()) for n, w in attention_weights(problem.model).items()
        )
    after = attention_weights(problem.model)
    assert all(torch.equal(before[n], w) and w.grad is None for n, w in after.items())
    record = describe(masks)
    assert record["zeroed"] == sum(int(m.sum()) for m in masks.values())
    other = {n: ~m for n, m in masks.items()}
    assert describe(other)["digest"] != record["digest"]


def test_what_cannot_be_scored_is_refused(make_problem):
    from levelhead.config import RunConfig

    problem = make_problem()
    base = sample_texts(problem, silent, "base")
    prune_neurons(problem.model, {0: [1]})
    with pytest.raises(ModelError, match="lost neurons already"):
        neuron_gradient(problem, base, silent)
    with pytest.raises(ModelError, match="pruned already"):
        attention_weights(problem.model)
    for options, said in [
        ({"unit": "neuron", "estimator": "finite"}, "has no --estimator finite"),
        ({"unit": "neuron", "protect": "exact"}, "has no --protect exact"),
        ({"unit": "neuron", "two_way": True}, "--two-way"),
        ({"unit": "neuron", "method": "joint"}, "has no --method joint"),
        ({"unit": "layer", "method": "magnitude"}, "has no --method magnitude"),
        ({"unit": "layer", "exhaustive": False}, "has --exhaustive"),
        ({"unit": "neuron", "protocol": "paper"}, "has no --estimator ablate"),
    ]:
        with pytest.raises(ConfigError, match=said):
            RunConfig.of(None, **options)
    assert RunConfig.of(None, unit="layer").estimator == "finite"
