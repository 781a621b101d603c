"""GGUF files of models in stock shapes, for llama.cpp and what is built on it.

Llama 3 and SmolLM2 (`llama`), Qwen2 and Qwen3; whole, zeroed or uniform. A compact model with
uneven layers cannot be said in GGUF's metadata (one number of heads for all layers): `zero_fill`
writes it in stock shapes, with zeros where heads were, no smaller. Every file is read back with
transformers (`gguf_file=`) and its logits and tokens are compared. llama.cpp itself is not run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from levelhead.errors import CheckpointError, ConfigError, missing_extra
from levelhead.export.files import Exported, check_difference, logits_difference, new_file
from levelhead.export.gguf_tokenizer import OTHER_WAY, write_tokenizer
from levelhead.models.architectures import architecture_of
from levelhead.models.removed_heads import model_is_pruned, removed_heads
from levelhead.models.zero_fill import zero_filled

LIMITS = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1, "q8_0": 2e-1}
"""Number formats of matrices (vectors stay float32), and by how much logits may then differ."""
FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""`config.model_type` -> GGUF's name of the architecture."""
HEADS = "levelhead.removed_heads"
SAMPLE = "The neighbours' 3 dogs said: “hello”, it's a new   day!\n"


@dataclass(frozen=True, slots=True)
class _Types:
    """What gguf calls a number format."""

    matrix: Any
    vector: Any
    file: Any


def export_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    *,
    dtype: str = "float32",
    zero_fill: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a model and its tokenizer as a GGUF file that transformers reads back the same.

    Args:
        model: on the CPU; whole, zeroed or uniform.
        dtype: of the matrices, a key of LIMITS.
        zero_fill: write a compact model in stock shapes, zeros where heads were.
        overwrite: replace a file that is there.

    Raises:
        MissingExtraError: the `gguf` package is not installed.
        ConfigError: an unknown dtype.
        CheckpointError: a family, shape or tokenizer that the file could not say exactly; a file in
            the way; or what is read back differs.
    """
    if importlib.util.find_spec("gguf") is None:
        raise missing_extra("GGUF export", "gguf")
    if dtype not in LIMITS:
        raise ConfigError(f"--dtype {dtype!r} is unknown for GGUF; there are {', '.join(LIMITS)}")
    gone, is_pruned = removed_heads(model), model_is_pruned(model)
    if is_pruned and not zero_fill:
        raise CheckpointError(
            "GGUF has one number of heads for all layers, and this model is compact (uneven): "
            "export it zero-filled (--zero-fill), or a model of format zeroed or uniform"
        )
    config: Any = model.config
    weights: Mapping[str, Tensor] = model.state_dict()
    if is_pruned:
        whole, weights = zero_filled(model)
        config = whole.config
    refuse_what_gguf_cannot_say(config)
    with new_file(Path(path), overwrite) as target:
        _write(target, config, weights, tokenizer, dtype, json.dumps(gone))
        difference = _read_back(target, model, tokenizer)
        check_difference(difference, LIMITS[dtype], f"the GGUF file ({dtype})")
        size = target.stat().st_size
    return Exported(path=Path(path), num_bytes=size, difference=difference)


def refuse_what_gguf_cannot_say(config: Any) -> None:
    """Raise CheckpointError for a family or an option of it that this writer has no field for."""
    architecture_of(config)
    kind = config.model_type
    if kind not in FAMILIES:
        raise CheckpointError(
            f"the GGUF writer knows {', '.join(FAMILIES)}, not {kind!r}; {OTHER_WAY}"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    reasons = {
        f"rope_type {rope.get('rope_type')!r}": rope.get("rope_type", "default") != "default",
        "a sliding window": bool(getattr(config, "use_sliding_window", False)),
        "biases in attention": kind != "qwen2" and bool(getattr(config, "attention_bias", False)),
        "biases in the MLP": bool(getattr(config, "mlp_bias", False)),
        f"activation {config.hidden_act!r}": config.hidden_act != "silu",
        # transformers reads no head width from a Qwen2 or Qwen3 file.
        f"a head width of {_head_dim(config)}": (
            (kind == "qwen3" and _head_dim(config) != 128)
            or (
                kind == "qwen2"
                and _head_dim(config) * config.num_attention_heads != config.hidden_size
            )
        ),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise CheckpointError(
            f"the GGUF writer has no field for {' and '.join(found)} of a {kind} model; {OTHER_WAY}"
        )


def _write(
    path: Path,
    config: Any,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    dtype: str,
    heads: str,
) -> None:
    import gguf

    kind = FAMILIES[config.model_type]
    names = gguf.get_tensor_name_map(
        getattr(gguf.MODEL_ARCH, kind.upper()), config.num_hidden_layers
    )
    types = _types(dtype)
    with contextlib.closing(gguf.GGUFWriter(path, kind)) as writer:
        writer.add_name(str(getattr(config, "_name_or_path", "") or "model"))
        writer.add_string(HEADS, heads)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(_head_dim(config))
        writer.add_value_length(_head_dim(config))
        writer.add_rope_dimension_count(_head_dim(config))
        writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
        writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
        writer.add_vocab_size(config.vocab_size)
        writer.add_file_type(types.file)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        write_tokenizer(writer, tokenizer, config.vocab_size)
        for name, weight in weights.items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if stored is None:
                raise CheckpointError(f"the GGUF format has no name for the tensor {name}")
            values = _in_ggml_order(name, weight.detach().float(), config).contiguous().numpy()
            wide = values.ndim > 1 and values.shape[-1] % 32 == 0
            form = types.matrix if wide else types.vector
            writer.add_tensor(stored, gguf.quantize(values, form), raw_dtype=form)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def _in_ggml_order(
    name: str, weight: Shaped[Tensor, "*shape"], config: Any
) -> Shaped[Tensor, "*shape"]:
    """llama.cpp rotates neighbouring pairs in the llama family, transformers halves of a head."""
    if config.model_type != "llama":
        return weight
    for part, heads in (
        (".q_proj.", config.num_attention_heads),
        (".k_proj.", config.num_key_value_heads),
    ):
        if part in name:
            width = weight.shape[0] // heads
            split = weight.reshape(heads, 2, width // 2, *weight.shape[1:])
            return split.transpose(1, 2).reshape(weight.shape)
    return weight


def _read_back(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """Difference of the file's logits from the model's (as float32).

    Raises:
        CheckpointError: transformers cannot read the file, or its tokens are others.
    """
    auto_model: Any = AutoModelForCausalLM
    auto_tokenizer: Any = AutoTokenizer
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(path.parent),
        "gguf_file": path.name,
        "trust_remote_code": False,
    }
    try:
        with _quiet():
            read = auto_model.from_pretrained(**source, dtype=torch.float32)
            words = auto_tokenizer.from_pretrained(**source)
    except Exception as error:  # the reader raises many kinds
        raise CheckpointError(f"transformers cannot read the GGUF file back: {error}") from error
    encode: Any = tokenizer
    expected = encode(SAMPLE, add_special_tokens=False)["input_ids"]
    if words(SAMPLE, add_special_tokens=False)["input_ids"] != expected:
        raise CheckpointError(f"the GGUF file reads other tokens from {SAMPLE!r}; {OTHER_WAY}")

    def logits(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        out = read(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        found: Tensor = out.logits
        return found.detach()

    return logits_difference(model, logits)


def _head_dim(config: Any) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _types(dtype: str) -> _Types:
    import gguf

    kinds, files = gguf.GGMLQuantizationType, gguf.LlamaFileType
    matrix, file = {
        "float32": (kinds.F32, files.ALL_F32),
        "float16": (kinds.F16, files.MOSTLY_F16),
        "bfloat16": (kinds.BF16, files.MOSTLY_BF16),
        "q8_0": (kinds.Q8_0, files.MOSTLY_Q8_0),
    }[dtype]
    return _Types(matrix, kinds.F32, file)


@contextmanager
def _quiet() -> Iterator[None]:
    """The GGUF reader's progress bar heeds no setting; what it logs is of no use here."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
