"""An edit is the same for a while, for good, saved, and as a LoRA adapter: in every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.rounding import FAR, SAME, difference, same_weights
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from levelhead.errors import CheckpointError, ConfigError, ModelError, SelectionError
from levelhead.models.architectures import head_counts, head_dim, output_projections
from levelhead.models.average_edit import (
    AVERAGE,
    AverageEdit,
    Change,
    average_of,
    save_averaged,
    saved_average,
)
from levelhead.models.checkpoint import load
from levelhead.models.checksums import read_manifest
from levelhead.models.least_squares import read_weight
from levelhead.models.lora import lora_factors, write_lora
from levelhead.models.slicing import rows_of
from levelhead.models.surgery import prune_heads
from levelhead.testing import TINY_FAMILIES, TINY_VARIANTS, WHOLE_LAYER_FAMILIES

Fresh = Callable[..., PreTrainedModel]
Logits = Callable[[PreTrainedModel], Tensor]
FAMILIES = (*TINY_FAMILIES, *TINY_VARIANTS, *WHOLE_LAYER_FAMILIES)
PROTECTED = (1, 4)
"""Heads of every layer whose columns the edit leaves alone."""
peft = pytest.importorskip("peft", reason="peft is not installed: LoRA adapters untested")
# peft calls by the old name what transformers has renamed.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


def edit_of(model: PreTrainedModel, rank: int | None, seed: int = 0) -> AverageEdit:
    """A change of two layers that matters, drawn at random."""
    rng = torch.Generator().manual_seed(seed)
    held = rows_of(PROTECTED, head_dim(model))
    changes = {}
    for layer in (0, 2):
        outputs, inputs = read_weight(output_projections(model)[layer]).shape
        right = torch.randn(rank or outputs, inputs, generator=rng).double() * 0.2
        right[:, held] = 0
        left = torch.linalg.qr(torch.randn(outputs, rank or 1, generator=rng).double()).Q
        changes[layer] = Change(right=right, left=None if rank is None else left)
    record = {"method": "average", "lambda": 10.0, "rank": rank, "layers": [0, 2]}
    return AverageEdit(changes=changes, record=record)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_holds_an_edit(
    family: str, fresh: Fresh, logits: Logits, tmp_path: Path
) -> None:
    for rank in (3, None):
        model, whole = fresh(family), fresh(family)
        before, edit = logits(model), edit_of(model, rank)
        with edit.applied(model):
            expected = logits(model)
        assert same_weights(model, whole), "as it was before, to the last bit"
        assert average_of(model) is None
        assert difference(before, expected) > FAR, "control: it matters"
        edit.apply(model)
        assert torch.equal(logits(model), expected)
        width = head_dim(model)
        for layer in range(head_counts(model)[0]):
            new, old = (read_weight(output_projections(m)[layer]) for m in (model, whole))
            held = rows_of(PROTECTED, width)
            assert torch.equal(new[:, held], old[:, held]), "protected columns keep every bit"
            assert torch.equal(new, old) is (layer not in edit.changes)
        folder = save_averaged(model, tmp_path / f"{rank}", objective={"budget": 0.05})
        assert saved_average(folder) == average_of(model) == edit.record
        stored = json.loads((folder / "config.json").read_text())
        assert stored[AVERAGE] == edit.record
        assert "quantization_config" not in stored, "a stock checkpoint"
        assert (read_manifest(folder) or {})["objective"] == {"budget": 0.05}
        auto: Any = AutoModelForCausalLM
        for again in (load(folder), auto.from_pretrained(folder)):
            assert same_weights(again, model)
            assert average_of(again) == edit.record
            assert difference(logits(again), expected) < SAME


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_it_as_a_lora_adapter_and_merges_it(
    family: str, fresh: Fresh, logits: Logits, tmp_path: Path
) -> None:
    for rank in (3, None):
        model = fresh(family)
        edit = edit_of(model, rank)
        with edit.applied(model):
            expected = logits(model)
        folder = write_lora(edit, model, tmp_path / f"{rank}", rank=rank or 48)
        adapted = peft.PeftModel.from_pretrained(fresh(family), folder).eval()
        assert difference(logits(adapted), expected) < SAME
        with adapted.disable_adapter():
            assert difference(logits(adapted), expected) > FAR, "control: it is the adapter"
        merged = adapted.merge_and_unload()
        assert difference(logits(merged), expected) < SAME
        lora = (read_manifest(folder) or {})["average"]["lora"]
        assert lora["rank"] == (rank or 48)
        assert max(lora["lost"].values()) < 1e-9


def test_less_than_the_whole_of_a_plain_edit_says_what_it_loses(fresh: Fresh) -> None:
    model = fresh("llama")
    edit = edit_of(model, None)
    lost = []
    for rank in (1, 8, 24, 48):
        for layer, factors in lora_factors(edit, rank).items():
            dense = edit.changes[layer].dense
            rest = dense - factors.b @ factors.a
            assert factors.a.shape == (rank, dense.shape[1])
            assert factors.lost == pytest.approx(
                float((rest**2).sum() / (dense**2).sum()), abs=1e-9
            )
        lost.append(factors.lost)
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0.5
    assert lost[-1] == pytest.approx(0, abs=1e-9)
    exact = lora_factors(edit_of(model, 3))
    assert all(len(one.a) == 3 and one.lost == 0 for one in exact.values())
    with pytest.raises(ConfigError, match="rank=8: the change has rank 3 by construction"):
        lora_factors(edit_of(model, 3), 8)
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(ConfigError, match="a whole number, at least 1"):
            lora_factors(edit, wrong)  # type: ignore[arg-type]


def test_an_adapter_says_what_it_belongs_to_and_is_not_written_over(
    fresh: Fresh, tmp_path: Path
) -> None:
    model = fresh("gpt2")
    folder = write_lora(edit_of(model, 3), model, tmp_path / "lora", base="somebody/gpt2")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "somebody/gpt2"
    assert config["r"] == config["lora_alpha"] == 3
    assert config["fan_in_fan_out"] is True
    assert config["target_modules"] == [
        "transformer.h.0.attn.c_proj",
        "transformer.h.2.attn.c_proj",
    ]
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "levelhead.json",
    ]  # fmt: skip
    with pytest.raises(CheckpointError, match="exists already"):
        write_lora(edit_of(model, 3), model, folder)
    write_lora(edit_of(model, 2), model, folder, overwrite=True)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_quantised_base_is_edited_for_a_while_and_by_an_adapter_only(
    fresh: Fresh, logits: Logits, tmp_path: Path
) -> None:
    quanto = pytest.importorskip("optimum.quanto")
    model, plain = fresh("llama"), fresh("llama")
    edit = edit_of(plain, 3)
    quanto.quantize(model, weights=quanto.qint8)
    quanto.freeze(model)
    before = logits(model)
    with pytest.raises(ModelError, match=r"quantised .* Save the change as a LoRA adapter"):
        edit.apply(model)
    with edit.applied(model):
        during = logits(model)
    assert torch.equal(logits(model), before)
    assert difference(during, before) > FAR
    with edit.applied(plain):
        # Of int8 and of float32: alike as far as int8 is.
        assert difference(during, logits(plain)) < 0.2 * difference(during, before)
    folder = write_lora(edit, model, tmp_path / "lora")
    adapted = peft.PeftModel.from_pretrained(model, folder).eval()
    assert difference(logits(adapted), during) < SAME


def test_what_an_edit_does_not_belong_to_is_refused(fresh: Fresh, tmp_path: Path) -> None:
    model = fresh("llama")
    edit = edit_of(model, 3)
    with pytest.raises(CheckpointError, match=r"the model is as it was: AverageEdit\.apply"):
        save_averaged(model, tmp_path / "m")
    with pytest.raises(SelectionError, match=r"is for 48 inputs, and .* has 96"):
        edit.apply(fresh("qwen3"))
    with pytest.raises(SelectionError, match="the change of layer 2 has no place"):
        edit.apply(fresh("llama", num_layers=2))
    edit.apply(model)
    with pytest.raises(ModelError, match="averaged already"):
        edit.apply(model)
    pruned = fresh("llama")
    prune_heads(pruned, {1: [0]})
    with pytest.raises(ModelError, match="pruned already"):
        edit.apply(pruned)
    half = fresh("llama").half()
    huge = Change(right=edit.changes[0].dense * 1e7)
    with pytest.raises(ModelError, match="do not fit float16"):
        AverageEdit(changes={0: huge}, record={}).apply(half)
    half_folder = tmp_path / "half"
    edit.apply(fine := fresh("llama").half())
    assert load(save_averaged(fine, half_folder)).dtype == torch.float16
    manifest = half_folder / "levelhead.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"average": 3}))
    with pytest.raises(CheckpointError, match="damaged record of averaging"):
        saved_average(half_folder)
