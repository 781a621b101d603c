"""Plain attention for bfloat16 on a CPU: the same numbers up to rounding, and nothing stays."""

from __future__ import annotations

import pytest
import torch

from levelhead.models import short_texts as module
from levelhead.models.short_texts import LONGEST, short_texts
from levelhead.models.surgery import prune_heads
from levelhead.testing import TINY_FAMILIES


@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("pruned", [False, True])
def test_logits_are_those_of_the_fused_kernel(family, pruned, fresh, inputs):
    model = fresh(family)
    if pruned:
        prune_heads(model, {1: [0, 1, 2]})
    model = model.to(torch.bfloat16)
    own = model.config._attn_implementation
    with torch.no_grad():
        expected = model(**inputs).logits.float()
        with short_texts(model, 10):
            found = model(**inputs).logits.float()
        again = model(**inputs).logits.float()
    assert model.config._attn_implementation == own
    assert torch.equal(again, expected)
    real = inputs["attention_mask"].bool()
    scale = expected[real].abs().max()
    assert (found - expected)[real].abs().max() < 0.05 * scale


@pytest.mark.parametrize(
    ("dtype", "tokens", "plain"),
    [
        (torch.bfloat16, LONGEST, True),
        (torch.bfloat16, LONGEST + 1, False),
        (torch.float32, 10, False),
        (torch.float16, 10, False),
    ],
)
def test_only_short_texts_in_bfloat16(dtype, tokens, plain, fresh):
    model = fresh("llama").to(dtype)
    assert model.config._attn_implementation == module._FUSED
    with short_texts(model, tokens):
        assert (model.config._attn_implementation == module._PLAIN) is plain


def test_the_kernel_comes_back_after_an_error(fresh):
    model = fresh("llama").to(torch.bfloat16)
    with pytest.raises(RuntimeError, match="stop"), short_texts(model, 8):
        raise RuntimeError("stop")
    assert model.config._attn_implementation == module._FUSED


def test_another_attention_is_left_as_it_was_chosen(fresh):
    model = fresh("llama").to(torch.bfloat16)
    model.set_attn_implementation("eager")
    with short_texts(model, 8):
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == "eager"
