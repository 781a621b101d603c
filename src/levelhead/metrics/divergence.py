"""NLL of one model's text and KL to another's, from logits: what costs of pruning are made of.

KL(p || q) at a position = sum_v p(v) (log p(v) - log q(v))
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_ROWS = 256  # positions at a time: their logits are copied to float32


@torch.inference_mode()
def last_logits(model: Any, tokens: Tensor, scored: int) -> Float[Tensor, "scored vocab"]:
    """Of the positions that predict the last `scored` tokens of one row of ids."""
    ids = tokens[:, :-1].to(model.device)
    out: Float[Tensor, "scored vocab"] = model(input_ids=ids, use_cache=False).logits[0, -scored:]
    return out


@torch.inference_mode()
def nll_and_kl(
    base: Float[Tensor, "scored vocab"], other: Float[Tensor, "scored vocab"], targets: Tensor
) -> tuple[float, float, float]:
    """(NLL of the base, NLL of the other, KL(base || other)), in nats, summed over positions."""
    found = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(base), _ROWS):
        part = slice(start, start + _ROWS)
        log_p = base[part].float().log_softmax(-1)
        log_q = other[part].to(log_p.device).float().log_softmax(-1)
        at = targets[part, None].to(log_p.device)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        rows = (-log_p.gather(-1, at)[:, 0], -log_q.gather(-1, at)[:, 0], kl)
        found += torch.stack([row.double().sum() for row in rows]).cpu()
    return float(found[0]), float(found[1]), float(found[2])
