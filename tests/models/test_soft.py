"""Gates folded into the output projection are the gates that hooks apply, in every family."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.rounding import FAR, SAME, same_weights
from transformers import AutoModelForCausalLM

from levelhead.errors import ModelError, SelectionError
from levelhead.models.architectures import head_counts
from levelhead.models.checksums import read_manifest
from levelhead.models.gates import gated
from levelhead.models.soft import save_scaled, saved_gates, scale_heads
from levelhead.models.surgery import prune_heads, zero_heads
from levelhead.testing import TINY_FAMILIES, TINY_VARIANTS, WHOLE_LAYER_FAMILIES, tiny_model

IDS = torch.randint(5, 150, (2, 12), generator=torch.Generator().manual_seed(0))
FAMILIES = (*TINY_FAMILIES, *TINY_VARIANTS, *WHOLE_LAYER_FAMILIES)


@torch.inference_mode()
def logits(model) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return model(input_ids=IDS, use_cache=False).logits


def draw(model, seed: int = 0) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.random.default_rng(seed).random(head_counts(model)).round(3)


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_gates_are_the_gates(family: str) -> None:
    model = tiny_model(family)
    gates = draw(model)
    with gated(model, torch.tensor(gates, dtype=torch.float32)):
        wanted = logits(model)
    with gated(model, torch.tensor(np.roll(gates, 1, axis=1), dtype=torch.float32)):
        other = logits(model)
    before = logits(model)
    scale_heads(model, gates)
    scale = wanted.abs().max()
    assert (logits(model) - wanted).abs().max() < SAME * scale
    assert (wanted - before).abs().max() > FAR * scale  # control: gates matter
    assert (wanted - other).abs().max() > FAR * scale  # control: whose gates they are matters


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_gate_of_1_changes_no_bit_and_a_gate_of_0_is_zeroing(family: str) -> None:
    model, zeroed = tiny_model(family), tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gates = np.ones(head_counts(model))
    scale_heads(model, gates)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    gates[1, [0, 3]] = 0
    scale_heads(model, gates)
    zero_heads(zeroed, {1: [0, 3]})
    pairs = zip(model.state_dict().values(), zeroed.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_it_is_saved_as_a_stock_model_with_a_record(tmp_path: Path) -> None:
    model = tiny_model("llama")
    gates = draw(model)
    scale_heads(model, gates)
    save_scaled(model, tmp_path / "m", gates, objective={"method": "joint"})
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert same_weights(again, model)
    assert (logits(again) - logits(model)).abs().max() < SAME * logits(model).abs().max()
    assert saved_gates(tmp_path / "m") == pytest.approx(gates)
    manifest = read_manifest(tmp_path / "m") or {}
    assert manifest["format"] == "scaled"
    assert manifest["removed_heads"] == {}
    assert "quantization_config" not in (tmp_path / "m" / "config.json").read_text()


def test_what_cannot_be_scaled_is_refused() -> None:
    model = tiny_model("llama")
    with pytest.raises(SelectionError, match=r"shape \[2, 2\]: the model has 3 layers of 6 heads"):
        scale_heads(model, np.ones((2, 2)))
    with pytest.raises(SelectionError, match=r"a gate of 1\.5: gates are from 0 to 1"):
        scale_heads(model, np.full((3, 6), 1.5))
    with pytest.raises(SelectionError, match="a gate of nan"):
        scale_heads(model, np.full((3, 6), np.nan))
    prune_heads(model, {0: [1]})
    with pytest.raises(ModelError, match="pruned already"):
        scale_heads(model, np.ones((3, 6)))
