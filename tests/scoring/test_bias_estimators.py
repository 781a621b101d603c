"""Every estimator of bias effects, where the answer is known by construction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from levelhead.models.architectures import head_counts
from levelhead.models.gates import ablate as ablated
from levelhead.models.gates import gated
from levelhead.progress import silent
from levelhead.sampling import pad_id
from levelhead.scoring import BIAS_ESTIMATORS
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.matched_rows import matched_rows, rows_to_read
from levelhead.scoring.problem import sample_texts
from levelhead.scoring.teacher_forcing import Row, continuation_logits, expected_toxicity
from levelhead.scoring.token_gradient import token_gradient
from levelhead.scoring.token_model import token_model, token_toxicity


@pytest.mark.parametrize("toxicity_input", ["continuation", "full"])
@pytest.mark.parametrize("estimator", list(BIAS_ESTIMATORS))
def test_the_planted_head_comes_first(make_problem, planted, estimator, toxicity_input) -> None:
    problem = make_problem(samples=4, toxicity_input=toxicity_input)
    base = sample_texts(problem, silent, "base")
    effects = axis_effects(problem, base, BIAS_ESTIMATORS[estimator](problem, base, silent))
    assert effects.measurable
    best = np.unravel_index(np.argmax(effects.effect), effects.effect.shape)
    assert tuple(map(int, best)) == planted.head
    others = np.delete(effects.effect.ravel(), np.argmax(effects.effect))
    layer, head = planted.head
    assert effects.effect[layer, head] > 2 * others.max()
    assert effects.effect[layer, head] > 3 * effects.stderr[layer, head]


def test_signed_effects_point_at_the_planted_subgroup(make_problem, planted) -> None:
    problem = make_problem(samples=4)
    base = sample_texts(problem, silent, "base")
    effects = axis_effects(problem, base, token_gradient(problem, base, silent))
    women = effects.subgroups.index("women")
    layer, head = planted.head
    # d = T_S - T_s is below 0 for the subgroup written about most toxically; the head causes it.
    assert effects.gap[women] == effects.gap.min() < 0
    assert effects.gap_effect[women, layer, head] < 0
    assert all(effects.gap_effect[s, layer, head] > 0 for s in range(3) if s != women)


def test_without_the_planted_head_no_head_stands_out(make_problem, planted) -> None:
    """Control: the same estimator on the same model with the head's effect taken away."""
    problem = make_problem(samples=4)
    layer, head = planted.head

    def largest_effect() -> float:
        base = sample_texts(problem, silent, "base")
        return float(
            axis_effects(problem, base, token_gradient(problem, base, silent)).effect.max()
        )

    whole = largest_effect()
    with ablated(problem.model, {layer: [head]}):
        assert largest_effect() < whole / 5


def test_control_variate_keeps_the_mean_and_takes_noise_away(make_problem) -> None:
    problem = make_problem(samples=8)
    base = sample_texts(problem, silent, "base")
    model = token_model(problem, base, silent)
    assert model.r_squared > 0.02  # this model repeats its toxic word: far from additive
    assert model.adjusted.var() < base.toxicity.var()
    error = base.toxicity.std() / np.sqrt(len(base.texts))
    assert abs(model.adjusted.mean() - base.toxicity.mean()) < 4 * error


def test_token_gradient_equals_finite_differences(make_problem) -> None:
    """d r / d g of the very quantity that is differentiated, head by head."""
    problem = make_problem()
    problem = replace(problem, model=problem.model.double())
    try:
        base = sample_texts(problem, silent, "base")
        tau = token_toxicity(problem, base)
        rows = list(matched_rows(problem, base).rows[:4])
        size = head_counts(problem.model)

        def expected(gates: torch.Tensor) -> torch.Tensor:
            with gated(problem.model, gates):
                steps = continuation_logits(problem.model, rows, pad_id(problem.tokenizer))
                # double() keeps the digits that float() in the library takes away
                return expected_toxicity(steps, rows, tau).double().sum()

        gates = torch.ones(len(rows), *size, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(expected(gates), gates)
        step = 1e-2
        for layer in range(size[0]):
            for head in range(size[1]):
                up, down = torch.ones(size).double(), torch.ones(size).double()
                up[layer, head] += step
                down[layer, head] -= step
                slope = (expected(up) - expected(down)) / (2 * step)
                got = gradient[:, layer, head].sum()
                assert got.item() == pytest.approx(slope.item(), abs=2e-4, rel=2e-2)
    finally:
        problem.model.float()


def test_matched_rows_share_the_continuation_over_subgroups(make_problem) -> None:
    problem = make_problem(samples=1)
    base = sample_texts(problem, silent, "base")
    chosen = matched_rows(problem, base)
    assert len(chosen.rows) == len(problem.prompts)
    by_source: dict[int, set[int]] = {}
    for row, source in zip(chosen.rows, chosen.source, strict=True):
        by_source.setdefault(int(source), set()).add(row.subgroup)
    assert all(groups == {0, 1, 2} for groups in by_source.values())
    sources = [int(problem.subgroup[base.prompt[s]]) for s in by_source]
    assert set(sources) == {0, 1, 2}, "the subgroup that writes rotates"


def test_a_second_source_is_another_subgroups_continuation(make_problem) -> None:
    problem = make_problem(samples=1, toxicity_input="full")
    base = sample_texts(problem, silent, "base")
    once = matched_rows(problem, base)
    twice = rows_to_read(problem, base, matched=True)
    assert len(twice.rows) == 2 * len(once.rows)
    for prompt in range(len(problem.prompts)):
        sources = twice.source[twice.prompt == prompt]
        assert len(set(problem.subgroup[base.prompt[sources]])) == 2
    assert len(matched_rows(problem, base, sources=9).rows) == 3 * len(once.rows)


def test_padding_does_not_change_expected_toxicity(make_problem) -> None:
    problem = make_problem()
    base = sample_texts(problem, silent, "base")
    tau = token_toxicity(problem, base)
    rows = [
        Row(problem.prompt_ids[0], base.tokens[0][:2], 0),
        Row(problem.prompt_ids[-1], base.tokens[-1], 1),
    ]
    pad = pad_id(problem.tokenizer)
    with torch.no_grad():
        together = expected_toxicity(continuation_logits(problem.model, rows, pad), rows, tau)
        for i, row in enumerate(rows):
            steps = continuation_logits(problem.model, [row], pad)
            alone = expected_toxicity(steps, [row], tau)[0]
            torch.testing.assert_close(together[i, : len(alone)], alone, rtol=1e-4, atol=1e-6)
            assert not together[i, len(row.continuation) :].any()
