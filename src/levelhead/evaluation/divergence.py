"""Base against other models on the same text, part by part: NLL of each, and KL per token.

    KL(base || other) = mean over positions of  sum_v p(v) (log p(v) - log q(v))

The base is read once for however many models are compared: its logits of a window are kept while
the others read it. Perplexities are those of `text_perplexity`, on the same windows. Parts are the
windows of a text, or texts that the base model wrote itself (`own_text`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers.modeling_utils import PreTrainedModel

from levelhead.batching import map_batches
from levelhead.errors import ModelError, TextError
from levelhead.evaluation.base import Variant
from levelhead.metrics.divergence import last_logits, nll_and_kl
from levelhead.metrics.intervals import at_least_0, weighted_mean_interval
from levelhead.metrics.perplexity import (
    PerplexityResult,
    Window,
    context_length,
    every_token_windows,
    relative_increase,
    strided_windows,
)
from levelhead.progress import Progress
from levelhead.records import Estimate, Split
from levelhead.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class TextComparison:
    """One model beside its base on one text."""

    base: PerplexityResult
    other: PerplexityResult
    block_kl: Float[np.ndarray, " windows"]
    """Sum over the scored tokens of each window, nats."""
    cluster: Int[np.ndarray, " windows"] | None = None
    """Codes of windows that stand or fall together; none: each by itself."""

    @property
    def kl(self) -> Estimate:
        """Mean KL per token with its interval; windows as in `relative_increase`."""
        per_token = self.block_kl / self.base.block_tokens
        return at_least_0(weighted_mean_interval(per_token, self.base.block_weight, self.cluster))

    @property
    def increase(self) -> Estimate:
        """Of perplexity, as a share of the base's, with its 95% interval."""
        return self.increase_at(0.95)

    def increase_at(self, level: float) -> Estimate:
        """The same with the interval of another level."""
        return relative_increase(self.base, self.other, level=level, cluster=self.cluster)

    @property
    def nll_increase(self) -> float:
        """Of the mean NLL per token, nats."""
        return self.other.mean_nll - self.base.mean_nll


FEWEST_WINDOWS = 2
"""That an interval over windows needs."""
FURTHER_WINDOW = 512
"""Tokens of a window of a further text: those are short, and an interval needs several windows."""


def check_text(session: Session, split: Split) -> None:
    """Raise TextError, before any work, for texts that `compare_on_text` could not use."""
    for name in (None, *session.config.price_texts):
        ids = session.text_ids(split, name)
        windows = text_windows(session, session.base.model, len(ids), further=name is not None)
        if (found := len(windows)) < FEWEST_WINDOWS:
            option = "--text" if name is None else f"--price-text than {name}"
            raise TextError(
                f"the {split} part of the perplexity text has {len(ids):,} tokens, {found} window "
                f"of this model: an interval needs at least {FEWEST_WINDOWS}; use a larger "
                f"--text-tokens (now {session.config.text_tokens:,}, of which evaluation takes "
                f"half) or a longer {option}"
            )


def further_window(model: PreTrainedModel) -> int:
    """Tokens of a window of a further text."""
    return min(context_length(model.config), FURTHER_WINDOW)


def text_windows(
    session: Session, base: PreTrainedModel, num_tokens: int, *, further: bool = False
) -> list[Window]:
    """The windows that a text of so many tokens is read in; `further`: one of `price_texts`."""
    bos = session.tokenizer.bos_token_id is not None
    if further:
        window = further_window(base)
        return every_token_windows(num_tokens, base.config, bos=bos, window=window)
    if session.config.text_windows == "paper":
        return strided_windows(num_tokens, context_length(base.config))
    return every_token_windows(num_tokens, base.config, bos=bos)


def compare_on_text(
    session: Session,
    base: PreTrainedModel,
    variants: Sequence[Variant],
    split: Split,
    progress: Progress,
    limit: int | None = None,
    name: str | None = None,
) -> list[TextComparison]:
    """Each variant beside the base on the first `limit` (all) tokens of a split's text.

    Args:
        name: of one of `price_texts`; none: the run's own text.

    Raises:
        TextError: a text that is too short for the windows.
        ModelError: a model yields NaN or infinite log-likelihoods.
    """
    ids = session.text_ids(split, name)[:limit]
    paper = session.config.text_windows == "paper" and name is None
    bos = None if paper else session.tokenizer.bos_token_id
    todo = text_windows(session, base, len(ids), further=name is not None)
    stream = torch.tensor(ids, dtype=torch.long)
    prefix = stream.new_tensor([] if bos is None else [bos])

    def work(batch: list[Window]) -> list[np.ndarray]:
        (window,) = batch
        tokens = torch.cat([prefix, stream[window.start : window.stop]])[None]
        scored = window.stop - window.scored
        logits = last_logits(base, tokens, scored)
        sums = []
        for variant in variants:
            with variant() as model:
                other = last_logits(model, tokens, scored)
            sums.append(nll_and_kl(logits, other, tokens[0, -scored:]))
        return [np.array(sums)]

    said = Path(name or str(session.config.text)).name
    with progress(f"reading {said} with both models", len(todo)) as advance:
        read = map_batches(
            todo, work, batch_size=1, length=lambda w: w.stop - w.start, advance=advance, of=stream
        )
    count = np.array([window.stop - window.scored for window in todo])
    return comparisons(np.stack(read, axis=-1), count, weighted=not paper)


def comparisons(
    sums: Float[np.ndarray, "variants 3 windows"],
    tokens: Int[np.ndarray, " windows"],
    cluster: Int[np.ndarray, " windows"] | None = None,
    *,
    weighted: bool = True,
) -> list[TextComparison]:
    """Of what `nll_and_kl` gives: a comparison of each variant.

    Raises:
        ModelError: a sum is NaN or infinite.
    """
    if not np.isfinite(sums).all():
        raise ModelError("a model yields NaN on the perplexity text; try --dtype float32")
    found = []
    for base_nll, other_nll, kl in sums:
        base = PerplexityResult(block_nll=base_nll, block_tokens=tokens, weighted=weighted)
        other = replace(base, block_nll=other_nll)
        found.append(TextComparison(base=base, other=other, block_kl=kl, cluster=cluster))
    return found
