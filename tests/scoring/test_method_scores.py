"""Magnitude and mask gradient of every family, against computations that share no code."""

from typing import Any

import numpy as np
import pytest
import torch

from levelhead.errors import ModelError
from levelhead.models.architectures import output_projections
from levelhead.models.gates import ablate
from levelhead.models.surgery import prune_heads
from levelhead.progress import silent
from levelhead.scoring.method_scores import magnitude, mask_gradient
from levelhead.testing import TINY_FAMILIES, TINY_VARIANTS, WHOLE_LAYER_FAMILIES, tiny_model

FAMILIES = (*TINY_FAMILIES, *WHOLE_LAYER_FAMILIES, *TINY_VARIANTS)
LAYER, HEADS = 1, 6
STEP = 0.004  # norms compute in float32 whatever the model does


def blocks(matrix: torch.Tensor, head: int, width: int) -> torch.Tensor:
    return matrix[head * width : (head + 1) * width]


def separate(attention: Any, head: int, output: str) -> list[torch.Tensor]:
    """q, k, v rows and biases of one head, read straight from the stock modules."""
    width = attention.q_proj.weight.shape[0] // HEADS
    group = HEADS // (attention.k_proj.weight.shape[0] // width)
    parts = [getattr(attention, output).weight[:, head * width : (head + 1) * width]]
    for name in ("q_proj", "k_proj", "v_proj"):
        module = getattr(attention, name)
        own = head if name == "q_proj" else head // group
        parts.append(blocks(module.weight, own, width))
        if module.bias is not None:
            parts.append(blocks(module.bias, own, width))
    return parts


def own_weights(model: Any, family: str, head: int) -> list[torch.Tensor]:
    """All the head's weights, family by family, written out by hand."""
    if family in ("gpt2", "gpt_neo", "gptj"):
        attention = model.transformer.h[LAYER].attn
        if family == "gpt_neo":
            return separate(attention.attention, head, "out_proj")
        if family == "gptj":
            return separate(attention, head, "out_proj")
        width = attention.c_proj.weight.shape[0] // HEADS
        third = HEADS * width
        parts = [attention.c_proj.weight[head * width : (head + 1) * width]]
        for start in (0, third, 2 * third):
            rows = slice(start + head * width, start + (head + 1) * width)
            parts += [attention.c_attn.weight[:, rows], attention.c_attn.bias[rows]]
        return parts
    if family in ("gpt_neox", "bloom", "falcon_alibi"):
        if family == "gpt_neox":
            attention = model.gpt_neox.layers[LAYER].attention
        else:
            attention = model.transformer.h[LAYER].self_attention
        width = attention.dense.weight.shape[1] // HEADS
        fused = attention.query_key_value
        return [
            attention.dense.weight[:, head * width : (head + 1) * width],
            blocks(fused.weight, head, 3 * width),
            blocks(fused.bias, head, 3 * width),
        ]
    if family in ("falcon", "falcon_grouped"):
        attention = model.transformer.h[LAYER].self_attention
        width = attention.dense.weight.shape[1] // HEADS
        # Blocks: six queries, a key, a value; or twice three queries, a key, a value.
        places = [head, 6, 7] if family == "falcon" else [head + head // 3 * 2, head // 3 * 5 + 3]
        if family == "falcon_grouped":
            places.append(head // 3 * 5 + 4)
        fused = attention.query_key_value.weight
        output = attention.dense.weight[:, head * width : (head + 1) * width]
        return [output, *(blocks(fused, place, width) for place in places)]
    layers = model.model.decoder.layers if family == "opt" else None
    if family == "gemma3":
        layers = model.model.language_model.layers
    attention = (layers or model.model.layers)[LAYER].self_attn
    if family != "phi3":
        return separate(attention, head, "out_proj" if family == "opt" else "o_proj")
    width = attention.o_proj.weight.shape[1] // HEADS
    kv_heads = (attention.qkv_proj.weight.shape[0] // width - HEADS) // 2
    own = head // (HEADS // kv_heads)
    rows = [head, HEADS + own, HEADS + kv_heads + own]
    return [
        attention.o_proj.weight[:, head * width : (head + 1) * width],
        *(blocks(attention.qkv_proj.weight, row, width) for row in rows),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gated_head_is_the_one_whose_queries_these_are(family: str) -> None:
    """Its own query weights matter; with it gated they do not, with another head gated they do."""
    model = tiny_model(family)
    ids = torch.randint(4, 200, (2, 9), generator=torch.Generator().manual_seed(2))
    head = 4
    query = own_weights(model, family, head)[1].data

    def run(*gone: int) -> torch.Tensor:
        with torch.no_grad(), ablate(model, {LAYER: gone}):
            return model(input_ids=ids).logits

    before = [run(), run(head), run(2)]
    query.mul_(-3)
    moved = [
        float((a - b).abs().max()) for a, b in zip([run(), run(head), run(2)], before, strict=True)
    ]
    assert min(moved[0], moved[2]) > 1e-4
    if family in WHOLE_LAYER_FAMILIES:
        assert moved[1] > 1e-4  # what is refused with this reason: heads are normalised together
    else:
        assert moved[1] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_magnitude_is_the_norm_of_the_heads_own_weights(family: str) -> None:
    model = tiny_model(family)
    before = [parameter.clone() for parameter in model.parameters()]
    found = magnitude(model)
    for head in range(HEADS):
        flat = torch.cat([part.flatten() for part in own_weights(model, family, head)])
        assert found[LAYER, head] == pytest.approx(float(flat.detach().double().norm()), rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_only_the_head_that_was_enlarged_is_larger() -> None:
    """Control: another head's weights do not count."""
    model = tiny_model("gpt2")
    before = magnitude(model)
    with torch.no_grad():
        output_projections(model)[2].weight[8:16] *= 2  # head 1: rows 8 to 15 of a Conv1D
    changed = np.argwhere(magnitude(model) != before)
    assert changed.tolist() == [[2, 1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_mask_gradient_equals_finite_differences(family: str) -> None:
    """Central differences of the loss when a head's output columns are scaled, in float64."""
    model = tiny_model(family).double()
    model.requires_grad_(False)
    if hasattr(model.config, "num_experts_per_tok"):
        model.set_experts_implementation("eager")  # the other has no float64
    windows = torch.randint(4, 200, (3, 12), generator=torch.Generator().manual_seed(1))
    found = mask_gradient(model, windows, silent)
    assert found.shape == (3, HEADS)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3))
    slopes = np.zeros(HEADS)
    for head in range(HEADS):
        for window in windows:
            ends = [loss(model, window, head, 1 + step) for step in (-STEP, STEP)]
            slopes[head] += abs(ends[1] - ends[0]) / (2 * STEP)
    assert found[LAYER] == pytest.approx(slopes / np.linalg.norm(slopes), rel=0.02, abs=5e-3)


def loss(model: Any, window: torch.Tensor, head: int, scale: float) -> float:
    """Mean loss with a head's columns of the output projection scaled, by transformers itself."""
    projection = output_projections(model)[LAYER]
    weight = projection.weight.data.clone()
    by_input = projection.weight.data.T if isinstance(projection, torch.nn.Linear) else None
    rows = projection.weight.data if by_input is None else by_input
    width = rows.shape[0] // HEADS
    rows[head * width : (head + 1) * width] *= scale
    with torch.no_grad():
        logits = model(input_ids=window[None]).logits[0, :-1]
    projection.weight.data.copy_(weight)
    return float(torch.nn.functional.cross_entropy(logits.double(), window[1:]))


def test_a_pruned_model_is_refused() -> None:
    model = tiny_model("gpt2")
    prune_heads(model, {0: [1]})
    with pytest.raises(ModelError, match="pruned already"):
        magnitude(model)
