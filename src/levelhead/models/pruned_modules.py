"""The parts a pruned attention module needs that stock transformers does not have.

An attention that lost every head, a key/value cache view for unequal groups, a config view for
families whose forward pass reads the number of heads from the config. It does not know which
heads go; see slicing.py and surgery.py.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

CACHE_ARGUMENTS = ("past_key_values", "layer_past")
"""What transformers calls the key/value cache in an attention module's forward pass."""


class HeadlessAttention(nn.Module):
    """An attention module that lost every head: it returns the output projection's bias.

    It keeps the output projection, of input width 0, under its stock name: the checkpoint then
    holds a tensor of another shape than the stock model expects, so that loading it without
    levelhead fails instead of filling the layer with random weights.
    """

    def __init__(
        self,
        projection_name: str,
        projection: nn.Module,
        layer: int,
        adds_residual: bool = False,
    ) -> None:
        super().__init__()
        self.adds_residual = adds_residual
        self.projection_name = projection_name
        self.layer_idx = layer
        self.add_module(projection_name, projection)

    def forward(
        self, hidden_states: Float[Tensor, "batch time width"], *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "batch time width"], None]:
        """The bias of the output projection (or zeros) at every position, and no weights.

        With `adds_residual` it is added to the residual stream, the second argument (BLOOM).
        """
        cache = next((kwargs[k] for k in CACHE_ARGUMENTS if kwargs.get(k) is not None), None)
        if cache is not None:
            # Masks and positions are built from the cache's length: it must advance here too.
            batch, time, _width = hidden_states.shape
            nothing = hidden_states.new_zeros(batch, 1, time, 1)
            cache.update(nothing, nothing, self.layer_idx)
        bias = getattr(getattr(self, self.projection_name), "bias", None)
        if bias is None:
            written = torch.zeros_like(hidden_states)
        else:
            written = bias.to(hidden_states.dtype).expand_as(hidden_states)
        return (written + args[0] if self.adds_residual else written), None


class _ExpandingCache:
    """Stands for a cache in one attention call: stores unique key/value heads, returns one per
    query head."""

    def __init__(self, cache: Any, expand: ExpandKeyValues) -> None:
        self._cache = cache
        self._expand = expand

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self._cache is not None:
            keys, values = self._cache.update(keys, values, *args, **kwargs)
        index = self._expand.on(keys.device)
        return keys.index_select(1, index), values.index_select(1, index)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_cache":
            raise AttributeError(name)
        return getattr(self._cache, name)


class ExpandKeyValues:
    """Forward pre-hook: repeat key/value heads by an index map, after the cache.

    For grouped-query attention whose groups lost unequal numbers of query heads: the cache keeps
    each key/value head once, the attention sees one per query head.

    Args:
        index: for each kept query head, the position of its key/value head among the kept ones.
        cache_argument: what this attention calls its cache.
    """

    def __init__(self, index: tuple[int, ...], cache_argument: str = "past_key_values") -> None:
        self.index = index
        self.cache_argument = cache_argument
        self._by_device: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The index map as a tensor. Not a buffer: loading on meta devices would lose it."""
        if torch.compiler.is_compiling():  # a tensor of the trace's, not to be kept
            return torch.tensor(self.index, device=device)
        if device not in self._by_device:
            self._by_device[device] = torch.tensor(self.index, device=device)
        return self._by_device[device]

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        cache = kwargs.get(self.cache_argument)
        return args, {**kwargs, self.cache_argument: _ExpandingCache(cache, self)}


class SelectHeadBias:
    """Forward pre-hook: of biases on attention scores that are made per head, those of kept heads.

    ALiBi: `alibi` of `[batch * heads, 1, keys]` (BLOOM) or `[batch, heads, 1, keys]`, and a mask of
    `[batch, heads, queries, keys]` that it was added to (Falcon). Masks of one head stay.
    """

    def __init__(self, heads: tuple[int, ...], num_heads: int) -> None:
        self.heads = heads
        self.num_heads = num_heads

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        alibi, mask = kwargs.get("alibi"), kwargs.get("attention_mask")
        if alibi is None:
            return args, kwargs
        index = torch.tensor(self.heads, device=alibi.device)
        per_head = alibi.reshape(-1, self.num_heads, *alibi.shape[-2:]).index_select(1, index)
        kwargs = {**kwargs, "alibi": per_head.flatten(0, 1) if alibi.ndim == 3 else per_head}
        if mask is not None and mask.ndim == 4 and mask.shape[1] == self.num_heads:
            kwargs["attention_mask"] = mask.index_select(1, index)
        return args, kwargs


class SplitFalconHeads:
    """Stands for `FalconAttention._split_heads` where groups lost unequal numbers of query heads.

    The projection then yields all queries, all keys, all values; each key/value head is repeated
    for its query heads, as the stock method does (Falcon caches them repeated).
    """

    def __init__(self, index: tuple[int, ...], num_key_value_heads: int, head_dim: int) -> None:
        self.index = index
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim

    def __call__(self, fused: Float[Tensor, "batch time width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `[batch, time, heads, head_dim]`."""
        heads = fused.view(*fused.shape[:-1], -1, self.head_dim)
        count, own = len(self.index), self.num_key_value_heads
        index = torch.tensor(self.index, device=fused.device)
        keys = heads[:, :, count : count + own].index_select(2, index)
        values = heads[:, :, count + own :].index_select(2, index)
        return heads[:, :, :count], keys, values


class ConfigView:
    """A config as one layer sees it: some fields replaced, all others read from the model's.

    A copy would not do: changes of the model's config (`set_attn_implementation`) must reach it.
    """

    def __init__(self, config: Any, **replaced: Any) -> None:
        self.__dict__["_config"] = config
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_config":
            raise AttributeError(name)
        return getattr(self._config, name)
