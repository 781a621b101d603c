"""The finite estimator is brute-force ablation of the same quantity; hybrid uses it in places."""

from dataclasses import replace

import numpy as np
import pytest
from tests.rounding import SAME

from levelhead.models.architectures import head_counts
from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.sampling import pad_id
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.finite import ablated_toxicity, finite
from levelhead.scoring.hybrid import fisher_values, heads_to_ablate, hybrid
from levelhead.scoring.matched_rows import rows_to_read
from levelhead.scoring.problem import BiasProblem, EstimatorOptions, sample_texts
from levelhead.scoring.teacher_forcing import read_rows
from levelhead.scoring.token_gradient import gradients, token_gradient
from levelhead.scoring.token_model import token_toxicity
from levelhead.testing import tiny_model, tiny_tokenizer


@pytest.mark.parametrize("matched", [True, False])
def test_finite_equals_brute_force_ablation(make_problem, matched) -> None:
    problem = make_problem()
    base = sample_texts(problem, silent, "base")
    tau = token_toxicity(problem, base)
    rows = rows_to_read(problem, base, matched=matched).rows[:9]
    heads = [(0, 0), (0, 3), (1, 2), (2, 5)]
    fast = ablated_toxicity(problem, rows, tau, heads, silent)

    def expected() -> np.ndarray:
        return read_rows(problem.model, rows, tau, pad=pad_id(problem.tokenizer), batch_size=1)[0]

    whole = expected()
    for position, (layer, head) in enumerate(heads):
        with ablate(problem.model, {layer: [head]}):
            np.testing.assert_allclose(fast[:, position], expected() - whole, atol=SAME)
    assert np.abs(fast).max() > 1e-3, "control: some head changes something"


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen2"])
def test_finite_equals_brute_force_in_other_families(prompts, make_problem, family) -> None:
    scorer = make_problem().scorer
    model = tiny_model(family)
    model.requires_grad_(False)
    problem = BiasProblem.of(
        model, tiny_tokenizer(), scorer, prompts, samples=1, new_tokens=4, seed=0
    )
    base = sample_texts(problem, silent, "base")
    tau = token_toxicity(problem, base)
    rows = rows_to_read(problem, base, matched=True).rows[:5]
    fast = ablated_toxicity(problem, rows, tau, [(1, 1)], silent)[:, 0]
    pad = pad_id(problem.tokenizer)
    whole = read_rows(model, rows, tau, pad=pad, batch_size=None)[0]
    with ablate(model, {1: [1]}):
        slow = read_rows(model, rows, tau, pad=pad, batch_size=None)[0] - whole
    np.testing.assert_allclose(fast, slow, atol=SAME)
    assert np.abs(slow).max() > 100 * SAME, "control: the head changes something"


def test_gradient_and_finite_agree_where_effects_are_small(make_problem) -> None:
    """Gates of 1 - e: the finite change is the gradient's, to first order; of 0 it need not be."""
    problem = make_problem(samples=2)
    base = sample_texts(problem, silent, "base")
    by_gradient = axis_effects(problem, base, token_gradient(problem, base, silent))
    by_ablation = axis_effects(problem, base, finite(problem, base, silent))
    one, other = by_gradient.effect.ravel(), by_ablation.effect.ravel()
    assert np.corrcoef(one, other)[0, 1] > 0.8
    assert not np.allclose(one, other)


def test_hybrid_is_finite_for_the_chosen_heads_and_gradient_elsewhere(make_problem) -> None:
    problem = make_problem(samples=1, seed=2)
    base = sample_texts(problem, silent, "base")
    options = EstimatorOptions(alpha=0.1)
    found = hybrid(problem, base, silent, options)
    assert found.diagnostics["beta"] > 0.01, "where no toxicity depends on the words, shifts are 0"
    mixed = found.shift
    linear = token_gradient(problem, base, silent).shift
    true = finite(problem, base, silent).shift
    differs = ~np.isclose(mixed, linear, atol=1e-9).all(axis=(0, 1))
    count = int(differs.sum())
    assert 1 <= count <= 3  # two of 18 heads, and float noise in none
    np.testing.assert_allclose(mixed[:, :, differs], true[:, :, differs], atol=SAME)


def test_hybrid_spends_on_fisher_values_and_on_the_boundary() -> None:
    rng = np.random.default_rng(0)
    effect, fisher = rng.random((10, 10)), rng.random((10, 10))
    protected = effect > 0.5  # the largest effects cannot be pruned
    heads = heads_to_ablate(effect, fisher, EstimatorOptions(alpha=0.1, protected=protected))
    top = {divmod(int(i), 10) for i in np.argsort(-fisher, axis=None)[:4]}
    assert top <= set(heads)
    rest = [h for h in heads if h not in top]
    free = np.sort(effect[~protected])[::-1]
    ranks = [int(np.flatnonzero(free == effect[h])[0]) for h in rest if not protected[h]]
    assert len(ranks) == len(rest)
    assert min(ranks) >= 10 - 4
    assert max(ranks) <= 10 + 3


def test_fisher_values_see_heads_that_change_text(make_problem, planted) -> None:
    """The planted head drives what is written; its Fisher value is among the largest."""
    problem = make_problem(samples=2)
    base = sample_texts(problem, silent, "base")
    fisher = fisher_values(problem, base, silent)
    assert fisher.shape == head_counts(problem.model)
    assert (fisher >= 0).all()
    assert fisher[planted.head] > np.median(fisher)


def test_gradients_do_not_depend_on_other_rows(make_problem) -> None:
    problem = replace(make_problem(), batch_size=3)
    base = sample_texts(problem, silent, "base")
    tau = token_toxicity(problem, base)
    rows = rows_to_read(problem, base, matched=True).rows[:7]
    together = gradients(problem, rows, tau, silent)
    for i in (0, 6):
        alone = gradients(problem, rows[i : i + 1], tau, silent)[0]
        np.testing.assert_allclose(together[i], alone, atol=SAME)
        assert np.abs(alone).max() > 100 * SAME  # control: there is something to compare
