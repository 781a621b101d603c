"""Resuming at a layer equals the full forward pass, to the rounding of float32."""

from __future__ import annotations

import pytest
import torch
from tests.rounding import FAR, SAME

from levelhead.models.architectures import decoder_layers
from levelhead.models.gates import ablate, gated
from levelhead.models.resume import captured_layer_inputs, layer_inputs, resumed_at
from levelhead.models.surgery import prune_heads
from levelhead.testing import TINY_FAMILIES, TINY_VARIANTS, WHOLE_LAYER_FAMILIES


@pytest.mark.parametrize("family", [*TINY_FAMILIES, *WHOLE_LAYER_FAMILIES, *TINY_VARIANTS])
def test_resumed_equals_full_pass_with_and_without_a_head(
    family, fresh, inputs, logits, difference
):
    model = fresh(family)
    real = inputs["attention_mask"].bool()
    entering = layer_inputs(model, **inputs)
    assert len(entering) == 3

    for layer, hidden in enumerate(entering):
        with resumed_at(model, layer, hidden), torch.no_grad():
            plain = model(**inputs, use_cache=False).logits[real]
            with ablate(model, {layer: [1]}):
                resumed = model(**inputs, use_cache=False).logits[real]
        with ablate(model, {layer: [1]}):
            full = logits(model)
        assert difference(plain, logits(model)) < SAME
        assert difference(resumed, full) < SAME
        assert difference(resumed, plain) > FAR  # control: one head of 18
        with resumed_at(model, layer, hidden.flip(-1)), torch.no_grad():  # it is used
            moved = model(**inputs, use_cache=False).logits[real]
        assert difference(moved, plain) > FAR


def test_layers_below_do_not_run(fresh, inputs):
    model = fresh("llama")
    entering = layer_inputs(model, **inputs)
    with resumed_at(model, 2, entering[2]):
        model(**inputs, use_cache=False)  # the first time finds out what such layers return
    ran = []
    for index, layer in enumerate(decoder_layers(model)):
        layer.mlp.register_forward_hook(lambda *_, index=index: ran.append(index))
    with resumed_at(model, 2, entering[2]):
        model(**inputs, use_cache=False)
    assert ran == [2]
    model(**inputs)
    assert ran == [2, 0, 1, 2]


@pytest.mark.parametrize("family", ["gpt_neo", "gemma2"])
def test_several_ablations_stack_as_one_batch(family, fresh, inputs, logits, difference):
    model = fresh(family)
    real = inputs["attention_mask"].bool()
    hidden = layer_inputs(model, **inputs)[1]
    heads = [0, 3, 5]
    gates = torch.ones(len(heads), 3, 6)
    for row, head in enumerate(heads):
        gates[row, 1, head] = 0
    stacked = {name: tensor.repeat(len(heads), 1) for name, tensor in inputs.items()}
    with (
        torch.no_grad(),
        gated(model, gates.repeat_interleave(3, 0)),
        resumed_at(model, 1, hidden.repeat(len(heads), 1, 1)),
    ):
        together = model(**stacked, use_cache=False).logits.unflatten(0, (len(heads), 3))
    for row, head in enumerate(heads):
        with ablate(model, {1: [head]}):
            assert difference(together[row][real], logits(model)) < SAME
        with ablate(model, {1: [(head + 1) % 6]}):  # control
            assert difference(together[row][real], logits(model)) > FAR


def test_resuming_a_pruned_model(fresh, inputs, logits, difference):
    model, whole = fresh("qwen3"), fresh("qwen3")
    prune_heads(model, {0: range(6), 2: [1]})
    entering = layer_inputs(model, **inputs)
    with resumed_at(model, 1, entering[1]), torch.no_grad():
        resumed = model(**inputs, use_cache=False).logits[inputs["attention_mask"].bool()]
    assert difference(resumed, logits(model)) < SAME
    assert difference(resumed, logits(whole)) > FAR


def test_captured_inputs_come_with_the_outputs(fresh, inputs, difference):
    model = fresh("opt")
    with torch.no_grad(), captured_layer_inputs(model) as entering:
        first = model(**inputs).logits
        model(**inputs)
    assert len(entering) == 3
    real = inputs["attention_mask"].bool()
    with resumed_at(model, 2, entering[2]), torch.no_grad():
        again = model(**inputs, use_cache=False).logits
    with resumed_at(model, 2, entering[1]), torch.no_grad():  # control: another layer's
        wrong = model(**inputs, use_cache=False).logits
    assert difference(again[real], first[real]) < SAME
    assert difference(wrong[real], first[real]) > FAR


def test_everything_is_put_back_after_an_error(fresh, inputs, logits):
    model = fresh("gptj")
    expected = logits(model)
    hidden = layer_inputs(model, **inputs)[2]
    with pytest.raises(ZeroDivisionError), resumed_at(model, 2, hidden):
        raise ZeroDivisionError
    assert torch.equal(logits(model), expected)
    assert all("forward" not in vars(layer) for layer in decoder_layers(model))


def test_wrong_layer_or_shape_is_refused(fresh, inputs):
    model = fresh("gpt2")
    hidden = layer_inputs(model, **inputs)[1]
    with pytest.raises(ValueError, match="layer 3 does not exist"), resumed_at(model, 3, hidden):
        pass
    with (
        pytest.raises(ValueError, match="resume with the inputs it was captured from"),
        resumed_at(model, 1, hidden[:1]),
    ):
        model(**inputs, use_cache=False)
