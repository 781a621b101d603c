"""Where each model family keeps its decoder layers, attention, output projection and heads.

One `Architecture` per family; `ARCHITECTURES` is the whole list (CONTRIBUTING.md, recipe 1, adds
one). Facts only: gates.py, resume.py and surgery.py act on them.

The input of the output projection is the head-major concatenation of the heads in every family
here, so that one head is one block of `head_dim` columns of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from levelhead.errors import UnsupportedArchitectureError
from levelhead.models.removed_heads import removed_heads
from levelhead.models.slicing import (
    SliceHeads,
    input_width,
    slice_bloom,
    slice_cohere,
    slice_falcon,
    slice_gpt2,
    slice_gpt_oss,
    slice_interleaved,
    slice_phi3,
    slice_separate,
    slice_stablelm,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One model family.

    Paths are dotted attribute names: `layers` from the causal LM to the list of decoder layers,
    `attention` from a layer to its attention module, `output_projection` from there.
    """

    name: str
    model_types: tuple[str, ...]
    """`config.model_type` of the models that are built this way."""
    layers: str = "model.layers"
    attention: str = "self_attn"
    output_projection: str = "o_proj"
    slice_heads: SliceHeads = slice_separate
    """Slices queries, keys and values of one attention module to a set of kept heads."""
    adds_residual: bool = False
    """Whether the attention module itself adds the residual stream, its second argument."""
    whole_layers_only: str = ""
    """Why single heads cannot be removed exactly, only all heads of a layer; "" where they can."""


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="GPT-2, DistilGPT-2",
        model_types=("gpt2",),
        layers="transformer.h",
        attention="attn",
        output_projection="c_proj",
        slice_heads=slice_gpt2,
    ),
    Architecture(
        name="GPT-Neo",
        model_types=("gpt_neo",),
        layers="transformer.h",
        attention="attn.attention",
        output_projection="out_proj",
    ),
    Architecture(
        name="GPT-J",
        model_types=("gptj",),
        layers="transformer.h",
        attention="attn",
        output_projection="out_proj",
    ),
    Architecture(name="Llama 2 and 3, SmolLM2", model_types=("llama",)),
    Architecture(name="Mistral", model_types=("mistral",)),
    Architecture(name="Qwen2", model_types=("qwen2",)),
    Architecture(name="Qwen3", model_types=("qwen3",)),
    Architecture(name="Gemma 2", model_types=("gemma2",)),
    Architecture(name="Gemma 3 (text)", model_types=("gemma3_text",)),
    Architecture(
        name="Gemma 3 (text and images)",
        model_types=("gemma3",),
        layers="model.language_model.layers",
    ),
    Architecture(
        name="GPT-NeoX, Pythia",
        model_types=("gpt_neox",),
        layers="gpt_neox.layers",
        attention="attention",
        output_projection="dense",
        slice_heads=slice_interleaved,
    ),
    Architecture(
        name="OPT",
        model_types=("opt",),
        layers="model.decoder.layers",
        output_projection="out_proj",
    ),
    Architecture(name="Phi-3", model_types=("phi3",), slice_heads=slice_phi3),
    Architecture(name="Mixtral", model_types=("mixtral",)),
    Architecture(name="Qwen3-MoE", model_types=("qwen3_moe",)),
    Architecture(name="gpt-oss", model_types=("gpt_oss",), slice_heads=slice_gpt_oss),
    Architecture(name="Cohere", model_types=("cohere",), slice_heads=slice_cohere),
    Architecture(name="Cohere2", model_types=("cohere2",)),
    Architecture(name="StarCoder2", model_types=("starcoder2",)),
    Architecture(name="StableLM", model_types=("stablelm",), slice_heads=slice_stablelm),
    Architecture(name="Granite", model_types=("granite",)),
    Architecture(name="OLMo", model_types=("olmo",)),
    Architecture(
        name="OLMo 2",
        model_types=("olmo2",),
        whole_layers_only="it normalises the queries, and the keys, of all heads together",
    ),
    Architecture(
        name="BLOOM",
        model_types=("bloom",),
        layers="transformer.h",
        attention="self_attention",
        output_projection="dense",
        slice_heads=slice_bloom,
        adds_residual=True,
    ),
    Architecture(
        name="Falcon",
        model_types=("falcon",),
        layers="transformer.h",
        attention="self_attention",
        output_projection="dense",
        slice_heads=slice_falcon,
    ),
)


def architecture_of(model_or_config: PreTrainedModel | PreTrainedConfig) -> Architecture:
    """The family of a model, by its config's `model_type`.

    Raises:
        UnsupportedArchitectureError: the family is not in ARCHITECTURES, or has an option set
            with which its heads cannot be told apart.
    """
    config: Any = getattr(model_or_config, "config", model_or_config)
    if getattr(config, "slow_but_exact", False) and config.pretraining_tp > 1:
        raise UnsupportedArchitectureError(
            f"BLOOM with slow_but_exact=True and pretraining_tp={config.pretraining_tp} goes past "
            "the output projection, where heads are gated; load it with slow_but_exact=False"
        )
    return architecture_named(getattr(config, "model_type", None))


def architecture_named(model_type: object) -> Architecture:
    """The family of models whose config says this `model_type`.

    Raises:
        UnsupportedArchitectureError: the family is not in ARCHITECTURES.
    """
    for family in ARCHITECTURES:
        if model_type in family.model_types:
            return family
    known = ", ".join(f"{family.name} ({'/'.join(family.model_types)})" for family in ARCHITECTURES)
    raise UnsupportedArchitectureError(
        f"the model family {model_type!r} is not supported; supported are {known}. "
        "To add a family, see CONTRIBUTING.md, recipe 1"
    )


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers, first to last; of a causal LM, or of the model inside (`AutoModel`)."""
    path = architecture_of(model).layers
    outer, _, inner = path.partition(".")
    layers = model.get_submodule(path if hasattr(model, outer) else inner)
    return list(layers.children())


def attention_modules(model: PreTrainedModel) -> list[nn.Module]:
    """The attention module of every decoder layer, first to last."""
    path = architecture_of(model).attention
    return [layer.get_submodule(path) for layer in decoder_layers(model)]


def output_projections(model: PreTrainedModel) -> list[nn.Module]:
    """The attention output projection of every decoder layer, first to last."""
    path = architecture_of(model).output_projection
    return [attention.get_submodule(path) for attention in attention_modules(model)]


def head_counts(model_or_config: PreTrainedModel | PreTrainedConfig) -> tuple[int, int]:
    """(number of layers, query heads per layer) of the unpruned model."""
    config = text_config(model_or_config)
    return int(config.num_hidden_layers), int(config.num_attention_heads)


def key_value_heads(model_or_config: PreTrainedModel | PreTrainedConfig) -> int:
    """Key/value heads per layer of the unpruned model: as many as query heads if none is shared."""
    config = text_config(model_or_config)
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def kept_heads(model: PreTrainedModel) -> list[tuple[int, ...]]:
    """For every layer the query heads it has, numbered as in the unpruned model."""
    num_layers, num_heads = head_counts(model)
    gone = removed_heads(model)
    return [
        tuple(head for head in range(num_heads) if head not in gone.get(layer, ()))
        for layer in range(num_layers)
    ]


def head_dim(model: PreTrainedModel) -> int:
    """Width of one head in the input of the output projection, never hidden size / heads.

    0 for a model that lost every head of every layer.
    """
    return next(_head_dims(model), 0)


def text_config(model_or_config: PreTrainedModel | PreTrainedConfig) -> Any:
    """The config of the text decoder: the config itself unless the model also reads images."""
    config: Any = getattr(model_or_config, "config", model_or_config)
    return config.get_text_config(decoder=True)


def _head_dims(model: PreTrainedModel) -> Iterator[int]:
    for projection, heads in zip(output_projections(model), kept_heads(model), strict=True):
        if heads:
            yield input_width(projection) // len(heads)
