"""The two phases of generation one by one, so that each can be timed: prefill and decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel


def random_prompt(
    models: Sequence[PreTrainedModel], batch_size: int, tokens: int, seed: int
) -> Int[Tensor, "batch time"]:
    """Random tokens that every model has."""
    sizes = [int(m.get_input_embeddings().get_parameter("weight").shape[0]) for m in models]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, min(sizes), (batch_size, tokens), generator=generator)
    return ids.to(models[0].device)


def prefill(
    model: PreTrainedModel, prompt: Int[Tensor, "batch time"]
) -> tuple[Any, Int[Tensor, "batch 1"]]:
    """(the cache after the prompt, the likeliest next token)."""
    out = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    return out.past_key_values, out.logits[:, -1:].argmax(-1)


def decode(model: PreTrainedModel, cache: Any, last: Int[Tensor, "batch 1"], tokens: int) -> None:
    """Take the likeliest token so many times, one pass each."""
    for _ in range(tokens):
        out = model(input_ids=last, past_key_values=cache, use_cache=True)
        cache, last = out.past_key_values, out.logits[:, -1:].argmax(-1)
