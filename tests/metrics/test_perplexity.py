import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from levelhead.errors import ModelError, TextError
from levelhead.metrics import perplexity as module
from levelhead.metrics.perplexity import (
    PerplexityResult,
    context_length,
    perplexity,
    relative_increase,
    strided_perplexity,
    strided_windows,
    windows,
)
from levelhead.testing import tiny_model

VOCABULARY = 50


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request):
    torch.manual_seed(0)  # only the weights of this test's model
    size = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}
    if request.param == "gpt2":
        config = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **size)
        made = GPT2LMHeadModel(config)
    else:
        made = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=32,
                **size,
            )
        )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)  # logits that differ, so that a wrong target shows
    return made.eval()


@pytest.fixture(scope="module")
def text():
    return np.random.default_rng(0).integers(1, VOCABULARY, 101).tolist()


def token_by_token(model, text, window, overlap, bos):
    """Each token's NLL from a forward pass of its own over exactly its context."""
    out, start, stop = [], 0, 0
    prefix = [] if bos is None else [bos]
    while stop < len(text):
        first = stop
        start = max(0, stop - overlap)
        stop = min(start + window - len(prefix), len(text))
        for position in range(first, stop):
            context = prefix + text[start:position]
            if context:
                with torch.no_grad():
                    logits = model(torch.tensor([context])).logits[0, -1].double()
                out.append(-logits.log_softmax(-1)[text[position]].item())
    return out


@pytest.mark.parametrize("bos", [None, 7])
@pytest.mark.parametrize(("window", "overlap"), [(32, 8), (16, 15 - 2), (10, 1), (32, 20)])
def test_equals_scoring_token_by_token(model, text, window, overlap, bos):
    expected = token_by_token(model, text, window, overlap, bos)
    got = perplexity(model, text, window=window, overlap=overlap, bos_token_id=bos)
    assert got.num_tokens == len(expected) == len(text) - (bos is None)
    assert got.block_nll.sum() == pytest.approx(sum(expected), rel=1e-5)
    assert got.perplexity == pytest.approx(math.exp(np.mean(expected)), rel=1e-5)
    # The control: the same tokens in another order.
    other = perplexity(model, text[::-1], window=window, overlap=overlap, bos_token_id=bos)
    assert other.perplexity != pytest.approx(got.perplexity, rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_does_not_depend_on_the_batch_size(model, text, batch_size):
    one = perplexity(model, text, window=12, overlap=3, batch_size=2)
    got = perplexity(model, text, window=12, overlap=3, batch_size=batch_size)
    np.testing.assert_allclose(got.block_nll, one.block_nll, rtol=1e-5)
    np.testing.assert_array_equal(got.block_tokens, one.block_tokens)


def test_chunks_and_models_without_logits_to_keep_change_nothing(model, text, monkeypatch):
    expected = perplexity(model, text, window=32, overlap=8).block_nll
    monkeypatch.setattr(module, "_SOFTMAX_ROWS", 5)
    monkeypatch.setattr(module, "_LOGIT_BYTES", 1)
    monkeypatch.setattr(module, "_takes_logits_to_keep", lambda _: False)
    np.testing.assert_allclose(
        perplexity(model, text, window=32, overlap=8).block_nll, expected, rtol=1e-5
    )


@settings(max_examples=200)
@given(st.data())
def test_every_token_is_scored_exactly_once(data):
    bos = data.draw(st.booleans())
    length = data.draw(st.integers(2, 40))
    overlap = data.draw(st.integers(0 if bos else 1, length - bos - 1))
    num_tokens = data.draw(st.integers(1 if bos else 2, 200))
    got = windows(num_tokens, length, overlap, bos=bos)
    scored = [position for w in got for position in range(w.scored, w.stop)]
    assert scored == list(range(0 if bos else 1, num_tokens))
    for w in got:
        assert w.stop - w.start + bos <= length
        assert w.start == 0 or w.scored - w.start == overlap


def test_default_windows_are_the_context_with_a_quarter_overlap(model, text):
    calls = []
    got = perplexity(model, text, advance=calls.append, batch_size=2)
    assert got.block_tokens.tolist() == [31, 24, 24, 21]
    assert calls == [31, 48, 21]
    assert context_length(model.config) == 32
    assert windows(5000, module.LONGEST_WINDOW, 256, bos=False)[1].scored == 1024


def test_a_context_without_limit_gives_the_longest_window():
    from transformers import BloomConfig

    assert context_length(BloomConfig()) == module.LONGEST_WINDOW


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"window": 33}, "window of 33 tokens; it must be from 2 to the model's 32"),
        ({"window": 10, "overlap": 10}, "overlap 10 .* from 1 to 9"),
        ({"window": 10, "overlap": 0}, "overlap 0 "),
        ({"window": 10, "overlap": 9, "bos_token_id": 1}, "overlap 9 .* from 0 to 8"),
    ],
)
def test_windows_that_cannot_be(model, text, kwargs, said):
    with pytest.raises(TextError, match=said):
        perplexity(model, text, **kwargs)


def test_text_without_anything_to_score(model):
    with pytest.raises(TextError, match="1 tokens has none"):
        perplexity(model, [3])
    assert perplexity(model, [3], bos_token_id=0).num_tokens == 1


def test_nan_is_an_error_that_names_the_tokens(text):
    broken = GPT2LMHeadModel(
        GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=32, vocab_size=VOCABULARY)
    ).eval()
    with torch.no_grad():
        broken.transformer.wpe.weight[20] = torch.nan
    assert perplexity(broken, text[:20]).perplexity > 1
    with pytest.raises(ModelError, match=r"NaN .* tokens 0 to 31"):
        perplexity(broken, text)


def result(nll, tokens):
    return PerplexityResult(block_nll=np.array(nll), block_tokens=np.array(tokens))


def test_mean_is_weighted_by_tokens():
    got = result([300.0, 1.0], [100, 1])
    assert got.mean_nll == pytest.approx(301 / 101)
    assert result([1e6], [1]).perplexity == math.inf


def test_relative_increase_is_paired():
    rng = np.random.default_rng(0)
    tokens = np.full(40, 500)
    base = result(tokens * rng.normal(3, 0.3, 40), tokens)
    pruned = result(base.block_nll + tokens * rng.normal(0.1, 0.02, 40), tokens)
    got = relative_increase(base, pruned)
    assert got.value == pytest.approx(pruned.perplexity / base.perplexity - 1)
    assert 0.08 < got.interval.low < np.expm1(0.1) < got.interval.high < 0.13
    # The control: the same numbers, unpaired, leave the increase open.
    shuffled = result(rng.permutation(pruned.block_nll), tokens)
    assert relative_increase(base, shuffled).interval.low < 0


def test_relative_increase_covers_the_truth_with_unequal_windows():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(500):
        tokens = np.array([800] * 14 + [100])
        noise = rng.normal(0.05, 0.2 / np.sqrt(tokens)) * tokens
        base = result(tokens * 3.0, tokens)
        interval = relative_increase(base, result(base.block_nll + noise, tokens)).interval
        covered += interval.low <= np.expm1(0.05) <= interval.high
    assert 0.92 < covered / 500 < 0.98


def test_relative_increase_of_different_or_too_few_windows():
    with pytest.raises(TextError, match="different windows"):
        relative_increase(result([1.0, 2.0], [5, 5]), result([1.0, 2.0], [5, 4]))
    with pytest.raises(TextError, match="at least 2 windows"):
        relative_increase(result([1.0], [5]), result([2.0], [5]))


def authors_perplexity(model: Any, ids: list[int], window: int) -> float:
    """The usual strided recipe, written apart: labels before the last window's end are masked."""
    losses, previous = [], 0
    for begin in range(0, len(ids) - window + 1, 512):
        end = begin + window
        inputs = torch.tensor([ids[begin:end]])
        labels = inputs.clone()
        labels[:, : max(0, window - (end - previous))] = -100
        with torch.no_grad():
            logits = model(input_ids=inputs).logits
        losses.append(
            torch.nn.functional.cross_entropy(
                logits[0, :-1].float(), labels[0, 1:], ignore_index=-100
            )
        )
        previous = end
    return float(torch.stack(losses).mean().exp())


@pytest.mark.parametrize("n_ctx", [256, 4096])
def test_strided_perplexity_is_the_authors(n_ctx: int) -> None:
    """Windows of 64 with gaps, and of 1,024 that overlap; control: not every token is scored."""
    model = tiny_model("gpt_neox", num_layers=1)
    model.config.max_position_embeddings = n_ctx
    ids = np.random.default_rng(0).integers(4, 200, 2600).tolist()
    found = strided_perplexity(model, ids)
    assert found.perplexity == pytest.approx(authors_perplexity(model, ids, n_ctx // 4), rel=1e-5)
    assert (found.num_tokens < 400) == (n_ctx == 256)
    assert relative_increase(found, found).value == 0
    with pytest.raises(TextError, match="cannot be compared"):
        relative_increase(found, replace(found, weighted=True))


def test_too_little_text_for_strided_windows() -> None:
    with pytest.raises(TextError, match="one every 512"):
        strided_windows(500, 1024)
