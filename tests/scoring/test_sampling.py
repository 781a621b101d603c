"""Sampling is pure, reproducible row by row, and common to whatever models share its seed."""

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import GenerationConfig

from levelhead.errors import ConfigError
from levelhead.models.gates import gated
from levelhead.sampling import Draw, sample_continuations


def draws(problem, count: int) -> list[Draw]:
    return [Draw(problem.prompt_ids[i % 5], f"p{i}", 0) for i in range(count)]


def test_rows_do_not_depend_on_the_batch_or_the_order(make_problem) -> None:
    problem = make_problem()
    wanted = draws(problem, 12)
    arguments = {"seed": 3, "new_tokens": 5}
    whole = sample_continuations(problem.model, problem.tokenizer, wanted, **arguments)
    small = sample_continuations(
        problem.model, problem.tokenizer, wanted[::-1], batch_size=5, **arguments
    )
    assert whole == small[::-1]
    other = sample_continuations(problem.model, problem.tokenizer, wanted, seed=4, new_tokens=5)
    assert whole != other, "another seed draws other continuations"


def test_first_tokens_follow_the_softmax(make_problem) -> None:
    """A chi-square test against the model's own distribution, at temperature 1."""
    problem = make_problem()
    prompt = problem.prompt_ids[0]
    wanted = [Draw(prompt, f"p{i}", 0) for i in range(3000)]
    got = sample_continuations(
        problem.model, problem.tokenizer, wanted, seed=0, new_tokens=1, batch_size=500
    )
    with torch.no_grad():
        logits = problem.model(torch.tensor([prompt])).logits[0, -1]
    p = logits.softmax(-1).double().numpy()
    counts = np.bincount([row[0] for row in got], minlength=len(p))
    big = p * len(wanted) >= 5
    expected = np.append(p[big], p[~big].sum()) * len(wanted)
    observed = np.append(counts[big], counts[~big].sum())
    expected *= observed.sum() / expected.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-4
    greedy = counts.argmax()
    assert counts[greedy] < len(wanted) * 0.9, "control: not greedy decoding"


def test_the_models_own_generation_config_is_ignored_and_restored(make_problem) -> None:
    problem = make_problem()
    wanted = draws(problem, 6)
    plain = sample_continuations(problem.model, problem.tokenizer, wanted, seed=0, new_tokens=5)
    own = problem.model.generation_config
    loaded = GenerationConfig(
        do_sample=True, temperature=0.01, top_k=1, repetition_penalty=9.0, min_new_tokens=4,
        eos_token_id=own.eos_token_id,
    )  # fmt: skip
    problem.model.generation_config = loaded
    try:
        again = sample_continuations(problem.model, problem.tokenizer, wanted, seed=0, new_tokens=5)
        assert problem.model.generation_config is loaded
    finally:
        problem.model.generation_config = own
    assert plain == again


def test_common_random_numbers_pair_two_models(make_problem) -> None:
    problem = make_problem()
    wanted = draws(problem, 60)
    arguments = {"new_tokens": 4}
    base = sample_continuations(problem.model, problem.tokenizer, wanted, seed=0, **arguments)
    gates = torch.ones(3, 6)
    gates[2, 5] = 0.9
    with gated(problem.model, gates):
        near = sample_continuations(problem.model, problem.tokenizer, wanted, seed=0, **arguments)
        far = sample_continuations(problem.model, problem.tokenizer, wanted, seed=1, **arguments)
    same = np.mean([a == b for a, b in zip(base, near, strict=True)])
    unpaired = np.mean([a == b for a, b in zip(base, far, strict=True)])
    assert same > 0.7
    assert unpaired < 0.2


def test_continuations_end_at_the_first_end_of_text(make_problem) -> None:
    problem = make_problem()
    end = problem.tokenizer.eos_token_id
    wanted = [Draw(problem.prompt_ids[0], f"p{i}", 0) for i in range(400)]
    rows = sample_continuations(problem.model, problem.tokenizer, wanted, seed=0, new_tokens=8)
    ended = [row for row in rows if end in row]
    assert ended, "the tiny model ends some texts"
    assert all(row.index(end) == len(row) - 1 for row in ended)
    assert any(len(row) == 8 for row in rows)


def test_a_context_that_is_too_long_is_an_error(make_problem) -> None:
    problem = make_problem()
    limit = problem.model.config.max_position_embeddings
    with pytest.raises(ConfigError, match=str(limit)):
        sample_continuations(
            problem.model, problem.tokenizer, draws(problem, 1), seed=0, new_tokens=limit
        )
