"""Sample continuations from a model: pure sampling, reproducible row by row.

Temperature 1, no top-k, no top-p, whatever the model's generation_config says (method: prompts in,
`new_tokens` out, positions after the first end-of-text token count nothing). Each row draws its
own Gumbel noise from a seed made of (run seed, its name, sample), so a continuation depends neither
on its batch nor on the order of work, but for the rare draw that noise puts closer than rounding:
another machine or batch size may draw the other token there, and the text goes on differently. Rows
of one name use common random numbers: two models asked for the same rows, or one model asked for
versions of a prompt, differ by less noise. A prompt is read once, however many draws of it are in a
batch. It does not know what the texts are for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from levelhead.batching import Advance, map_batches
from levelhead.errors import ConfigError, ModelError
from levelhead.models.short_texts import short_texts

BATCH_SIZE = 128


@dataclass(frozen=True, slots=True)
class Draw:
    """One continuation to sample: the prompt's tokens and what its randomness is derived from."""

    prompt_ids: tuple[int, ...]
    noise: str
    """Draws of one name and sample get the same random numbers, whatever their prompts."""
    sample: int


def derived_seed(*parts: object) -> int:
    """A 64-bit seed from what a unit of work is, the same on every machine."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends a text for this model, sorted."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    ids = set(declared if isinstance(declared, list) else [declared])
    ids.add(tokenizer.eos_token_id)
    return tuple(sorted(i for i in ids if i is not None))


def sample_continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    draws: Sequence[Draw],
    *,
    seed: int,
    new_tokens: int,
    batch_size: int | None = None,
    advance: Advance | None = None,
) -> list[tuple[int, ...]]:
    """Sampled tokens of each draw, up to and including the first end-of-text token.

    Raises:
        ConfigError: a prompt and its continuation exceed the model's context.
        ModelError: the model yields NaN.
    """
    ends = end_token_ids(model, tokenizer)
    _check_context(model, draws, new_tokens)

    def work(batch: list[Draw]) -> list[tuple[int, ...]]:
        rows = _generate(model, tokenizer, batch, seed, new_tokens, ends)
        return [_until_end(row, ends) for row in rows]

    return map_batches(
        draws,
        work,
        batch_size=batch_size or BATCH_SIZE,
        length=lambda draw: len(draw.prompt_ids),
        advance=advance,
    )


class _GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise, so that the largest score is an exact draw from the softmax."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.streams = [np.random.SFC64(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        logits = scores.float()
        if torch.isnan(logits.sum()):  # any NaN survives a sum, which takes one pass and no copy
            raise ModelError("the model yields NaN; try --dtype float32")
        noise = torch.empty(tuple(scores.shape))
        for row, stream in zip(noise, self.streams, strict=True):
            gumbel(stream, row)
        return noise.to(scores.device).add_(logits)


_TO_MINUS_U = -(1 - 2.0**-24) * 2.0**-31
"""Keeps u below 1 where 31 bits are rounded up to 2^31."""


def gumbel(bits: np.random.BitGenerator, out: Float[Tensor, " vocab"]) -> None:
    """Fill a float32 vector with independent Gumbel draws: -log E, E exponential with mean 1.

    The smallest E decide which token is drawn, and a vocabulary has many tokens: numpy's float32
    exponentials are exactly 0 once in 2^23 draws, which draws that token whatever its probability,
    for 49,152 tokens at one step in 170. Here u has 31 bits near 0, where E is small: E = 0 does
    not occur, and what lies below the first step of 2^-32 matters once in 40,000 steps at most.
    """
    raw = bits.random_raw(-(-len(out) // 2)).view(np.int32)[: len(out)]
    torch.add(torch.from_numpy(raw).bitwise_and_(0x7FFF_FFFF), 0.5, out=out)
    out.mul_(_TO_MINUS_U).log1p_().neg_().log_().neg_()  # -u -> -E -> -log E, in place


@contextmanager
def _plain_generation(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Hide the model's own generation_config: transformers merges it into any other."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


def pad_left(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both [rows, longest], real tokens on the right."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to fill masked positions with; which one makes no difference."""
    return int(tokenizer.pad_token_id or 0)


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Draw],
    seed: int,
    new_tokens: int,
    ends: tuple[int, ...],
) -> list[list[int]]:
    ids, mask = pad_left([draw.prompt_ids for draw in batch], pad_id(tokenizer), model.device)
    plain: Any = GenerationConfig  # its constructor has no types
    config = plain(
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=list(ends) or None,
        pad_token_id=pad_id(tokenizer),
    )
    noise = _GumbelNoise([derived_seed(seed, draw.noise, draw.sample) for draw in batch])
    width = ids.shape[1] + new_tokens
    with torch.inference_mode(), _plain_generation(model, config), short_texts(model, width):
        generate: Any = model.generate
        out = generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=_read_prompts(model, [draw.prompt_ids for draw in batch], ids, mask),
            generation_config=config,
            logits_processor=LogitsProcessorList([noise]),
        )
    rows: list[list[int]] = out[:, ids.shape[1] :].tolist()
    return rows


def _read_prompts(
    model: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    ids: Int[Tensor, "rows width"],
    mask: Int[Tensor, "rows width"],
) -> DynamicCache | None:
    """Keys and values of all but the last column, from one pass over the distinct prompts.

    The last column stays for `generate`, which needs its logits; the others' are not computed.
    None where there is no other column.
    """
    if ids.shape[1] == 1:
        return None
    first: dict[tuple[int, ...], int] = {}
    for row, prompt in enumerate(prompts):
        first.setdefault(prompt, row)
    distinct = list(first.values())
    place = {prompt: position for position, prompt in enumerate(first)}
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    seen = mask[distinct, :-1]
    model.base_model(
        input_ids=ids[distinct, :-1],
        attention_mask=seen,
        position_ids=(seen.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_select_indices(torch.tensor([place[prompt] for prompt in prompts]))
    return cache


def _until_end(row: Sequence[int], ends: tuple[int, ...]) -> tuple[int, ...]:
    for position, token in enumerate(row):
        if token in ends:
            return tuple(row[: position + 1])
    return tuple(row)


def _check_context(model: PreTrainedModel, draws: Sequence[Draw], new_tokens: int) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max((len(draw.prompt_ids) for draw in draws), default=0)
    if limit is not None and longest + new_tokens > limit:
        raise ConfigError(
            f"a prompt of {longest} tokens and --new-tokens {new_tokens} exceed the model's "
            f"context of {limit}; use fewer new tokens or shorter prompts"
        )
