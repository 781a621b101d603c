"""Expected toxicity of each step of a given continuation, under whatever model is asked.

    r_t = sum_v p(v | x, y_<t) tau_s(v)

One padded batch of (prompt, continuation) rows in, logits only where the continuation is. It
knows nothing of heads: gates, if any, are active on the model while it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from levelhead.batching import Advance, map_batches
from levelhead.errors import ModelError
from levelhead.models.short_texts import short_texts
from levelhead.sampling import pad_left
from levelhead.scoring.token_toxicity import TokenToxicity

BATCH_SIZE = 16
"""Rows per batch: the logits of a row are new_tokens x vocabulary numbers."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt with a continuation after it, read as being about `subgroup`."""

    prompt_ids: tuple[int, ...]
    continuation: tuple[int, ...]
    subgroup: int

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.continuation)


@dataclass(frozen=True, slots=True)
class Steps:
    """Logits of each continuation position of a batch; `valid` is False where a row has ended."""

    logits: Float[Tensor, "rows steps vocab"]
    tokens: Int[Tensor, "rows steps"]
    valid: Bool[Tensor, "rows steps"]


def continuation_logits(model: PreTrainedModel, rows: Sequence[Row], pad: int) -> Steps:
    """Run the model once over prompts with continuations.

    Prompts are padded on the left and continuations on the right, so that continuation positions
    line up and logits are computed for them alone.

    Raises:
        ModelError: the model yields NaN.
    """
    steps = max(len(row.continuation) for row in rows)
    padded = [row.prompt_ids + row.continuation for row in rows]
    behind = [steps - len(row.continuation) for row in rows]
    filled = [ids + (pad,) * gap for ids, gap in zip(padded, behind, strict=True)]
    ids, mask = pad_left(filled, pad, model.device)
    ended = torch.arange(steps) >= torch.tensor([[len(r.continuation)] for r in rows])
    valid = ~ended.to(model.device)
    mask[:, -steps:] *= valid
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    output_embeddings: Any = model.get_output_embeddings  # it has no types
    head = output_embeddings()
    # The last positions are a slice, which torch multiplies text by text at half the speed.
    hook = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    try:
        with short_texts(model, ids.shape[1]):
            out = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                logits_to_keep=steps + 1,
                use_cache=False,
            )
    finally:
        hook.remove()
    logits = out.logits[:, :-1].float()
    # Any NaN survives a sum over the vocabulary, which copies nothing.
    if torch.isnan(logits.detach().sum(-1)[valid]).any():
        raise ModelError("the model yields NaN; try --dtype float32")
    return Steps(logits, ids[:, -steps:], valid)


def expected_toxicity(
    steps: Steps, rows: Sequence[Row], tau: TokenToxicity
) -> Float[Tensor, "rows steps"]:
    """r_t of each step, 0 after a row's end; differentiable with respect to the logits."""
    # A product over the whole vocabulary is faster than picking the tokens that count.
    p = steps.logits.softmax(-1)
    r = p @ _table(tau, p.shape[-1], p.device).T
    index = _tau_rows(rows, tau, p.device)
    return r.gather(-1, index[:, None, None].expand(-1, r.shape[1], 1))[..., 0] * steps.valid


def row_toxicity(
    model: PreTrainedModel, batch: Sequence[Row], tau: TokenToxicity, pad: int
) -> Float[np.ndarray, " rows"]:
    """sum_t r_t of each row of a batch, without gradients."""
    with torch.inference_mode():
        steps = continuation_logits(model, batch, pad)
        found: Float[np.ndarray, " rows"] = (
            expected_toxicity(steps, batch, tau).sum(-1).double().cpu().numpy()
        )
    return found


def read_rows(
    model: PreTrainedModel,
    rows: Sequence[Row],
    tau: TokenToxicity,
    *,
    pad: int,
    batch_size: int | None,
    advance: Advance | None = None,
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """(sum_t r_t, M = sum_t [tau(y_t) - r_t]) of each row under a model, without gradients.

    M has mean zero over continuations that the same model wrote after the same prompt.
    """

    def work(batch: list[Row]) -> list[tuple[float, float]]:
        with torch.inference_mode():
            steps = continuation_logits(model, batch, pad)
            r = expected_toxicity(steps, batch, tau).sum(-1)
            written = written_toxicity(steps, batch, tau).sum(-1)
        return list(zip(r.tolist(), (written - r).tolist(), strict=True))

    done = map_batches(rows, work, batch_size=batch_size or BATCH_SIZE, length=len, advance=advance)
    return np.array([r for r, _ in done]), np.array([m for _, m in done])


def written_toxicity(
    steps: Steps, rows: Sequence[Row], tau: TokenToxicity
) -> Float[Tensor, "rows steps"]:
    """tau(y_t) of the tokens that were written, 0 after a row's end."""
    device = steps.tokens.device
    table = _table(tau, steps.logits.shape[-1], device)
    return table[_tau_rows(rows, tau, device)[:, None], steps.tokens] * steps.valid


def _table(tau: TokenToxicity, vocab: int, device: torch.device) -> Float[Tensor, "taus vocab"]:
    table = torch.zeros(len(tau.tau), vocab)
    table[:, torch.from_numpy(tau.token_ids)] = torch.from_numpy(tau.tau).float()
    return table.to(device)


def _tau_rows(
    rows: Sequence[Row], tau: TokenToxicity, device: torch.device
) -> Int[Tensor, " rows"]:
    return torch.tensor([tau.row(row.subgroup) for row in rows], device=device)
