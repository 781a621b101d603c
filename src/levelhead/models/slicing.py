"""Slice one attention module, in place, to a set of kept query heads: one function per layout.

Works on any device, `meta` included, and keeps dtype and requires_grad. The input of the output
projection is head-major in every layout, so that its slice is common to all of them. This file
does not know model families (architectures.py) nor which heads should go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from levelhead.models.pruned_modules import ConfigView, ExpandKeyValues


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
    """Number of inputs of a Linear or Conv1D."""
    weight = module.get_parameter("weight")
    return int(weight.shape[0 if isinstance(module, Conv1D) else 1])


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
