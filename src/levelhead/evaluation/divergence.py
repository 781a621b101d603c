"""Base against other models on the same text, window by window: NLL of each, and KL per token.

    KL(base || other) = mean over positions of  sum_v p(v) (log p(v) - log q(v))

The base is read once for however many models are compared: its logits of a window are kept while
the others read it. Perplexities are those of `text_perplexity`, on the same windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from transformers.modeling_utils import PreTrainedModel

from levelhead.errors import ModelError, TextError
from levelhead.evaluation.base import Variant
from levelhead.metrics.clusters import sum_variance
from levelhead.metrics.divergence import last_logits, nll_and_kl
from levelhead.metrics.perplexity import (
    PerplexityResult,
    Window,
    context_length,
    every_token_windows,
    strided_windows,
)
from levelhead.progress import Progress
from levelhead.records import Estimate, Interval, Split
from levelhead.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class TextComparison:
    """One model beside its base on one text."""

    base: PerplexityResult
    other: PerplexityResult
    block_kl: Float[np.ndarray, " windows"]
    """Sum over the scored tokens of each window, nats."""

    @property
    def kl(self) -> Estimate:
        """Mean KL per token with its interval; windows as in `relative_increase`."""
        per_token, weight = self.block_kl / self.base.block_tokens, self.base.block_weight
        mean = float(per_token @ weight)
        error = float(np.sqrt(sum_variance((per_token - mean) * weight)))
        reach = error * float(stats.t.ppf(0.975, max(1, len(weight) - 1)))
        interval = Interval(max(0.0, mean - reach), mean + reach)
        return Estimate(value=mean, stderr=error, interval=interval)

    @property
    def nll_increase(self) -> float:
        """Of the mean NLL per token, nats."""
        return self.other.mean_nll - self.base.mean_nll


FEWEST_WINDOWS = 2
"""That an interval over windows needs."""


def check_text(session: Session, split: Split) -> None:
    """Raise TextError, before any work, for a text that `compare_on_text` could not use."""
    ids = session.text_ids(split)
    if (found := len(text_windows(session, session.base.model, len(ids)))) < FEWEST_WINDOWS:
        raise TextError(
            f"the {split} part of the perplexity text has {len(ids):,} tokens, {found} window of "
            f"this model: an interval needs at least {FEWEST_WINDOWS}; use a larger --text-tokens "
            f"(now {session.config.text_tokens:,}, of which evaluation takes half) or a longer "
            "--text"
        )


def text_windows(session: Session, base: PreTrainedModel, num_tokens: int) -> list[Window]:
    """The windows that a text of so many tokens is read in."""
    if session.config.text_windows == "paper":
        return strided_windows(num_tokens, context_length(base.config))
    bos = session.tokenizer.bos_token_id is not None
    return every_token_windows(num_tokens, base.config, bos=bos)


def compare_on_text(
    session: Session,
    base: PreTrainedModel,
    variants: Sequence[Variant],
    split: Split,
    progress: Progress,
    limit: int | None = None,
) -> list[TextComparison]:
    """Each variant beside the base on the first `limit` (all) tokens of a split's text.

    Raises:
        TextError: a text that is too short for the windows.
        ModelError: a model yields NaN or infinite log-likelihoods.
    """
    ids = session.text_ids(split)[:limit]
    paper = session.config.text_windows == "paper"
    bos = None if paper else session.tokenizer.bos_token_id
    todo = text_windows(session, base, len(ids))
    stream = torch.tensor(ids, dtype=torch.long)
    prefix = stream.new_tensor([] if bos is None else [bos])
    sums = np.zeros((len(variants), 3, len(todo)))
    with progress("reading text with both models", len(ids) * len(variants)) as advance:
        for number, window in enumerate(todo):
            tokens = torch.cat([prefix, stream[window.start : window.stop]])[None]
            scored = window.stop - window.scored
            logits = last_logits(base, tokens, scored)
            for place, variant in enumerate(variants):
                with variant() as model:
                    other = last_logits(model, tokens, scored)
                sums[place, :, number] = nll_and_kl(logits, other, tokens[0, -scored:])
                advance(scored)
    if not np.isfinite(sums).all():
        raise ModelError("a model yields NaN on the perplexity text; try --dtype float32")
    return [_comparison(todo, found, weighted=not paper) for found in sums]


def _comparison(
    todo: Sequence[Window], sums: Float[np.ndarray, "3 windows"], *, weighted: bool
) -> TextComparison:
    count = np.array([window.stop - window.scored for window in todo])
    base = PerplexityResult(block_nll=sums[0], block_tokens=count, weighted=weighted)
    return TextComparison(base=base, other=replace(base, block_nll=sums[1]), block_kl=sums[2])
