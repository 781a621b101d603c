"""Gates: gradients, batches, nesting, cleaning up."""

from __future__ import annotations

import pytest
import torch
from tests.rounding import CLEAR, FAR, SAME, greedy_choices

from levelhead.errors import UnsupportedArchitectureError
from levelhead.models.architectures import head_counts, output_projections
from levelhead.models.gates import HeadGates, ablate, gated
from levelhead.models.surgery import prune_heads
from levelhead.testing import TINY_FAMILIES, TINY_VARIANTS, WHOLE_LAYER_FAMILIES

SHAPE = (3, 6)


def hooks(model):
    return sum(len(p._forward_pre_hooks) for p in output_projections(model))


def smooth(model):
    """Take out the steps and kinks at which no finite difference equals the derivative."""
    for module in model.modules():
        if hasattr(module, "top_k") and hasattr(module, "num_experts"):
            module.top_k = module.num_experts  # which experts a token gets is a step
    model.config.clip_qkv = None  # OLMo
    return model


@pytest.mark.parametrize("family", [*TINY_FAMILIES, *WHOLE_LAYER_FAMILIES, *TINY_VARIANTS])
def test_gradients_of_every_example_match_finite_differences(family, fresh, inputs):
    # Eager attention (these have no other) yields NaN for padded rows in float64, and the kernel
    # for experts has no float64.
    exact = family not in ("gemma2", "bloom", "mixtral", "qwen3_moe", "gpt_oss")
    model = smooth(fresh(family).to(torch.float64 if exact else torch.float32))
    model.requires_grad_(False)
    mask = inputs["attention_mask"].bool()
    # A different quantity for each example, at real positions only.
    weights = torch.randn(3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def quantities(gates):
        with gated(model, gates):
            tokens = model(**inputs).logits.log_softmax(-1)[..., 7]
        return (tokens.where(mask, 0) * weights).sum(-1)

    gates = torch.ones(3, *SHAPE, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(quantities(gates).sum(), gates)

    assert torch.isfinite(gradient).all()
    one = torch.ones(*SHAPE, dtype=torch.float64)
    # Large where parts of the model compute in float32, small for OPT, whose ReLU has kinks.
    size = 1e-5 if family == "opt" else 0.02
    for layer, head in ((0, 0), (1, 4), (2, 5)):
        step = torch.zeros(*SHAPE, dtype=torch.float64)
        step[layer, head] = size
        with torch.no_grad():
            near = quantities(one + step) - quantities(one - step)
            wide = quantities(one + 2 * step) - quantities(one - 2 * step)
        slope = (8 * near - wide) / (12 * size)
        torch.testing.assert_close(
            gradient[:, layer, head], slope, rtol=1e-3, atol=2e-4 if exact else 2e-3
        )
        assert slope.abs().max() > 1e-2  # the comparison above means something
        assert slope.std() > 1e-3  # and differs between examples


def test_gates_of_each_example_act_on_it_alone(fresh, inputs, difference):
    model = fresh("llama")
    real = inputs["attention_mask"].bool()
    gates = torch.ones(3, *SHAPE)
    gates[1, 0, :] = 0
    with torch.no_grad():
        plain = model(**inputs).logits
        with ablate(model, {0: range(6)}):
            without = model(**inputs).logits
        with gated(model, gates):
            mixed = model(**inputs).logits

    assert difference(mixed[0], plain[0]) < SAME
    assert difference(mixed[2][real[2]], plain[2][real[2]]) < SAME
    assert difference(mixed[1][real[1]], without[1][real[1]]) < SAME
    assert difference(mixed[1][real[1]], plain[1][real[1]]) > FAR


def test_gates_act_in_generation_like_in_a_forward_pass(fresh, inputs):
    """With a cache and without one; the choices are clear ones, which rounding does not change."""
    model = fresh("gpt2")
    gates = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    with gated(model, gates):
        options = {"max_new_tokens": 6, "min_new_tokens": 6}
        tokens, margin = greedy_choices(model, inputs, **options)
        again, _ = greedy_choices(model, inputs, **options, use_cache=False)
    plain, _ = greedy_choices(model, inputs, **options)

    assert margin > CLEAR
    assert torch.equal(tokens, again)
    assert not torch.equal(tokens, plain)


def test_hooks_are_gone_after_use_and_after_an_error(fresh, inputs):
    model = fresh("gpt_neox")
    with gated(model, torch.ones(SHAPE)):
        assert hooks(model) == 3
    assert hooks(model) == 0
    with pytest.raises(ZeroDivisionError), gated(model, torch.ones(SHAPE)):
        raise ZeroDivisionError
    assert hooks(model) == 0


def test_gates_may_be_replaced_and_contexts_multiply(fresh, logits, difference):
    model = fresh("llama")
    with ablate(model, {0: [1], 2: [3]}):
        both = logits(model)
    with ablate(model, {0: [1]}), ablate(model, {2: [3]}):
        assert difference(logits(model), both) < SAME
    with HeadGates(model) as head_gates:
        plain = logits(model)
        head_gates.gates = torch.ones(SHAPE)
        assert difference(logits(model), plain) < SAME
        head_gates.gates[0, 1] = head_gates.gates[2, 3] = 0
        assert difference(logits(model), both) < SAME
        head_gates.gates = None
        assert difference(logits(model), plain) < SAME
    assert difference(plain, both) > FAR  # control


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_heads_of_a_pruned_model_keep_their_numbers(family, fresh, logits, difference):
    model, whole = fresh(family), fresh(family)
    prune_heads(model, {0: [0, 1], 1: range(6)})
    with ablate(whole, {0: [0, 1, 4], 1: range(6), 2: [2]}):
        expected = logits(whole)
    with ablate(model, {0: [1, 4], 1: [3], 2: [2]}):
        assert difference(logits(model), expected) < SAME
    with ablate(model, {0: [2], 2: [2]}):  # control: position 2 of the kept heads is head 4
        assert difference(logits(model), expected) > FAR


@pytest.mark.parametrize("shape", [(3, 5), (2, 6), (6,), (1, 1, 3, 6)])
def test_gates_of_another_shape_are_refused(shape, fresh):
    with (
        pytest.raises(ValueError, match=r"expected \[3, 6\] or \[batch, 3, 6\]"),
        gated(fresh("gpt2"), torch.ones(shape)),
    ):
        pass


def test_gates_of_another_batch_are_refused(fresh, inputs):
    model = fresh("gpt2")
    with (
        pytest.raises(ValueError, match="gates for 2 examples, but the batch holds 3"),
        gated(model, torch.ones(2, *SHAPE)),
    ):
        model(**inputs)
    assert hooks(model) == 0


def test_bloom_that_goes_past_its_output_projection_is_refused(fresh, inputs):
    """With these options transformers multiplies by the weight itself: no gate would act."""
    model = fresh("bloom")
    model.config.slow_but_exact = True
    expected = head_counts(model)  # with a single shard the option does nothing
    model.config.pretraining_tp = 2
    with (
        pytest.raises(UnsupportedArchitectureError, match="load it with slow_but_exact=False"),
        ablate(model, {0: [1]}),
    ):
        model(**inputs)
    assert expected == SHAPE


def test_gradients_by_gates_are_summed_in_float32_whatever_the_weights_are(fresh, inputs):
    """In bfloat16 a sum keeps three digits, and every gradient would be one of its numbers."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = fresh("llama").to(dtype).requires_grad_(False)
        gates = torch.ones(3, *SHAPE, requires_grad=True)
        with gated(model, gates):
            logits = model(**inputs).logits.float()
            assert model.dtype == dtype, "the gates change no format"
        tokens = logits.log_softmax(-1)[..., 7]
        (found[dtype],) = torch.autograd.grad(tokens.sum(), gates)
    low = found[torch.bfloat16]
    assert low.dtype == torch.float32
    assert (low != low.bfloat16().float()).float().mean() > 0.5, "they were rounded to bfloat16"
    similar = torch.nn.functional.cosine_similarity(
        low.flatten(), found[torch.float32].flatten(), 0
    )
    assert similar > 0.98
