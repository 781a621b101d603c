"""Slice one attention module, in place, to a set of kept query heads: one function per layout.

Works on any device, `meta` included, and keeps dtype and requires_grad. The input of the output
projection is head-major in every layout, so that its slice is common to all of them. This file
does not know model families (architectures.py) nor which heads should go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from levelhead.models.pruned_modules import (
    ConfigView,
    ExpandKeyValues,
    SelectHeadBias,
    SplitFalconHeads,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHeads:
    """The query heads that one attention module keeps, and its shape before.

    `heads` are ascending and not empty; `head_dim` is the width of one head in the output
    projection's input.
    """

    heads: tuple[int, ...]
    num_heads: int
    num_key_value_heads: int
    head_dim: int


SliceHeads = Callable[[Any, KeptHeads], None]
"""Slices everything of an attention module but its output projection."""


@dataclass(frozen=True, slots=True)
class KeyValuePlan:
    """Which key/value heads stay, and how kept query heads share them.

    `expand` is None where every kept key/value head serves the same number (`groups`) of query
    heads, in order, as the stock code assumes; otherwise it maps query heads to kept ones.
    """

    heads: tuple[int, ...]
    groups: int
    expand: tuple[int, ...] | None


def plan_key_values(kept: KeptHeads) -> KeyValuePlan:
    """A key/value head stays while one of its query heads does (the smallest exact choice)."""
    group = kept.num_heads // kept.num_key_value_heads
    served = [head // group for head in kept.heads]
    live = tuple(sorted(set(served)))
    if len({served.count(head) for head in live}) == 1:
        return KeyValuePlan(live, len(kept.heads) // len(live), None)
    return KeyValuePlan(live, 1, tuple(live.index(head) for head in served))


def rows_of(heads: Iterable[int], width: int, offset: int = 0) -> list[int]:
    """Row numbers of head-major blocks of `width` rows, the first block starting at `offset`."""
    return [offset + head * width + row for head in heads for row in range(width)]


def keep_outputs(module: nn.Module, rows: Sequence[int]) -> None:
    """Keep these outputs of a Linear or Conv1D, with their biases, in place."""
    _select(module, "weight", 1 if isinstance(module, Conv1D) else 0, rows)
    if getattr(module, "bias", None) is not None:
        _select(module, "bias", 0, rows)
    setattr(module, "nf" if isinstance(module, Conv1D) else "out_features", len(rows))


def keep_inputs(module: nn.Module, columns: Sequence[int]) -> None:
    """Keep these inputs of a Linear or Conv1D, in place; its bias stays whole."""
    _select(module, "weight", 0 if isinstance(module, Conv1D) else 1, columns)
    setattr(module, "nx" if isinstance(module, Conv1D) else "in_features", len(columns))


def input_width(module: nn.Module) -> int:
    """Number of inputs of a Linear (quantised ones, too) or Conv1D."""
    width: int = getattr(module, "nx" if isinstance(module, Conv1D) else "in_features")
    return int(width)


def keep_rows(module: nn.Module, name: str, rows: Sequence[int]) -> None:
    """Keep these entries of the first dimension of a parameter, in place."""
    _select(module, name, 0, rows)


def _select(module: nn.Module, name: str, dim: int, index: Sequence[int]) -> None:
    old = module.get_parameter(name)
    # The index lives where the weight does, whatever default device a loader has set.
    where = torch.tensor(list(index), dtype=torch.long, device=old.device)
    new: Tensor = old.detach().index_select(dim, where).contiguous()
    setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))


def slice_separate(attention: Any, kept: KeptHeads) -> None:
    """q_proj, k_proj, v_proj, with or without grouped queries, with or without biases.

    Query/key norms of width head_dim are shared by all heads and stay as they are.
    """
    plan = plan_key_values(kept)
    keep_outputs(attention.q_proj, rows_of(kept.heads, kept.head_dim))
    keep_outputs(attention.k_proj, rows_of(plan.heads, kept.head_dim))
    keep_outputs(attention.v_proj, rows_of(plan.heads, kept.head_dim))
    _set_counts(attention, kept, plan)


def slice_cohere(attention: Any, kept: KeptHeads) -> None:
    """Separate projections, and query/key norms (if any) with a row of weights per head."""
    plan = plan_key_values(kept)
    slice_separate(attention, kept)
    if attention.use_qk_norm:
        keep_rows(attention.q_norm, "weight", kept.heads)
        keep_rows(attention.k_norm, "weight", plan.heads)


def slice_stablelm(attention: Any, kept: KeptHeads) -> None:
    """Separate projections, and query/key norms (if any) that are a list of one norm per head."""
    plan = plan_key_values(kept)
    slice_separate(attention, kept)
    if attention.qk_layernorm:
        lists = (attention.q_layernorm, kept.heads), (attention.k_layernorm, plan.heads)
        for per_head, heads in lists:
            for head in set(range(len(per_head.norms))) - set(heads):
                # Not `del norms[head]`, which renumbers: names in checkpoints stay those of heads.
                del per_head.norms._modules[str(head)]
            per_head.num_heads = len(heads)


def slice_gpt_oss(attention: Any, kept: KeptHeads) -> None:
    """Separate projections, and one attention sink per query head."""
    slice_separate(attention, kept)
    keep_rows(attention, "sinks", kept.heads)


def slice_phi3(attention: Any, kept: KeptHeads) -> None:
    """One projection for all queries, then all keys, then all values."""
    plan, width = plan_key_values(kept), kept.head_dim
    keys = kept.num_heads * width
    values = keys + kept.num_key_value_heads * width
    rows = rows_of(kept.heads, width)
    rows += rows_of(plan.heads, width, keys) + rows_of(plan.heads, width, values)
    keep_outputs(attention.qkv_proj, rows)
    attention.config = ConfigView(attention.config, num_attention_heads=len(kept.heads))
    _set_counts(attention, kept, plan)


def slice_gpt2(attention: Any, kept: KeptHeads) -> None:
    """One Conv1D for all queries, then all keys, then all values."""
    width, block = kept.head_dim, kept.num_heads * kept.head_dim
    rows = [row for part in range(3) for row in rows_of(kept.heads, width, part * block)]
    keep_outputs(attention.c_attn, rows)
    attention.split_size = len(kept.heads) * width
    attention.num_heads = len(kept.heads)


def slice_interleaved(attention: Any, kept: KeptHeads) -> None:
    """One projection with a block of query, key and value rows per head (GPT-NeoX)."""
    keep_outputs(attention.query_key_value, rows_of(kept.heads, 3 * kept.head_dim))


def slice_bloom(attention: Any, kept: KeptHeads) -> None:
    """Interleaved as in GPT-NeoX, and position biases (ALiBi) made by the model for all heads."""
    slice_interleaved(attention, kept)
    attention.num_heads = len(kept.heads)
    _select_alibi(attention, kept)


def slice_falcon(attention: Any, kept: KeptHeads) -> None:
    """Falcon's three layouts of one projection, each with or without ALiBi.

    `multi_query`: all queries, a key, a value. `new_decoder_architecture`: for every key/value
    head its queries, then the key and the value. Neither: query, key and value per head.
    """
    kept = replace(kept, num_key_value_heads=attention.num_kv_heads)
    plan, width, group = (
        plan_key_values(kept),
        kept.head_dim,
        kept.num_heads // kept.num_key_value_heads,
    )
    if not attention.new_decoder_architecture and not attention.multi_query:
        rows = rows_of(kept.heads, 3 * width)
    elif not attention.new_decoder_architecture:
        rows = rows_of((*kept.heads, kept.num_heads, kept.num_heads + 1), width)
    else:
        # In blocks of one head: query h is at h + 2 * (groups before it), then two for the group.
        queries = [head + 2 * (head // group) for head in kept.heads]
        keys = [group + (group + 2) * head for head in plan.heads]
        if plan.expand is None:
            blocks = sorted([*queries, *keys, *(key + 1 for key in keys)])
        else:
            blocks = [*queries, *keys, *(key + 1 for key in keys)]
            attention._split_heads = SplitFalconHeads(plan.expand, len(plan.heads), width)
        rows = rows_of(blocks, width)
    keep_outputs(attention.query_key_value, rows)
    attention.num_heads, attention.num_kv_heads = len(kept.heads), len(plan.heads)
    if attention.config.alibi:
        _select_alibi(attention, kept)


def _select_alibi(attention: Any, kept: KeptHeads) -> None:
    hook = SelectHeadBias(kept.heads, kept.num_heads)
    attention.register_forward_pre_hook(hook, with_kwargs=True)


def _set_counts(attention: Any, kept: KeptHeads, plan: KeyValuePlan) -> None:
    """Write the new numbers of heads to those attributes that this attention has."""
    counts = {
        "num_heads": len(kept.heads),
        "num_attention_heads": len(kept.heads),
        "num_key_value_heads": len(plan.heads),
        "num_key_value_groups": plan.groups,
    }
    for name, count in counts.items():
        if hasattr(attention, name):
            setattr(attention, name, count)
    if plan.expand is not None:
        attention.register_forward_pre_hook(ExpandKeyValues(plan.expand), with_kwargs=True)
