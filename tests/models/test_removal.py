"""Gated, zeroed, pruned, saved and reloaded are one function, for every family."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.rounding import FAR, SAME
from transformers import AutoModelForCausalLM

from levelhead.errors import CheckpointError, ModelError, SelectionError
from levelhead.models.architectures import attention_modules, kept_heads, output_projections
from levelhead.models.checkpoint import load, save_pruned
from levelhead.models.gates import ablate
from levelhead.models.removed_heads import model_is_pruned, removed_heads
from levelhead.models.slicing import input_width
from levelhead.models.surgery import prune_heads, refuse_unprunable, zero_heads
from levelhead.testing import TINY_FAMILIES, TINY_VARIANTS, WHOLE_LAYER_FAMILIES

# The tiny models have 3 layers of 6 heads; grouped ones share a key/value head between 3.
SETS = {
    "uneven": {0: [0, 4], 1: [5], 2: [1, 2, 3, 5]},  # unequal groups; a group that vanishes
    "whole layer": {0: range(6), 2: [3, 4, 5]},  # the layer whose cache masks are built from
    "one head": {1: [2]},
    "equal groups": {0: [0, 4], 1: [3, 4, 5], 2: [1, 2, 4, 5]},  # grouped queries stay stock ones
    "whole layers only": {0: range(6), 2: range(6)},
}
OTHER = {
    "uneven": {0: [1, 2]},
    "whole layer": {1: range(6)},
    "one head": {1: [3]},
    "equal groups": {0: [1, 2]},
    "whole layers only": {1: range(6)},
}
# In the quick tier: the first set for all, and the others where they are another case to a layout.
# The slow tier has the rest.
QUICK = {
    "whole layer": "gpt2 llama gemma3 gpt_neox phi3 gpt_oss cohere bloom falcon falcon_alibi",
    "equal groups": "llama phi3 gpt_oss cohere stablelm falcon_grouped",
}


def cases():
    for heads in SETS:
        for family in (*TINY_FAMILIES, *TINY_VARIANTS):
            quick = heads == "uneven" or family in QUICK.get(heads, "").split()
            name = f"{family}-{heads.replace(' ', '-')}"
            yield pytest.param(family, heads, id=name, marks=() if quick else pytest.mark.slow)
    for family in WHOLE_LAYER_FAMILIES:
        yield pytest.param(family, "whole layers only", id=family)


@pytest.mark.parametrize(("family", "heads"), list(cases()))
def test_all_ways_to_remove_heads_agree(family, heads, fresh, logits, greedy, difference, tmp_path):
    whole, zeroed, pruned, other = (fresh(family) for _ in range(4))
    with ablate(whole, SETS[heads]):
        expected, expected_tokens = logits(whole), greedy(whole)
    zero_heads(zeroed, SETS[heads])
    prune_heads(pruned, SETS[heads])
    prune_heads(other, OTHER[heads])
    save_pruned(pruned, tmp_path / "compact")
    save_pruned(pruned, tmp_path / "zeroed", "zeroed")
    reloaded = load(tmp_path / "compact")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "zeroed")

    for name, model in {
        "zeroed": zeroed,
        "pruned": pruned,
        "reloaded": reloaded,
        "zero-filled": stock,
    }.items():
        assert difference(logits(model), expected) < SAME, name
        assert torch.equal(greedy(model), expected_tokens), name

    assert difference(logits(other), expected) > FAR
    assert not torch.equal(greedy(other), expected_tokens)
    assert difference(logits(whole), expected) > FAR  # the gates are gone
    assert type(reloaded) is type(whole)
    assert not model_is_pruned(stock)
    assert removed_heads(reloaded) == removed_heads(pruned)
    assert reloaded.num_parameters() < whole.num_parameters()
    assert stock.num_parameters() == whole.num_parameters()


@pytest.mark.parametrize("family", [*TINY_FAMILIES, *TINY_VARIANTS])
def test_weights_really_go(family, fresh):
    model = fresh(family)
    width = input_width(output_projections(model)[0]) // 6
    prune_heads(model, SETS["uneven"])

    assert [len(heads) for heads in kept_heads(model)] == [4, 5, 2]
    assert [input_width(p) // width for p in output_projections(model)] == [4, 5, 2]
    if hasattr(attention_modules(model)[2], "k_proj"):  # layer 2 keeps heads 0 and 4
        grouped = getattr(model.config.get_text_config(), "num_key_value_heads", 6) == 2
        rows = attention_modules(model)[2].k_proj.weight.shape[0]
        assert rows == 2 * width
        rows = attention_modules(model)[1].k_proj.weight.shape[0]
        assert rows == (2 if grouped else 5) * width  # unequal groups keep unique key/value heads
    if family.startswith("falcon"):  # queries, keys and values of layers 1 and 2, as heads
        rows = [a.query_key_value.weight.shape[0] // width for a in attention_modules(model)[1:]]
        assert (
            rows
            == {
                "falcon": [5 + 2, 2 + 2],
                "falcon_grouped": [5 + 4, 2 + 4],
                "falcon_alibi": [3 * 5, 3 * 2],
            }[family]
        )


def per_head_parameters(attention):
    """Of everything that is per head but no projection: its numbers, by name."""
    return {
        name: tuple(parameter.shape)
        for name, parameter in attention.named_parameters()
        if "norm" in name or "sinks" in name
    }


def test_norms_and_sinks_of_removed_heads_go(fresh):
    kept = [0, 4], [0, 1]  # query heads and key/value heads of layer 2
    expected = {
        "cohere": {"q_norm.weight": (2, 8), "k_norm.weight": (2, 8)},
        "gpt_oss": {"sinks": (2,)},
        "stablelm": {
            f"{kind}_layernorm.norms.{head}.weight": (8,)
            for kind, heads in zip("qk", kept, strict=True)
            for head in heads
        },
        "qwen3": {"q_norm.weight": (16,), "k_norm.weight": (16,)},  # shared by all heads
    }
    for family, parameters in expected.items():
        model = fresh(family)
        prune_heads(model, SETS["uneven"])
        assert per_head_parameters(attention_modules(model)[2]) == parameters, family


def test_equal_groups_stay_groups_of_the_stock_code(fresh):
    """No index map, hence no hook, where every key/value head serves as many query heads."""
    for family, heads, hooks, key_value_heads in (
        ("mixtral", SETS["equal groups"], [0, 0, 0], [2, 1, 2]),
        ("mixtral", SETS["uneven"], [0, 1, 0], [2, 2, 2]),
        ("mixtral", {0: [0], 2: [0, 1, 2]}, [1, 0, 0], [2, 2, 1]),
    ):
        model = fresh(family)
        prune_heads(model, heads)
        attentions = attention_modules(model)
        assert [len(a._forward_pre_hooks) for a in attentions] == hooks
        assert [a.k_proj.weight.shape[0] // 8 for a in attentions] == key_value_heads
    grouped = fresh("falcon_grouped")
    prune_heads(grouped, {0: [0, 4], 1: [5]})
    assert [a.num_kv_heads for a in attention_modules(grouped)] == [2, 2, 2]
    assert ["_split_heads" in vars(a) for a in attention_modules(grouped)] == [False, True, False]


@pytest.mark.parametrize("family", WHOLE_LAYER_FAMILIES)
def test_single_heads_that_are_normalised_together_are_not_removed(
    family, fresh, logits, difference, tmp_path
):
    model = fresh(family)
    expected = logits(model)
    with pytest.raises(SelectionError, match="normalises the queries") as caught:
        prune_heads(model, {0: range(6), 1: [2, 3]})
    assert "layer 1 2 of 6 heads are listed; remove all heads of a layer" in str(caught.value)
    assert torch.equal(logits(model), expected)  # layer 0 was not touched either
    assert not model_is_pruned(model)

    with pytest.raises(ModelError, match="choose a model of another family"):
        refuse_unprunable(model)  # what a whole run asks before it scores
    refuse_unprunable(fresh("olmo"))
    with ablate(model, SETS["uneven"]):
        expected = logits(model)
    zero_heads(model, SETS["uneven"])
    assert difference(logits(model), expected) < SAME

    model = fresh(family)
    prune_heads(model, {0: range(6)})
    folder = save_pruned(model, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["heads"]["0"].pop()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises((SelectionError, CheckpointError)):
        load(folder)


def test_unique_key_value_heads_are_cached(fresh, inputs):
    model = fresh("llama")
    prune_heads(model, {1: [5]})
    cache = model(**inputs, use_cache=True).past_key_values

    assert [layer.keys.shape[1] for layer in cache.layers] == [2, 2, 2]


def test_eager_attention_agrees(fresh, logits, difference):
    for family in ("llama", "phi3", "gpt2", "falcon_grouped", "falcon_alibi", "stablelm"):
        model = fresh(family)
        expected = logits(model)
        model.set_attn_implementation("eager")
        assert difference(logits(model), expected) < SAME  # control: the switch itself is harmless
        with ablate(model, SETS["uneven"]):
            expected = logits(model)
        prune_heads(model, SETS["uneven"])
        assert difference(logits(model), expected) < SAME
        model.set_attn_implementation("sdpa")  # must reach pruned layers, too
        assert difference(logits(model), expected) < SAME


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    heads=st.dictionaries(
        st.integers(0, 2), st.sets(st.integers(0, 5), min_size=1).map(sorted), min_size=1
    )
)
def test_any_set_pruned_equals_gated(family, heads, fresh, logits, difference):
    whole, pruned = fresh(family), fresh(family)
    prune_heads(pruned, heads)
    with ablate(whole, heads):
        assert difference(logits(pruned), logits(whole)) < SAME


def test_pruning_keeps_dtype_and_requires_grad(fresh):
    model = fresh("qwen2").to(torch.bfloat16)
    model.requires_grad_(False)
    model.model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
    prune_heads(model, SETS["uneven"])
    attention = model.model.layers[0].self_attn

    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert attention.q_proj.weight.requires_grad
    assert not attention.k_proj.weight.requires_grad
    assert not attention.q_proj.bias.requires_grad


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({0: [6]}, "head 6 of layer 0 does not exist: the model has heads 0 to 5"),
        ({0: [-1]}, "head -1 of layer 0"),
        ({3: [0]}, "layer 3 does not exist: the model has layers 0 to 2"),
        ({-1: [0]}, "layer -1 does not exist"),
        ({1: [2, 2, 4]}, r"heads \[2\] of layer 1 are listed twice"),
        ({1: [True]}, "head True of layer 1"),
        ({"0": [1]}, "layer '0' does not exist"),
    ],
)
def test_heads_that_do_not_exist_are_refused(heads, message, fresh):
    model = fresh("gpt2")
    before = model.num_parameters()
    for act in (prune_heads, zero_heads):
        with pytest.raises(SelectionError, match=message):
            act(model, heads)
    with pytest.raises(SelectionError, match=message), ablate(model, heads):
        pass
    assert model.num_parameters() == before


def test_pruning_twice_is_refused(fresh):
    model = fresh("gpt2")
    prune_heads(model, {0: [1], 1: [2, 3]})
    for act in (prune_heads, zero_heads):
        with pytest.raises(ModelError, match=r"pruned already \(3 heads in 2 layers"):
            act(model, {2: [1]})


def test_pruning_nothing_changes_nothing(fresh, logits):
    model = fresh("llama")
    expected = logits(model)
    prune_heads(model, {1: []})

    assert torch.equal(logits(model), expected)
    assert not model_is_pruned(model)
