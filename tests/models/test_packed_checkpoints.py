"""Checkpoints that transformers unpacks on load: their numbers are saved as they are then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.rounding import SAME
from tests.rounding import difference as apart
from torch import Tensor
from transformers import PreTrainedModel

from levelhead.errors import CheckpointError
from levelhead.models.checkpoint import load, save_pruned
from levelhead.models.loading import load_base
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import prune_heads
from levelhead.testing import save_tiny_checkpoint, tiny_model

BLOCK = 32
GONE = {0: [1], 1: [3]}
FORMATS = ("compact", "zeroed", "remote-code")


def packed(folder: Path, family: str, pack: Any, settings: dict[str, Any]) -> Path:
    """A tiny checkpoint whose large matrices are stored packed."""
    save_tiny_checkpoint(folder, family, num_heads=4, hidden_size=64)
    file = folder / "model.safetensors"
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(file).items():
        tensors |= pack(name, tensor)
    save_file(tensors, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return folder


def mxfp4(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
        return {name: tensor}
    experts, inputs, outputs = tensor.shape
    generator = torch.Generator().manual_seed(len(name))
    shape = (experts, outputs, inputs // BLOCK)
    blocks = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8, generator=generator)
    scales = torch.full(shape, 122, dtype=torch.uint8)
    return {f"{name}_blocks": blocks, f"{name}_scales": scales}


def fp8(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if "proj" not in name or tensor.ndim != 2:
        return {name: tensor}
    rows, columns = (-(-size // BLOCK) for size in tensor.shape)
    scales = torch.full((rows, columns), 0.5)
    return {
        name: (tensor / 0.5).to(torch.float8_e4m3fn),
        name.replace("weight", "weight_scale_inv"): scales,
    }


MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["self_attn", "router", "lm_head"]}
FP8 = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}


@pytest.fixture(scope="module", params=["mxfp4", "fp8"])
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where: Path = tmp_path_factory.mktemp("packed") / request.param
    if request.param == "mxfp4":
        return packed(where, "gpt_oss", mxfp4, MXFP4)
    return packed(where, "qwen3", fp8, FP8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMATS)
def test_what_is_saved_loads_as_the_same_model(
    form: Any, folder: Path, tmp_path: Path, logits: Any
) -> None:
    model = load_base(folder, device="cpu").model
    assert model.dtype == torch.float32  # dequantised to what was asked for
    whole = logits(model)
    prune_heads(model, GONE)
    save_pruned(model, tmp_path / "m", form)
    assert apart(logits(load(tmp_path / "m")), logits(model)) < SAME
    assert apart(logits(load(tmp_path / "m")), whole) > 0.001  # control: heads are gone
    if form != "zeroed":
        assert {n: list(h) for n, h in removed_heads(load(tmp_path / "m")).items()} == GONE


@pytest.mark.parametrize("spoil", ["names", "values"])
def test_a_model_that_does_not_come_back_is_not_kept(
    spoil: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a library does to tensors as it saves: the folder is not there."""
    model = tiny_model("llama")
    prune_heads(model, GONE)
    stock = PreTrainedModel.save_pretrained

    def spoiled(self: PreTrainedModel, where: Path, **options: Any) -> None:
        stock(self, where, **options)
        file = Path(where) / "model.safetensors"
        tensors = load_file(file)
        name = "model.layers.2.mlp.down_proj.weight"
        weight = tensors.pop(name)
        tensors[f"{name}_packed" if spoil == "names" else name] = weight * 2
        save_file(tensors, file, {"format": "pt"})

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", spoiled)
    said = "would lack 1 tensors" if spoil == "names" else "computes other logits"
    with pytest.raises(CheckpointError, match=said):
        save_pruned(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
