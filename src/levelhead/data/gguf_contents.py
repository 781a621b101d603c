"""What a GGUF file says of its model and transformers does not read: taken over, or refused.

transformers leaves out tensors that the model it builds has no place for, and metadata that it has
no name for, without a word; the result is another model. Here the config that it makes of a file is
completed (scaled RoPE, biases, width of heads) and compared with every field of the file that can
change what the model computes; the tensors are counted after they were read. What is neither read
nor known to be harmless is an error. Knows nothing of tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFReader

FACTORS = "rope_freqs.weight"
"""What the rotary frequencies are divided by; Llama 3.1 and later scale by it."""
SCALED = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe")
"""`config.model_type` of those whose layers all rotate as `rope_parameters` says."""
TIED = ("bloom", "falcon")
"""Those whose output is the embedding again, in the file, too."""
LOW, HIGH, CONTEXT = 1.0, 4.0, 8192
"""Of the published Llama 3 models; a file holds only what follows from them."""
_HARMLESS = frozenset({
    "context_length", "feed_forward_length", "tensor_data_layout", "attention.causal",
    "rope.scaling.finetuned",
})  # fmt: skip
"""Fields that change nothing here, or that the shapes of tensors say again."""
_MOST_NAMED = 3


def completed_config(config: Any, reader: GGUFReader, gguf: Path) -> Any:
    """The config that transformers made of a file, with what it left out.

    Raises:
        ModelError: a field of the file that can change the model says otherwise than the config.
    """
    fields = _fields(reader)
    names = {tensor.name for tensor in reader.tensors}
    for field, tensor in (("attention_bias", "attn_q.bias"), ("mlp_bias", "ffn_up.bias")):
        if hasattr(config, field) and any(name.endswith(f".{tensor}") for name in names):
            setattr(config, field, True)
    width = fields.get("attention.key_length")
    told = isinstance(width, int) and width == fields.get("attention.value_length")
    if told and width != _head_dim(config):
        config.head_dim = width
    _scale_of_27b(config)
    _scale_rope(config, fields, reader, gguf)
    other = [name for name, value in fields.items() if not _agrees(config, name, value)]
    if other:
        said = ", ".join(f"{name} = {_short(fields[name])}" for name in sorted(other)[:_MOST_NAMED])
        raise ModelError(
            f"{gguf} says {said}, which transformers does not read: it would be another model. "
            "Take the model's safetensors instead, if there are any"
        )
    return config


def check_all_read(model: Any, reader: GGUFReader, gguf: Path) -> None:
    """Raise ModelError where a file holds more numbers than the model that was made of it.

    Every tensor of the model was filled from the file (`missing_keys` is empty) and none is filled
    twice, so what is over was not read.
    """
    kind = model.config.model_type
    left_out = {FACTORS, *(("output.weight",) if kind in TIED else ())}
    held = sum(int(t.n_elements) for t in reader.tensors if t.name not in left_out)
    taken = sum(parameter.numel() for parameter in model.parameters())
    if held != taken:
        unread = _unread(model, reader, left_out)
        told = f" ({', '.join(unread[:_MOST_NAMED])})" if unread else ""
        raise ModelError(
            f"{gguf} holds tensors that transformers does not read{told}: {held:,} numbers in the "
            f"file, {taken:,} in the model. It would be another model; take its safetensors "
            "instead, if there are any"
        )


def _fields(reader: GGUFReader) -> dict[str, Any]:
    """What the file says under the name of its architecture; only that changes a model."""
    family = reader.get_field("general.architecture")
    prefix = f"{family.contents()}." if family else "?"
    return {
        name.removeprefix(prefix): field.contents()
        for name, field in reader.fields.items()
        if name.startswith(prefix)
    }


def _unread(model: Any, reader: GGUFReader, left_out: set[str]) -> list[str]:
    """Names of tensors that no parameter goes by; for people, so that a guess will do."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    family = reader.get_field("general.architecture")
    arch = next((k for k, v in MODEL_ARCH_NAMES.items() if family and v == family.contents()), None)
    if arch is None:
        return []
    names = get_tensor_name_map(arch, model.config.num_hidden_layers)
    suffixes = (".weight", ".bias")
    known = {names.get_name(name, try_suffixes=suffixes) for name, _ in model.named_parameters()}
    return [t.name for t in reader.tensors if t.name not in known | left_out]


def _scale_of_27b(config: Any) -> None:
    """Scale the attention of Gemma 2 and 3 of 27 billion; llama.cpp tells them by layers, too."""
    layers = {"gemma2": 46, "gemma3_text": 62}.get(config.model_type)
    if layers == config.num_hidden_layers:
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads


def _scale_rope(config: Any, fields: dict[str, Any], reader: GGUFReader, gguf: Path) -> None:
    """Take scaled RoPE over into `rope_parameters`; what was read leaves `fields`."""
    factors = next((t.data for t in reader.tensors if t.name == FACTORS), None)
    bent = factors is not None and not np.allclose(factors, 1)
    kind = fields.get("rope.scaling.type", "linear")  # llama.cpp's default
    factor = fields.get("rope.scaling.factor", fields.get("rope.scale_linear", 0)) or 1
    if kind == "none" or (kind == "linear" and factor == 1):
        for name in ("rope.scaling.type", "rope.scaling.factor", "rope.scale_linear"):
            fields.pop(name, None)
        scaling: dict[str, Any] | None = None
    else:
        scaling = {"rope_type": kind, "factor": float(factor)}
    rope = getattr(config, "rope_parameters", None)
    if not bent and scaling is None:
        return
    flat = config.model_type in SCALED and isinstance(rope, dict) and "rope_theta" in rope
    if rope is None or not flat or (bent and scaling):
        if bent:
            raise ModelError(f"{gguf} scales RoPE by {FACTORS}, {_NOT_READ}")
        return  # the fields stay, and are refused
    if bent:
        scaling = llama3_scaling(np.asarray(factors), rope["rope_theta"], _head_dim(config))
        if scaling is None:
            raise ModelError(f"{gguf} scales RoPE by {FACTORS} otherwise than Llama 3, {_NOT_READ}")
    elif kind == "yarn":
        before = fields.pop("rope.scaling.original_context_length", fields.get("context_length"))
        scaling = (scaling or {}) | {"original_max_position_embeddings": before}
        for ours in ("beta_fast", "beta_slow"):
            if (told := fields.pop(f"rope.scaling.yarn_{ours}", None)) is not None:
                scaling[ours] = float(told)
    if kind in ("linear", "yarn"):
        for name in ("rope.scaling.type", "rope.scaling.factor", "rope.scale_linear"):
            fields.pop(name, None)
    config.rope_parameters = {**rope, **(scaling or {})}


_NOT_READ = "which transformers does not read from a GGUF file; take the model's safetensors"


def llama3_scaling(
    factors: Float[np.ndarray, " pairs"], theta: float, width: int
) -> dict[str, Any] | None:
    """The parameters of Llama 3's scaling that give these factors; None: none do.

    Args:
        factors: by what each frequency is divided, from the fastest on.
        theta: RoPE's base.
        width: of a head.
    """
    factors = np.asarray(factors, dtype=np.float64).ravel()
    if len(factors) != width // 2:
        return None
    wavelengths = 2 * math.pi * theta ** (np.arange(0, width, 2) / width)
    factor = round(float(factors.max()), 4)
    between = (factors > 1 + 1e-4) & (factors < factor - 1e-4)
    # Without a frequency in between, every context that leaves these as they are is as good.
    whole, full = wavelengths[factors <= 1 + 1e-4], wavelengths[factors >= factor - 1e-4]
    context = min(max(float(CONTEXT), HIGH * whole.max(initial=0)), LOW * full.min(initial=1e12))
    if between.any():
        smooth = (1 / factors[between] - 1 / factor) / (1 - 1 / factor)
        context = float(np.median(wavelengths[between] * (smooth * (HIGH - LOW) + LOW)))
    context = int(context if not between.any() else round(context))
    smooth = np.clip((context / wavelengths - LOW) / (HIGH - LOW), 0, 1)
    if not np.allclose(1 / ((1 - smooth) / factor + smooth), factors, rtol=1e-3):
        return None
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": context,
    }


def _agrees(config: Any, name: str, value: Any) -> bool:
    """Whether a field changes nothing, or says what the config says."""
    if name in _HARMLESS:
        return name != "attention.causal" or bool(value)
    if name not in _COMPARED:
        return False
    told = _COMPARED[name](config)
    if isinstance(told, int | float) and isinstance(value, int | float):
        return math.isclose(told, value, rel_tol=1e-5)
    return bool(told == value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _head_dim(config: Any) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _rope(config: Any, layers: str = "full_attention") -> Mapping[str, Any]:
    found = getattr(config, "rope_parameters", None) or {}
    nested = found.get(layers)
    return nested if isinstance(nested, dict) else found


def _rotated(config: Any) -> int:
    share = _rope(config).get("partial_rotary_factor")
    share = share or getattr(config, "partial_rotary_factor", None) or 1.0
    return int(_head_dim(config) * share)


def _one_of(*fields: str) -> Callable[[Any], Any]:
    """The first of these fields that a config has."""

    def told(config: Any) -> Any:
        return next((getattr(config, field) for field in fields if hasattr(config, field)), None)

    return told


def _pattern(config: Any) -> list[bool] | None:
    """By layer, whether its window slides."""
    kinds = getattr(config, "layer_types", None)
    return None if kinds is None else [kind == "sliding_attention" for kind in kinds]


_COMPARED: dict[str, Callable[[Any], Any]] = {
    "block_count": _one_of("num_hidden_layers"),
    "embedding_length": _one_of("hidden_size"),
    "vocab_size": _one_of("vocab_size"),
    "attention.head_count": _one_of("num_attention_heads"),
    "attention.head_count_kv": _one_of("num_key_value_heads", "num_attention_heads"),
    "attention.key_length": _head_dim,
    "attention.value_length": _head_dim,
    "attention.layer_norm_rms_epsilon": _one_of("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": _one_of(
        "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"
    ),
    "attention.sliding_window": _one_of("sliding_window"),
    "attention.sliding_window_pattern": _pattern,
    "attention.max_alibi_bias": lambda config: 8.0,
    "attn_logit_softcapping": _one_of("attn_logit_softcapping"),
    "final_logit_softcapping": _one_of("final_logit_softcapping"),
    "use_parallel_residual": _one_of("use_parallel_residual"),
    "expert_count": _one_of("num_experts", "num_local_experts"),
    "expert_used_count": _one_of("num_experts_per_tok"),
    "expert_feed_forward_length": _one_of("moe_intermediate_size", "intermediate_size"),
    "rope.dimension_count": _rotated,
    "rope.freq_base": lambda config: _rope(config).get("rope_theta"),
    "rope.freq_base_swa": lambda config: _rope(config, "sliding_attention").get("rope_theta"),
}
"""Fields that a config says, too."""
