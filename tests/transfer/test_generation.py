"""`generate` in all its modes writes the same with heads removed as with heads gated."""

from __future__ import annotations

import pytest
import torch
from removed import HEADS, OTHER

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


def written(model, inputs, **options):
    """The tokens after the prompt: more than a sliding window holds, no token twice.

    Left alone, some random models repeat one token for ever, whatever their heads do.
    """
    options |= {"max_new_tokens": 10, "min_new_tokens": 10, "no_repeat_ngram_size": 1}
    with torch.no_grad():
        out = model.generate(**inputs, do_sample=False, **options)
    return out[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "family", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_every_way_to_generate_writes_what_the_gated_model_writes(family, mode, inputs, pruned):
    if (family, mode) == ("falcon_alibi", "static"):
        pytest.skip("transformers has no static cache for Falcon with ALiBi")
    options = dict(MODES[mode])
    if mode == "assisted":  # by the model before pruning; one sequence at a time
        inputs = {name: tensor[:1] for name, tensor in inputs.items()}
        options["assistant_model"] = tiny_model(family)
    whole = tiny_model(family)
    with ablate(whole, HEADS):
        expected = written(whole, inputs, **options)
        if mode != "beams":
            assert torch.equal(expected, written(whole, inputs, use_cache=False))

    assert torch.equal(written(pruned(family), inputs, **options), expected)
    assert not torch.equal(written(pruned(family, OTHER), inputs, **options), expected)
    assert not torch.equal(written(whole, inputs, **options), expected)


def test_a_pruned_model_assists_its_base(inputs, pruned):
    """Speculative decoding with the smaller model: the base's own text, from fewer passes of it."""
    inputs = {name: tensor[:1] for name, tensor in inputs.items()}
    base, small = tiny_model("llama"), pruned("llama", {1: [2]})
    alone = written(base, inputs)
    passes = []
    base.lm_head.register_forward_hook(lambda *_: passes.append(1))
    assert torch.equal(written(base, inputs, assistant_model=small), alone)
    assisted = len(passes)
    assert torch.equal(written(base, inputs), alone)
    assert assisted < len(passes) - assisted
