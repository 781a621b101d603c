"""Sampling is pure, reproducible row by row, and common to whatever models share its seed."""

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import GenerationConfig

from levelhead import sampling
from levelhead.errors import ConfigError, ModelError
from levelhead.models.gates import gated
from levelhead.models.surgery import prune_heads
from levelhead.sampling import Draw, gumbel, sample_continuations
from levelhead.testing import TINY_FAMILIES, tiny_model, tiny_tokenizer


def draws(problem, count: int) -> list[Draw]:
    return [Draw(problem.prompt_ids[i % 5], f"p{i}", 0) for i in range(count)]


@pytest.mark.usefixtures("clear_draws")
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


def test_the_noise_is_gumbel_also_where_it_is_rare() -> None:
    """The largest of a vocabulary decide. (numpy's float32 exponentials are 0 once in 2^23.)"""
    bits, row = np.random.SFC64(7), torch.empty(50_001)
    largest = []
    for _ in range(800):
        gumbel(bits, row)
        assert torch.isfinite(row).all()
        largest.append(float(row.max()) - np.log(len(row)))
    assert stats.kstest(row.double().numpy(), "gumbel_r").pvalue > 1e-3
    assert stats.kstest(largest, "gumbel_r").pvalue > 1e-3
    assert max(largest) < 16, "which one of 800 exceeds once in 11,000 times"


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


def shared_prompts() -> list[Draw]:
    """Four draws of each prompt; one prompt has nothing before its last token, two are as long."""
    rng = np.random.default_rng(0)
    prompts = [tuple(map(int, rng.integers(4, 130, size))) for size in (1, 3, 7, 7, 12)]
    return [Draw(prompt, f"p{i}", k) for i, prompt in enumerate(prompts) for k in range(4)]


@pytest.mark.usefixtures("clear_draws")
@pytest.mark.parametrize(
    ("family", "pruned"),
    [*((family, False) for family in TINY_FAMILIES), ("gpt2", True), ("mistral", True)],
)
def test_reading_a_prompt_once_changes_no_token(family, pruned, monkeypatch) -> None:
    """With and without shared prompts, past the sliding windows; a layer may have no heads."""
    model = tiny_model(family).requires_grad_(False)
    if pruned:
        prune_heads(model, {0: list(range(6)), 1: [1, 4]})
    wanted = shared_prompts()
    arguments = {"seed": 0, "new_tokens": 8}
    shared = sample_continuations(model, tiny_tokenizer(), wanted, **arguments)
    monkeypatch.setattr(sampling, "_read_prompts", lambda *_: None)
    plain = sample_continuations(model, tiny_tokenizer(), wanted, **arguments)
    assert shared == plain
    assert len(set(shared)) == len(shared), "control: draws of one prompt differ"


@pytest.mark.usefixtures("clear_draws")
def test_a_prompt_is_read_once_in_a_batch_that_fits(make_problem) -> None:
    """Also after a batch that did not fit in memory has been halved."""
    problem = make_problem()
    wanted = [Draw(problem.prompt_ids[i], f"p{i}", k) for i in (0, 1, 2) for k in range(8)]
    shapes: list[tuple[int, int]] = []

    def seen(_, args, kwargs) -> None:
        if len(kwargs["input_ids"]) > 12:
            raise MemoryError
        shapes.append(tuple(kwargs["input_ids"].shape))

    arguments = {"seed": 0, "new_tokens": 3, "batch_size": 24}
    whole = sample_continuations(problem.model, problem.tokenizer, wanted, **arguments)
    handle = problem.model.base_model.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        halved = sample_continuations(problem.model, problem.tokenizer, wanted, **arguments)
    finally:
        handle.remove()
    assert halved == whole
    read = [shape for shape in shapes if shape[1] > 1]
    width = len(problem.prompt_ids[0]) - 1
    # the first pass over three prompts is repeated with the halves, which hold two prompts each
    assert [rows for rows, _ in read] == [3, 2, 2]
    assert all(size == width for _, size in read)


def test_a_model_that_yields_nan_is_an_error(make_problem) -> None:
    problem = make_problem()

    def spoil(_, args, out) -> torch.Tensor:
        spoiled = out.clone()
        spoiled[0, -1, 7] = float("nan")
        return spoiled

    handle = problem.model.lm_head.register_forward_hook(spoil)
    try:
        with pytest.raises(ModelError, match="NaN"):
            sample_continuations(
                problem.model, problem.tokenizer, draws(problem, 3), seed=0, new_tokens=2
            )
    finally:
        handle.remove()
