"""Models quantised on load: scored and ablated through gates, refused by surgery.

With optimum-quanto, whose 8-bit weights run on a CPU. bitsandbytes needs a GPU: untested.
"""

from __future__ import annotations

import copy

import pytest
import torch
from removed import HEADS
from torch import nn
from transformers import AutoModelForCausalLM, QuantoConfig

from levelhead.errors import ModelError
from levelhead.models.gates import ablate
from levelhead.models.quantised import is_quantised, plain_copy
from levelhead.models.surgery import prune_heads, zero_heads
from levelhead.progress import silent
from levelhead.scoring import PPL_ESTIMATORS
from levelhead.scoring.method_scores import magnitude, mask_gradient
from levelhead.testing import save_tiny_checkpoint, tiny_model

quanto = pytest.importorskip(
    "optimum.quanto", reason="optimum-quanto is not installed: quantised models are untested"
)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A tiny Llama with 8-bit weights, loaded by stock transformers."""
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "llama", "llama")
    config = QuantoConfig(weights="int8")
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config).eval()


@pytest.fixture(scope="module")
def dequantised(quantised):
    """The plain model of the same function, by quanto's own word on its weights."""
    model = tiny_model("llama")
    packed = dict(quantised.named_modules())
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and is_quantised(packed[name]):
                module.weight.copy_(packed[name].weight.dequantize())
    return model.requires_grad_(False)


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits[inputs["attention_mask"].bool()]


@pytest.fixture
def windows():
    return torch.randint(4, 200, (3, 12), generator=torch.Generator().manual_seed(1))


def test_the_model_is_quantised_and_the_other_is_the_same_function(quantised, dequantised, inputs):
    assert is_quantised(quantised.model.layers[0].self_attn.q_proj)
    assert not is_quantised(dequantised.model.layers[0].self_attn.q_proj)
    torch.testing.assert_close(logits(quantised, inputs), logits(dequantised, inputs))
    assert (logits(tiny_model("llama"), inputs) - logits(quantised, inputs)).abs().max() > 1e-2


def test_gates_act_on_quantised_models(quantised, dequantised, inputs):
    zeroed = copy.deepcopy(dequantised)
    zero_heads(zeroed, HEADS)
    with ablate(quantised, HEADS):
        found = logits(quantised, inputs)
    torch.testing.assert_close(found, logits(zeroed, inputs), rtol=1e-4, atol=1e-5)
    assert (found - logits(quantised, inputs)).abs().max() > 1e-2


def test_scores_of_quantised_models(quantised, dequantised, windows):
    """Gradients, exact ablation and magnitudes: as of the plain model of the same function."""
    found, expected, whole = (
        mask_gradient(model, windows, silent)
        for model in (quantised, dequantised, tiny_model("llama").requires_grad_(False))
    )
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert whole != pytest.approx(expected, rel=1e-3, abs=1e-4)

    exact = PPL_ESTIMATORS["exact"]
    effects = [
        exact(m, windows.repeat(2, 1), silent, 0, 0.3).nll_change for m in (quantised, dequantised)
    ]
    assert effects[0] == pytest.approx(effects[1], rel=1e-3, abs=1e-5)

    assert magnitude(quantised) == pytest.approx(magnitude(dequantised), rel=1e-4)
    assert magnitude(quantised) != pytest.approx(magnitude(tiny_model("llama")), rel=1e-4)


def test_plain_copies_leave_the_model_alone(quantised, inputs):
    before = logits(quantised, inputs)
    state = torch.get_rng_state()
    attention = quantised.model.layers[0].self_attn
    copied = plain_copy(attention)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(copied.q_proj.weight, nn.Parameter)
    torch.testing.assert_close(copied.q_proj.weight, attention.q_proj.weight.dequantize())
    assert is_quantised(attention.q_proj)
    assert torch.equal(logits(quantised, inputs), before)


def test_removing_heads_is_refused_with_advice(quantised, inputs):
    before = logits(quantised, inputs)
    message = (
        r"the model is quantised \(q_proj of layer 0 is stored as WeightQBytesTensor.*\): "
        "its heads can be scored and ablated, but not removed. "
        "Load it without quantisation, prune it, and quantise the result"
    )
    for act in (prune_heads, zero_heads):
        with pytest.raises(ModelError, match=message):
            act(quantised, {0: [1]})
    assert torch.equal(logits(quantised, inputs), before)


def test_a_pruned_model_can_be_quantised(pruned, inputs):
    """The advice that the error gives."""
    model = pruned("llama", {1: [5], 2: [1, 2, 3, 5]})
    expected = logits(model, inputs)
    quanto.quantize(model, weights=quanto.qint8)
    quanto.freeze(model)
    assert is_quantised(model.model.layers[1].self_attn.q_proj)
    found = logits(model, inputs)
    assert 0 < (found - expected).abs().max() < 0.1
    assert (found - logits(tiny_model("llama"), inputs)).abs().max() > 0.5
