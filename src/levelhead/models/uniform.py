"""A pruned model as a stock model with fewer heads, where its family's config can say that.

No code of ours is needed to run it. That takes the same number of heads in every layer, key/value
groups of one size, and a config that states the width of a head apart from the hidden size. Whether
a family can is not looked up but tried: the stock class is built from the config with fewer heads,
and must have the pruned model's shapes and give its logits. Knows nothing of files.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from levelhead.errors import CheckpointError
from levelhead.models.architectures import (
    architecture_of,
    head_counts,
    head_dim,
    kept_heads,
    key_value_heads,
    text_config,
)
from levelhead.models.slicing import KeptHeads, plan_key_values

REMEDY = "save it as compact, which can hold any heads"
PER_LAYER = "choose heads with levelhead select --per-layer-equal"
_SAME = 1e-3
"""Largest difference of logits relative to the largest one; they differ by rounding at most."""


def uniform_model(model: PreTrainedModel) -> PreTrainedModel:
    """The stock model that computes what this pruned model does; it shares the weights.

    Raises:
        CheckpointError: unequal numbers of heads, unequal groups, no head left, or a family whose
            stock config cannot say it; with the reason.
    """
    kept = kept_heads(model)
    _, num_heads = head_counts(model)
    check_equal_counts({layer: num_heads - len(heads) for layer, heads in enumerate(kept)})
    if not kept[0]:
        raise CheckpointError(f"uniform: a stock model cannot have 0 heads; {REMEDY}")
    key_values = _equal_groups(model, kept)
    family = f"{architecture_of(model).name} ({model.config.model_type})"
    config = _smaller_config(model, len(kept[0]), key_values, family)
    try:
        with torch.device("meta"):
            stock: PreTrainedModel = type(model)(config)
    except Exception as error:  # every class refuses in its own way
        raise _cannot(family, " ".join(str(error).split())) from error
    _same_shapes(stock, model, family, len(kept[0]))
    stock.load_state_dict(model.state_dict(), assign=True)
    stock.tie_weights()
    _take_buffers(stock, model)
    stock.train(False)
    stock.generation_config = copy.deepcopy(model.generation_config)
    _same_logits(stock, model, family)
    return stock


def check_equal_counts(removed: Mapping[int, int]) -> None:
    """Raise CheckpointError unless every layer loses as many heads.

    Args:
        removed: how many heads each layer of the model loses, {layer: count}.
    """
    counts = sorted(set(removed.values()))
    if len(counts) == 1:
        return
    named = "; ".join(
        f"{count} in {_layers([layer for layer, lost in removed.items() if lost == count])}"
        for count in counts
    )
    raise CheckpointError(
        f"uniform needs the same number of heads removed in every layer, here it is {named}; "
        f"{PER_LAYER}, or {REMEDY}"
    )


def _equal_groups(model: PreTrainedModel, kept: Sequence[tuple[int, ...]]) -> int:
    """The number of key/value heads that every layer keeps."""
    _, num_heads = head_counts(model)
    grouped = key_value_heads(model)
    found: dict[int, list[int]] = {}
    for layer, heads in enumerate(kept):
        shape = KeptHeads(
            heads=heads,
            num_heads=num_heads,
            num_key_value_heads=grouped,
            head_dim=head_dim(model),
        )
        plan = plan_key_values(shape)
        found.setdefault(0 if plan.expand else len(plan.heads), []).append(layer)
    if 0 in found:
        raise CheckpointError(
            f"uniform: in {_layers(found[0])} the groups of query heads that share a key/value "
            f"head are no longer of one size ({num_heads // grouped} in the whole model), which a "
            f"stock config cannot say; remove as many heads of every group, or whole groups, or "
            f"{REMEDY}"
        )
    if len(found) > 1:
        named = "; ".join(f"{count} in {_layers(layers)}" for count, layers in found.items())
        raise CheckpointError(
            f"uniform needs as many key/value heads in every layer, left are {named}; remove as "
            f"many whole groups in every layer, or {REMEDY}"
        )
    return next(iter(found))


def _smaller_config(
    model: PreTrainedModel, num_heads: int, key_values: int, family: str
) -> PreTrainedConfig:
    """The model's config with fewer heads of the same width, checked as one from a file is."""
    data = model.config.to_dict()
    data.pop("quantization_config", None)
    text = text_config(model)
    fields = data
    if text is not model.config:
        name = next(key for key in model.config.sub_configs if getattr(model.config, key) is text)
        fields = data[name]
    names = type(text).attribute_map
    fields[names.get("num_attention_heads", "num_attention_heads")] = num_heads
    if getattr(text, "num_key_value_heads", None) is not None:
        fields[names.get("num_key_value_heads", "num_key_value_heads")] = key_values
    fields["head_dim"] = head_dim(model)
    if getattr(getattr(type(text), "head_dim", None), "fset", True) is None:
        raise _cannot(family, "it computes the width of a head from the hidden size")
    try:
        config: PreTrainedConfig = type(model.config).from_dict(data)
    except Exception as error:  # every config refuses in its own way
        raise _cannot(family, " ".join(str(error).split())) from error
    implementation = getattr(model.config, "_attn_implementation", None)
    config._attn_implementation = implementation  # type: ignore[assignment,unused-ignore]
    config.dtype = model.config.dtype
    return config


def _same_shapes(
    stock: PreTrainedModel, model: PreTrainedModel, family: str, num_heads: int
) -> None:
    wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    shapes = {name: tuple(weight.shape) for name, weight in stock.state_dict().items()}
    wrong = [name for name, shape in wanted.items() if shapes.get(name) != shape]
    if wrong or set(shapes) != set(wanted):
        name = wrong[0] if wrong else min(set(shapes) - set(wanted))
        raise _cannot(
            family,
            f"with {num_heads} heads its {name} is {shapes.get(name)} instead of "
            f"{wanted.get(name)}: it takes the width of a head from the hidden size and the "
            "number of heads",
        )


def _take_buffers(stock: PreTrainedModel, model: PreTrainedModel) -> None:
    """What is computed when a model is made (rotary frequencies) and no checkpoint holds."""
    buffers = dict(model.named_buffers())
    for module_name, module in stock.named_modules():
        for name, old in list(module.named_buffers(recurse=False)):
            new = buffers.get(f"{module_name}.{name}".lstrip("."))
            if old.device.type == "meta" and new is not None:
                module.register_buffer(name, new, persistent=False)


def _same_logits(stock: PreTrainedModel, model: PreTrainedModel, family: str) -> None:
    tensors = [*stock.parameters(), *stock.buffers()]
    if any(tensor.device.type == "meta" for tensor in tensors):
        return  # offloaded: there is nothing to run
    expected, found = _logits(model), _logits(stock)
    if not float((found - expected).abs().max()) <= _SAME * float(expected.abs().max()):
        raise _cannot(family, "the stock model with fewer heads computes something else")


def _logits(model: nn.Module) -> Float[Tensor, "batch time vocabulary"]:
    embedding: Any = model
    weight = embedding.get_input_embeddings().get_parameter("weight")
    tokens = torch.linspace(0, weight.shape[0] - 1, 8, device=weight.device).long()[None]
    with torch.no_grad():
        output = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    logits: Tensor = output.logits.float()
    return logits


def _cannot(family: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"the stock config of {family} cannot say that heads are gone ({reason}); {REMEDY}"
    )


def _layers(layers: Sequence[int]) -> str:
    """ "layer 3", or "layers 0 to 4, 7"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    named = ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs)
    return f"layer{'s' if len(layers) > 1 else ''} {named}"
