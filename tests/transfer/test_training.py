"""Gradient checkpointing and torch.compile do with pruned models what they do with others."""

from __future__ import annotations

import shutil

import pytest
import torch
from removed import HEADS, OTHER

from levelhead.models.architectures import attention_modules
from levelhead.models.gates import ablate
from levelhead.testing import tiny_model

FAMILIES = ["gpt2", "llama", "gpt_oss", "bloom", "falcon_grouped"]
COMPILED = ["gpt2", "gpt_oss", "bloom", "falcon_grouped", "falcon_alibi", "phi3", "stablelm"]


def gradients(model, inputs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        loss = model(**inputs, labels=inputs["input_ids"], use_cache=False).loss
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(family, inputs, pruned):
    plain, checkpointed = pruned(family).train(), pruned(family).train()
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
    calls = {id(plain): 0, id(checkpointed): 0}
    for model in (plain, checkpointed):
        for attention in attention_modules(model):
            attention.register_forward_pre_hook(
                lambda *_, model=model: calls.update({id(model): calls[id(model)] + 1})
            )
    expected, found = gradients(plain, inputs), gradients(checkpointed, inputs)

    assert calls[id(plain)] == 3
    assert calls[id(checkpointed)] == 6  # it did compute the layers twice
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)
    other = gradients(pruned(family, OTHER).train(), inputs)
    embedding = next(iter(expected))
    assert not torch.allclose(other[embedding], expected[embedding], rtol=1e-2, atol=1e-4)


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[inputs["attention_mask"].bool()]


def compiled_equals_gated(family, inputs, model, backend):
    whole = tiny_model(family)
    with ablate(whole, HEADS):
        expected = logits(whole, inputs)
    torch.compiler.reset()
    found = logits(torch.compile(model, backend=backend), inputs)
    return float((found - expected).abs().max() / expected.abs().max())


# transformers' own BLOOM has an activation function that the compiler warns of.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(f, marks=pytest.mark.slow) for f in COMPILED)]
)
def test_torch_compile_traces_pruned_models(family, inputs, pruned):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    assert compiled_equals_gated(family, inputs, pruned(family), backend) < 1e-5
    assert len(graphs) == 1  # no part of it falls back to Python
    assert compiled_equals_gated(family, inputs, pruned(family, OTHER), backend) > 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # inductor's own
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler: torch.compile is untested")
def test_torch_compile_makes_code_of_pruned_models(inputs, pruned):
    assert compiled_equals_gated("llama", inputs, pruned("llama"), "inductor") < 1e-5
