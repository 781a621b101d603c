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
from torch.nn.functional import pad as pad_last
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


@dataclass(frozen=True, slots=True)
class Padded:
    """Rows as a model takes them: the last `steps` columns are the continuations."""

    ids: Int[Tensor, "rows tokens"]
    mask: Int[Tensor, "rows tokens"]
    positions: Int[Tensor, "rows tokens"]
    valid: Bool[Tensor, "rows steps"]
    """False where a row's continuation has ended."""


def padded(rows: Sequence[Row], pad: int, device: torch.device) -> Padded:
    """Prompts padded on the left and continuations on the right, so that these line up."""
    steps = max(len(row.continuation) for row in rows)
    behind = [steps - len(row.continuation) for row in rows]
    filled = [
        row.prompt_ids + row.continuation + (pad,) * gap
        for row, gap in zip(rows, behind, strict=True)
    ]
    ids, mask = pad_left(filled, pad, device)
    ended = torch.arange(steps) >= torch.tensor([[len(r.continuation)] for r in rows])
    valid = ~ended.to(device)
    mask[:, -steps:] *= valid
    return Padded(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), valid)


def continuation_logits(model: PreTrainedModel, rows: Sequence[Row], pad: int) -> Steps:
    """Run the model once over `padded` rows; logits are computed for continuations alone.

    Raises:
        ModelError: the model yields NaN.
    """
    batch = padded(rows, pad, model.device)
    steps = batch.valid.shape[1]
    output_embeddings: Any = model.get_output_embeddings  # it has no types
    head = output_embeddings()
    # The last positions are a slice, which torch multiplies text by text at half the speed.
    hook = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    try:
        with short_texts(model, batch.ids.shape[1]):
            out = model(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                position_ids=batch.positions,
                logits_to_keep=steps + 1,
                use_cache=False,
            )
    finally:
        hook.remove()
    logits = out.logits[:, :-1].float()
    # Any NaN survives a sum over the vocabulary, which copies nothing.
    if torch.isnan(logits.detach().sum(-1)[batch.valid]).any():
        raise ModelError("the model yields NaN; try --dtype float32")
    return Steps(logits, batch.ids[:, -steps:], batch.valid)


def expected_toxicity(
    steps: Steps, rows: Sequence[Row], tau: TokenToxicity
) -> Float[Tensor, "rows steps"]:
    """r_t of each step, 0 after a row's end; differentiable with respect to the logits."""
    # A product over the whole vocabulary is faster than picking the tokens that count.
    p = steps.logits.softmax(-1)
    r = p @ tau_table(tau, p.shape[-1]).to(p.device).T
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


def read_steps(
    model: PreTrainedModel,
    rows: Sequence[Row],
    table: Float[Tensor, "columns vocab"],
    *,
    pad: int,
    batch_size: int | None,
    advance: Advance | None = None,
) -> list[Float[np.ndarray, "steps columns"]]:
    """Expectation of every column over the next token, at each step of each row's continuation.

    One pass of the model serves any number of columns, which cost a small part of it. Tokens past
    the table's width count 0.
    """

    def work(batch: list[Row]) -> list[np.ndarray]:
        with torch.inference_mode():
            steps = continuation_logits(model, batch, pad)
            p = steps.logits.softmax(-1)
            known = pad_last(columns, (0, p.shape[-1] - columns.shape[-1]))
            expected = (p @ known.T).cpu().numpy()
        return [e[: len(row.continuation)] for row, e in zip(batch, expected, strict=True)]

    columns = table.to(model.device)
    size = batch_size or BATCH_SIZE
    return map_batches(rows, work, batch_size=size, length=len, advance=advance)


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
    return read_rows_by(model, rows, [tau], pad=pad, batch_size=batch_size, advance=advance)[0]


def read_rows_by(
    model: PreTrainedModel,
    rows: Sequence[Row],
    taus: Sequence[TokenToxicity],
    *,
    pad: int,
    batch_size: int | None,
    advance: Advance | None = None,
) -> list[tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]]:
    """`read_rows` by several scorers' tau, in one pass of the model."""
    vocab = 1 + max(
        *(int(tau.token_ids.max(initial=0)) for tau in taus),
        *(max(row.continuation, default=0) for row in rows),
    )
    tables = [tau_table(tau, vocab) for tau in taus]
    table = torch.cat(tables)
    read = read_steps(model, rows, table, pad=pad, batch_size=batch_size, advance=advance)
    found, first = [], 0
    for tau, own in zip(taus, tables, strict=True):
        r, written = np.zeros(len(rows)), np.zeros(len(rows))
        for i, (row, expected) in enumerate(zip(rows, read, strict=True)):
            column = tau.row(row.subgroup)
            r[i] = expected[:, first + column].sum(dtype=np.float64)
            written[i] = own[column, list(row.continuation)].sum(dtype=torch.float64)
        found.append((r, written - r))
        first += len(own)
    return found


def tau_table(tau: TokenToxicity, vocab: int) -> Float[Tensor, "taus vocab"]:
    """tau of every token of a vocabulary, a row as in `tau.tau`."""
    table = torch.zeros(len(tau.tau), vocab)
    table[:, torch.from_numpy(tau.token_ids)] = torch.from_numpy(tau.tau).float()
    return table


def _tau_rows(
    rows: Sequence[Row], tau: TokenToxicity, device: torch.device
) -> Int[Tensor, " rows"]:
    return torch.tensor([tau.row(row.subgroup) for row in rows], device=device)
