"""`generate` in all its modes writes the same with heads removed as with heads gated.

On prompts where the gated model's choices are clear ones: what rounding can decide is no promise.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from removed import HEADS, OTHER, sequences
from tests.rounding import CLEAR, greedy_choices
from torch import Tensor
from transformers import LogitsProcessor

from levelhead.models.gates import ablate
from levelhead.testing import tiny_model

MODES = {
    "dynamic": {"cache_implementation": "dynamic"},
    "static": {"cache_implementation": "static"},
    "beams": {"num_beams": 3, "length_penalty": 0.5},
    "assisted": {},
}
# Grouped queries, sliding windows, position biases, a key/value cache per query head.
FAMILIES = ["llama", "gpt_oss", "bloom", "falcon_grouped"]
SLOW = [
    "gpt2",
    "gemma3_text",
    "phi3",
    "mixtral",
    "qwen3_moe",
    "cohere",
    "stablelm",
    "falcon",
    "falcon_alibi",
]


LENGTH = {"max_new_tokens": 10, "min_new_tokens": 10, "no_repeat_ngram_size": 1}
"""More than a sliding window holds, no token twice.

Left alone, some random models repeat one token for ever, whatever their heads do.
"""


def written(model, inputs, **options):
    """The tokens after the prompt."""
    with torch.no_grad():
        out = model.generate(**inputs, do_sample=False, **LENGTH, **options)
    return out[:, inputs["input_ids"].shape[1] :]


class Shaken(LogitsProcessor):
    """Moves every score by up to CLEAR of the largest: a hundred times what rounding does."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Any:
        size = CLEAR * scores[scores.isfinite()].abs().max()
        return scores + size * (2 * torch.rand(scores.shape, generator=self.generator) - 1)


def clear_prompts(model, rows: int, **options):
    """The first prompts on which the model's choices do not hang on its last digits."""
    for seed in range(5, 25):
        inputs = {name: tensor[:rows] for name, tensor in sequences(seed).items()}
        if "num_beams" not in options:
            with torch.no_grad():
                _, margin = greedy_choices(model, inputs, **LENGTH)
            if margin > CLEAR:
                return inputs
            continue
        expected = written(model, inputs, **options)
        shaken = [written(model, inputs, logits_processor=[Shaken(i)], **options) for i in range(4)]
        if all(torch.equal(one, expected) for one in shaken):
            return inputs
    raise AssertionError("no prompts on which this model makes clear choices")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "family", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_every_way_to_generate_writes_what_the_gated_model_writes(family, mode, pruned):
    if (family, mode) == ("falcon_alibi", "static"):
        pytest.skip("transformers has no static cache for Falcon with ALiBi")
    options = dict(MODES[mode])
    whole = tiny_model(family)
    with ablate(whole, HEADS):
        inputs = clear_prompts(whole, 1 if mode == "assisted" else 2, **options)
        if mode == "assisted":  # by the model before pruning; one sequence at a time
            options["assistant_model"] = tiny_model(family)
        expected = written(whole, inputs, **options)
        if mode != "beams":
            assert torch.equal(expected, written(whole, inputs, use_cache=False))

    assert torch.equal(written(pruned(family), inputs, **options), expected)
    assert not torch.equal(written(pruned(family, OTHER), inputs, **options), expected)
    assert not torch.equal(written(whole, inputs, **options), expected)


def test_a_pruned_model_assists_its_base(pruned):
    """Speculative decoding with the smaller model: the base's own text, from fewer passes of it."""
    base, small = tiny_model("llama"), pruned("llama", {1: [2]})
    inputs = clear_prompts(base, 1)
    alone = written(base, inputs)
    passes = []
    base.lm_head.register_forward_hook(lambda *_: passes.append(1))
    assert torch.equal(written(base, inputs, assistant_model=small), alone)
    assisted = len(passes)
    assert torch.equal(written(base, inputs), alone)
    assert assisted < len(passes) - assisted
