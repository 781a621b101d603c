"""Perplexity of a causal language model on a token stream, every token scored exactly once.

Windows of at most n_ctx tokens follow each other; each but the first starts with an overlap that
is only context. The result is token-weighted: exp(sum of NLL / number of scored tokens).
`strided_perplexity` follows the authors of arXiv 2312.15398 instead, defects included. Knows
nothing of where the text comes from, and nothing of heads.

The first token of a text has no context. With a BOS token, every window starts with it: the first
token is scored too, and models that need BOS (Gemma) get it everywhere. Without, it is not scored.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from levelhead.batching import map_batches
from levelhead.errors import ModelError, TextError
from levelhead.metrics.intervals import check_level, weighted_mean_interval
from levelhead.records import Estimate, Interval

LONGEST_WINDOW = 1024
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_LOGIT_BYTES = 2**30  # of one batch; batches are made smaller where the vocabulary is large
_SOFTMAX_ROWS = 256  # positions whose logits are copied to float32 at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityResult:
    """Perplexity with what it is made of, window by window.

    `block_nll` is the sum of negative log-likelihoods (nats) of the tokens scored in each window,
    `block_tokens` their number. Two models on the same text and windows have the same blocks.
    """

    block_nll: Float[np.ndarray, "windows"]
    block_tokens: Int[np.ndarray, "windows"]
    weighted: bool = True
    """Whether windows count by their tokens; the authors average them as they are."""

    @property
    def num_tokens(self) -> int:
        """How many tokens were scored."""
        return int(self.block_tokens.sum())

    @property
    def mean_nll(self) -> float:
        """Mean negative log-likelihood per scored token, in nats."""
        return float(self.block_mean @ self.block_weight)

    @property
    def block_mean(self) -> Float[np.ndarray, "windows"]:
        """Mean negative log-likelihood per token of each window, in nats."""
        out: Float[np.ndarray, windows] = self.block_nll / self.block_tokens
        return out

    @property
    def block_weight(self) -> Float[np.ndarray, "windows"]:
        """What each window's mean counts for; they sum to 1."""
        count = self.block_tokens if self.weighted else np.ones(len(self.block_tokens))
        out: Float[np.ndarray, windows] = count / count.sum()
        return out

    @property
    def perplexity(self) -> float:
        """exp(mean_nll), at least 1; infinite where the exponential overflows."""
        return math.exp(self.mean_nll) if self.mean_nll < 709 else math.inf


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens [start, stop) of the stream are read, those from `scored` on are predicted."""

    start: int
    scored: int
    stop: int


def windows(num_tokens: int, length: int, overlap: int, *, bos: bool) -> list[Window]:
    """Windows that score every token once (without BOS, every token but the first).

    Args:
        num_tokens: length of the stream.
        length: tokens of a window, a BOS token included; the last one is only predicted.
        overlap: tokens at the start of each window but the first that are only context.
        bos: whether a BOS token precedes each window.

    Raises:
        TextError: nothing to score, or an overlap that leaves no room for new tokens.
    """
    room = length - bos
    first = 0 if bos else 1
    if not first <= overlap < room:
        raise TextError(
            f"overlap {overlap} does not fit windows of {length} tokens; it must be from {first} "
            f"to {room - 1}"
        )
    if num_tokens <= first:
        raise TextError(
            f"perplexity text of {num_tokens} tokens has none to score; use a longer text"
        )
    out = [Window(0, first, min(room, num_tokens))]
    while (done := out[-1].stop) < num_tokens:
        start = done - overlap
        out.append(Window(start, done, min(start + room, num_tokens)))
    return out


def perplexity(
    model: Any,
    token_ids: Sequence[int],
    *,
    window: int | None = None,
    overlap: int | None = None,
    batch_size: int = 4,
    bos_token_id: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> PerplexityResult:
    """Perplexity of a transformers causal LM on one token stream.

    Args:
        model: called as `model(input_ids=..., use_cache=False)`, in the mode it is in (`eval()`).
        token_ids: the text, without special tokens.
        window: tokens of a window, BOS included; default min(n_ctx, 1024).
        overlap: context-only tokens of each window but the first; default window / 4.
        batch_size: windows at once; it changes the last digits of the result, nothing else.
        bos_token_id: the tokenizer's BOS, put before each window; None if it has none.
        advance: called with the number of tokens scored since the last call.

    Raises:
        TextError: a text, window or overlap that cannot be used.
        ModelError: the model yields NaN or infinite log-likelihoods.
    """
    bos = bos_token_id is not None
    todo = every_token_windows(
        len(token_ids), model.config, bos=bos, window=window, overlap=overlap
    )
    return _read(model, token_ids, todo, batch_size, bos_token_id, advance)


def every_token_windows(
    num_tokens: int,
    config: Any,
    *,
    bos: bool,
    window: int | None = None,
    overlap: int | None = None,
) -> list[Window]:
    """The windows that `perplexity` reads, for the same arguments.

    Raises:
        TextError: a text, window or overlap that cannot be used.
    """
    limit = context_length(config)
    window = min(limit, LONGEST_WINDOW) if window is None else window
    if not 2 <= window <= limit:
        raise TextError(
            f"perplexity window of {window} tokens; it must be from 2 to the model's {limit}"
        )
    overlap = max(window // 4, 0 if bos else 1) if overlap is None else overlap
    return windows(num_tokens, window, overlap, bos=bos)


STRIDE = 512


def strided_windows(num_tokens: int, n_ctx: int) -> list[Window]:
    """The authors' windows: n_ctx / 4 tokens every 512, whole ones only.

    Where n_ctx is less than 2048 the text between windows is not read; where it is more, the
    tokens of the window before are only context.

    Raises:
        TextError: fewer than two windows.
    """
    length, out = max(2, n_ctx // 4), list[Window]()
    for start in range(0, num_tokens - length + 1, STRIDE):
        out.append(Window(start, max(start + 1, out[-1].stop if out else 0), start + length))
    if len(out) < 2:
        raise TextError(
            f"perplexity text of {num_tokens} tokens gives {len(out)} windows of {length} tokens, "
            f"one every {STRIDE}; the paper's protocol needs 2: use a longer text"
        )
    return out


def strided_perplexity(
    model: Any,
    token_ids: Sequence[int],
    *,
    batch_size: int = 4,
    advance: Callable[[int], None] | None = None,
) -> PerplexityResult:
    """Perplexity as the authors of arXiv 2312.15398 take it: the mean of `strided_windows`.

    Raises:
        TextError: a text that is too short.
        ModelError: as `perplexity`.
    """
    todo = strided_windows(len(token_ids), context_length(model.config))
    return replace(_read(model, token_ids, todo, batch_size, None, advance), weighted=False)


def _read(
    model: Any,
    token_ids: Sequence[int],
    todo: Sequence[Window],
    batch_size: int,
    bos_token_id: int | None,
    advance: Callable[[int], None] | None,
) -> PerplexityResult:
    bos, window = bos_token_id is not None, max(w.stop - w.start for w in todo)
    stream = torch.as_tensor(token_ids, dtype=torch.long, device=model.device)
    prefix = stream.new_tensor([bos_token_id] if bos else [])
    largest = max(1, _LOGIT_BYTES // (4 * window * _vocabulary(model.config)))
    sums: list[float] = []

    def work(batch: list[Window]) -> list[float]:
        tokens = torch.stack([torch.cat([prefix, stream[w.start : w.stop]]) for w in batch])
        nll = _window_nll(model, tokens, batch[0].stop - batch[0].scored)
        if not np.isfinite(nll).all():
            bad = batch[int(np.argmin(np.isfinite(nll)))]
            raise ModelError(
                f"the model yields NaN or infinite log-likelihoods on tokens {bad.start} to "
                f"{bad.stop - 1} of the perplexity text; try --dtype float32, or another model"
            )
        found: list[float] = nll.tolist()
        return found

    for alike in _alike(todo):
        scored = alike[0].stop - alike[0].scored
        sums += map_batches(
            alike,
            work,
            batch_size=min(batch_size, largest),
            length=lambda w: w.stop - w.start,
            advance=None if advance is None else _in_tokens(advance, scored),
            of=stream,
        )
    return PerplexityResult(
        block_nll=np.array(sums), block_tokens=np.array([w.stop - w.scored for w in todo])
    )


def relative_increase(
    base: PerplexityResult,
    pruned: PerplexityResult,
    *,
    level: float = 0.95,
    cluster: Int[np.ndarray, "windows"] | None = None,
) -> Estimate:
    """perplexity(pruned) / perplexity(base) - 1 with its interval, paired window by window.

    The windows are taken as independent draws from text of this kind, with a t interval of the
    mean NLL difference, exponentiated; what neighbouring windows share makes it too narrow. With
    `cluster` (codes), windows of one cluster stand or fall together.

    Raises:
        ConfigError: level outside (0, 1).
        TextError: other windows, or fewer than two.
    """
    check_level(level)
    same = np.array_equal(base.block_tokens, pruned.block_tokens)
    if not same or base.weighted != pruned.weighted:
        raise TextError(
            f"perplexities on different windows ({len(base.block_tokens)} and "
            f"{len(pruned.block_tokens)}) cannot be compared; use the same text and windows"
        )
    num_windows = len(base.block_tokens)
    if num_windows < 2:
        raise TextError(
            f"an interval needs at least 2 windows of perplexity text, this is {num_windows}; use "
            "a larger --text-tokens"
        )
    difference = pruned.block_mean - base.block_mean
    found = weighted_mean_interval(difference, base.block_weight, cluster, level=level)
    low, high = (float(np.expm1(end)) for end in (found.interval.low, found.interval.high))
    return Estimate(
        value=float(np.expm1(found.value)),
        stderr=float(np.exp(found.value)) * (found.stderr or 0.0),
        interval=Interval(low, high, level),
    )


def context_length(config: Any) -> int:
    """n_ctx, the most tokens a model sees, by whatever name; LONGEST_WINDOW if it has no limit."""
    config = config.get_text_config()
    known = [getattr(config, name, None) for name in _CONTEXT_NAMES]
    return next((int(n) for n in known if n is not None), LONGEST_WINDOW)


def _vocabulary(config: Any) -> int:
    return int(config.get_text_config().vocab_size)


def _in_tokens(advance: Callable[[int], None], tokens: int) -> Callable[[int], None]:
    """Windows done as the tokens scored in them."""
    return lambda windows: advance(windows * tokens)


def _alike(todo: Sequence[Window]) -> list[list[Window]]:
    """Neighbours that read and score the same number of tokens: no padding, one slice."""
    same = groupby(todo, key=lambda w: (w.stop - w.start, w.stop - w.scored))
    return [list(group) for _, group in same]


@torch.inference_mode()
def _window_nll(
    model: Any, tokens: Int[torch.Tensor, "batch seq"], scored: int
) -> Float[np.ndarray, "batch"]:
    """Sum of the NLL (nats) of the last `scored` tokens of each row."""
    inputs, targets = tokens[:, :-1], tokens[:, -scored:]
    kwargs = {"logits_to_keep": scored} if _takes_logits_to_keep(model) else {}
    logits = model(input_ids=inputs, use_cache=False, **kwargs).logits[:, -scored:]
    total = np.zeros(len(tokens))
    for start in range(0, scored, _SOFTMAX_ROWS):
        part = slice(start, start + _SOFTMAX_ROWS)
        nll = torch.nn.functional.cross_entropy(
            logits[:, part].float().transpose(1, 2), targets[:, part], reduction="none"
        )
        total += nll.sum(dim=1).cpu().numpy()  # MPS has no float64: add up on the CPU
    return total


def _takes_logits_to_keep(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters
