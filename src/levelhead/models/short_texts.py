"""Attention for short texts in bfloat16 on a CPU: torch's fused kernel is the slower way there.

Measured on an AVX512-BF16 thread, SmolLM2-135M: a step of sampling (128 rows) takes 0.70 of the
time with plain products, a gradient over rows of 56 tokens 0.77, over a window of 512 tokens 0.83;
forward passes over 1,023 tokens are a third slower, so that those keep the fused kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.modeling_utils import PreTrainedModel

LONGEST = 640
"""Tokens of a text up to which plain products are the faster way."""
_FUSED, _PLAIN = "sdpa", "eager"


@contextmanager
def short_texts(model: PreTrainedModel, tokens: int) -> Iterator[None]:
    """Run a model on texts of at most `tokens` tokens; where they are long, nothing changes.

    Only bfloat16 on a CPU, and only where the model has the default attention. Sums and products
    are the same up to rounding. A backward pass may come later, outside.
    """
    config = model.config.get_text_config(decoder=True)
    own = getattr(config, "_attn_implementation", None)
    low = model.dtype == torch.bfloat16 and model.device.type == "cpu"
    if not low or tokens > LONGEST or own != _FUSED:
        yield
        return
    model.set_attn_implementation(_PLAIN)
    try:
        yield
    finally:
        model.set_attn_implementation(_FUSED)
