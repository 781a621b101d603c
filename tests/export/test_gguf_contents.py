"""What GGUF files of other programs say beyond what transformers reads: taken over, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.test_gguf import VOCABULARY, apart, byte_level, model_of
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from levelhead.data.gguf_contents import FACTORS, llama3_scaling
from levelhead.data.gguf_files import convert_gguf
from levelhead.errors import ModelError
from levelhead.export import gguf as writer

gguf = pytest.importorskip("gguf")
LONG = torch.arange(120)[None] % 290 + 4
"""Far enough for scaled RoPE to tell."""


def llama(**options: Any) -> PreTrainedModel:
    """A Llama with these fields of its config, and large weights, biases too."""
    model = model_of("llama")
    config = model.config
    for name, value in options.items():
        setattr(config, name, value)
    other = type(model)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return other


def written(
    path: Path,
    model: PreTrainedModel,
    fields: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
) -> Path:
    """A GGUF file of a model with further fields and tensors, as other programs write them."""
    plain = path.with_suffix(".plain")
    writer._write(plain, model.config, model.state_dict(), byte_level(), "float32", "{}")
    reader = gguf.GGUFReader(plain)
    family = reader.get_field("general.architecture").contents()
    out = gguf.GGUFWriter(path, family)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind, of = field.types[0], field.types[-1]
            out.add_key_value(name, field.contents(), kind, of if len(field.types) > 1 else None)
    for name, value in (fields or {}).items():
        kind = gguf.GGUFValueType.get_type(value)
        out.add_key_value(f"{family}.{name}", value, kind)
    for tensor in reader.tensors:
        out.add_tensor(tensor.name, np.array(tensor.data))
    for name, data in (tensors or {}).items():
        out.add_tensor(name, data)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def converted(path: Path) -> PreTrainedModel:
    folder = convert_gguf(path, path.with_suffix(""), sha256="", licence="")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return model


def far_apart(a: PreTrainedModel, b: PreTrainedModel) -> float:
    with torch.no_grad():
        return float((a(LONG).logits - b(LONG).logits).abs().max())


def llama3_factors(rope: dict[str, Any], width: int) -> np.ndarray:
    """As llama.cpp's converter writes them."""
    wavelengths = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, width, 2) / width)
    turns = rope["original_max_position_embeddings"] / wavelengths
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
SCALED = {
    "linear": (
        {"rope_type": "linear", "factor": 4.0},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "linear as old files say it": (
        {"rope_type": "linear", "factor": 4.0},
        {"rope.scale_linear": 4.0},
    ),
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {**YARN, "rope.scaling.original_context_length": 32},
    ),
    "yarn with a ramp": (
        {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
            "beta_fast": 16.0,
        },
        {
            **YARN, "rope.scaling.original_context_length": 32,
            "rope.scaling.yarn_beta_fast": 16.0,
        },
    ),
    "llama3": (
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCALED)
def test_scaled_rope_is_taken_over(kind: str, tmp_path: Path) -> None:
    rope, fields = SCALED[kind]
    rope = {**rope, "rope_theta": 1e4}
    model = llama(rope_parameters=rope)
    tensors = {FACTORS: llama3_factors(rope, 16)} if kind == "llama3" else {}
    back = converted(written(tmp_path / "x.gguf", model, fields, tensors))
    assert far_apart(model, back) < 1e-4
    # Control: without the scaling it is another model.
    assert far_apart(model, converted(written(tmp_path / "plain.gguf", model))) > 0.1


def test_factors_of_one_scale_nothing(tmp_path: Path) -> None:
    model = llama()
    path = written(tmp_path / "x.gguf", model, {}, {FACTORS: np.ones(8, np.float32)})
    assert far_apart(model, converted(path)) < 1e-4


@pytest.mark.parametrize("context", [2048, 8192])
def test_parameters_of_llama_3_are_found_again(context: int) -> None:
    rope = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 5e5,
            "original_max_position_embeddings": context}  # fmt: skip
    found = llama3_scaling(llama3_factors(rope, 128), 5e5, 128)
    assert found == {"rope_type": "llama3", **{k: v for k, v in rope.items() if k != "rope_theta"}}
    assert llama3_scaling(np.linspace(1, 9, 64), 5e5, 128) is None
    assert llama3_scaling(np.ones(3), 5e5, 128) is None


@pytest.mark.parametrize("field", ["attention_bias", "mlp_bias"])
def test_biases_are_taken_over(field: str, tmp_path: Path) -> None:
    model = llama(**{field: True})
    back = converted(written(tmp_path / "x.gguf", model))
    assert apart(model, back) < 1e-5
    assert getattr(back.config, field)


def test_a_width_of_heads_that_the_family_has_by_default_otherwise(tmp_path: Path) -> None:
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config).eval()
    assert apart(model, converted(written(tmp_path / "x.gguf", model))) < 1e-5


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attention.sliding_window": 16}, r"attention\.sliding_window = 16"),
        ({"attention.scale": 0.5}, r"attention\.scale = 0\.5"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"attention.causal": False}, r"attention\.causal = False"),
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 4.0}, "longrope"),
        ({**YARN, "rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor"),
        ({"something.new": 1}, r"something\.new = 1"),
    ],
)
def test_a_field_that_is_not_read_is_refused(
    fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.gguf", llama(), fields)
    with pytest.raises(ModelError, match=f"says .*{said}.*another model"):
        converted(path)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"blk.0.attn_sinks.weight": np.ones(6, np.float32)}, r"\(blk\.0\.attn_sinks\.weight\)"),
        ({"rope_factors_long.weight": np.ones(8, np.float32)}, r"rope_factors_long"),
        ({FACTORS: np.linspace(1, 3, 8, dtype=np.float32)}, "otherwise than Llama 3"),
    ],
)
def test_a_tensor_that_is_not_read_is_refused(
    tensors: dict[str, np.ndarray], said: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.gguf", llama(), {}, tensors)
    with pytest.raises(ModelError, match=said):
        converted(path)
    assert not (tmp_path / "x").exists()


def test_biases_that_a_family_has_no_place_for_are_refused(tmp_path: Path) -> None:
    """Qwen2's output projection has none."""
    bias = {"blk.0.attn_output.bias": np.ones(96, np.float32)}
    path = written(tmp_path / "x.gguf", model_of("qwen2"), {}, bias)
    with pytest.raises(ModelError, match=r"\(blk\.0\.attn_output\.bias\)"):
        converted(path)
