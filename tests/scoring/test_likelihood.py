"""The likelihood measure: its definition, its gradient against ablation, and a planted head."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.scoring.conftest import WordScorer

from levelhead.errors import PromptError
from levelhead.metrics.bias import gaps
from levelhead.models.architectures import head_counts
from levelhead.models.gates import ablate, gated
from levelhead.progress import silent
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.likelihood import likelihood, read_log_likelihood
from levelhead.scoring.matched_rows import matched_rows
from levelhead.scoring.problem import BiasProblem, sample_texts
from levelhead.scoring.rounds import estimate
from levelhead.testing import PlantedModel, planted_model


def by_hand(problem, prompt: int, continuation: tuple[int, ...]) -> float:
    """Log-likelihood per token, one text at a time and without any padding."""
    ids = torch.tensor([[*problem.prompt_ids[prompt], *continuation]])
    with torch.no_grad():
        p = problem.model(input_ids=ids).logits[0].log_softmax(-1)
    start = len(problem.prompt_ids[prompt])
    places = range(start, ids.shape[1])
    return float(np.mean([p[place - 1, ids[0, place]].item() for place in places]))


def test_level_and_gaps_are_as_defined(make_problem) -> None:
    problem = make_problem(samples=1)
    base = sample_texts(problem, silent, "base")
    shifts = likelihood(problem, base, silent)
    expected = [
        np.mean(
            [by_hand(problem, index, base.tokens[source]) for source in range(first, first + 3)]
        )
        for index in range(len(problem.prompts))
        for first in [index - index % 3]  # the three versions of a prompt stand together
    ]
    np.testing.assert_allclose(shifts.toxicity, expected, atol=1e-4)
    assert (shifts.toxicity < 0).all()
    effects = axis_effects(problem, base, shifts)
    d = gaps(np.array(expected), problem.subgroup, 3)
    np.testing.assert_allclose(effects.gap, d, atol=1e-4)
    assert effects.bias == pytest.approx(np.abs(d[effects.used]).sum(), abs=1e-4)


def test_the_gradient_equals_finite_differences_and_predicts_ablation(prompts) -> None:
    """On a model whose heads matter little, where the first order is all there is."""
    weak = planted_model(strength=0.1)
    scorer = WordScorer(weak.toxic_word)
    problem = BiasProblem.of(
        weak.model.double(), weak.tokenizer, scorer, prompts, samples=1, new_tokens=6
    )
    base = sample_texts(problem, silent, "base")
    shifts = likelihood(problem, base, silent)
    rows = matched_rows(problem, base, sources=3).rows
    subgroup = np.array([row.subgroup for row in rows])
    size = head_counts(problem.model)
    own = read_log_likelihood(problem, rows, silent)
    mean = (shifts.shift * shifts.count[:, :, None, None]).sum(0) / 36

    def moved(layer: int, head: int, gate: float) -> np.ndarray:
        gates = torch.ones(size, dtype=torch.float64)
        gates[layer, head] = gate
        with gated(problem.model, gates):
            found = read_log_likelihood(problem, rows, silent) - own
        return np.array([found[subgroup == s].mean() for s in range(3)])

    ablated = np.empty_like(mean)
    for layer in range(size[0]):
        for head in range(size[1]):
            slope = (moved(layer, head, 0.8) - moved(layer, head, 1.2)) / 0.4
            # float() in the library leaves about 1e-5 of the difference quotient
            np.testing.assert_allclose(mean[:, layer, head], slope, atol=2e-4, rtol=0.02)
            ablated[:, layer, head] = moved(layer, head, 0.0)
    with ablate(problem.model, {0: [3]}):
        without = read_log_likelihood(problem, rows, silent) - own
    assert ablated[1, 0, 3] == pytest.approx(without[subgroup == 1].mean(), abs=1e-6)
    for told, true in ((mean, ablated), (mean - mean.mean(0), ablated - ablated.mean(0))):
        assert np.corrcoef(told.ravel(), true.ravel())[0, 1] > 0.95


@pytest.fixture(scope="module")
def weak() -> PlantedModel:
    """Planted so weakly that the first order goes all the way: ablation closes the gap."""
    return planted_model(strength=0.2)


@pytest.fixture(scope="module")
def planted_texts(weak, prompts):
    """Every continuation starts with the word that the planted head makes likely after women."""
    scorer = WordScorer(weak.toxic_word)
    problem = BiasProblem.of(weak.model, weak.tokenizer, scorer, prompts, samples=2, new_tokens=6)
    base = sample_texts(problem, silent, "base")
    (word,) = weak.tokenizer(weak.toxic_word, add_special_tokens=False)["input_ids"]
    return problem, replace(base, tokens=tuple((word, *tokens[:2]) for tokens in base.tokens))


def test_the_planted_head_comes_first(planted_texts, weak) -> None:
    """It alone makes these texts likelier after women's names."""
    problem, base = planted_texts
    effects = axis_effects(problem, base, estimate(likelihood, problem, base, silent))
    assert effects.measurable
    women = problem.subgroups.index("women")
    assert effects.gap[women] == effects.gap.min() < -0.1  # T_women is the largest
    layer, head = weak.head
    best = np.unravel_index(np.argmax(effects.effect), effects.effect.shape)
    assert tuple(map(int, best)) == (layer, head)
    others = np.delete(effects.effect.ravel(), np.argmax(effects.effect))
    assert effects.effect[layer, head] > 5 * others.max()
    assert effects.effect[layer, head] > 3 * effects.stderr[layer, head]
    assert effects.reliability > 0.6
    # The known answer: it makes all of the gap, so that ablating it closes it.
    assert effects.gap_effect[women, layer, head] == pytest.approx(effects.gap[women], rel=0.1)
    assert effects.effect[layer, head] == pytest.approx(effects.bias, rel=0.2)


def test_ablating_the_planted_head_closes_the_gap(planted_texts, weak) -> None:
    """Measured anew without it, the same texts are about as likely for everyone."""
    problem, base = planted_texts
    whole = axis_effects(problem, base, likelihood(problem, base, silent))
    with ablate(problem.model, {weak.head[0]: [weak.head[1]]}):
        without = axis_effects(problem, base, likelihood(problem, base, silent))
    assert np.abs(without.gap).sum() < np.abs(whole.gap).sum() / 6
    assert np.abs(without.effect).max() < whole.effect.max() / 8


def test_with_shuffled_subgroups_there_is_no_gap(planted_texts) -> None:
    """Control: the same texts, with labels drawn anew in every template."""
    problem, base = planted_texts
    rng = np.random.default_rng(0)
    shuffled = []
    for start in range(0, len(problem.prompts), 3):
        names = rng.permutation(problem.subgroups)
        group = problem.prompts[start : start + 3]
        shuffled += [replace(p, subgroup=str(n)) for p, n in zip(group, names, strict=True)]
    other = replace(problem, prompts=tuple(shuffled))
    found = axis_effects(other, base, estimate(likelihood, other, base, silent))
    assert not found.measurable


def test_prompts_without_a_counterpart_are_refused(make_problem) -> None:
    problem = make_problem(samples=1)
    base = sample_texts(problem, silent, "base")
    alone = replace(problem.prompts[0], template="another")
    with pytest.raises(PromptError, match="3 of 36 prompts of axis 'gender' have no counterpart"):
        likelihood(replace(problem, prompts=(alone, *problem.prompts[1:])), base, silent)
