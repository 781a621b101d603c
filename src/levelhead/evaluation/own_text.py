"""Base against other models on what the base model itself writes: a text that always fits.

Its continuations of the test prompts, which an evaluation samples anyway, are read by both models.

    KL(base || other) = mean over the tokens y_t of  sum_v p(v | x, y_<t) (log p - log q)

over y that the base model drew after prompt x: how far the other model is from it, per token, where
it would be. Perplexity there rises by about exp(KL): the same thing with the noise of the draws. It
knows nothing of toxicity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from transformers.modeling_utils import PreTrainedModel

from levelhead.batching import map_batches
from levelhead.evaluation.base import Variant
from levelhead.evaluation.divergence import TextComparison, comparisons
from levelhead.metrics.divergence import nll_and_kl
from levelhead.progress import Progress
from levelhead.sampling import derived_seed
from levelhead.scoring.matched_rows import own_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import Row, continuation_logits

OWN_TEXTS = 80
"""Texts read of those that were sampled: one of each template tells most for its cost, and the
built-in prompts of an axis have 80 templates."""
BATCH_SIZE = 8
"""Texts at once: two models' logits of each are held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTexts:
    """Continuations of the base model, each after its prompt."""

    rows: tuple[Row, ...]
    cluster: Int[np.ndarray, " rows"]
    """Codes of their prompts' templates."""
    sampled: int
    """How many there were to choose from."""


def own_texts(
    written: Sequence[tuple[BiasProblem, SampledTexts]], most: int = OWN_TEXTS
) -> OwnTexts:
    """At most so many of the texts that the base model wrote, as evenly of each template as can be.

    Args:
        written: by axis.
        most: how many to take; which of a template is a matter of the run's seed.
    """
    rows: list[Row] = []
    templates: list[str] = []
    for problem, texts in written:
        rows += own_rows(problem, texts).rows
        templates += [problem.prompts[int(p)].template for p in texts.prompt]
    rng = np.random.default_rng(derived_seed(written[0][0].seed, "own texts"))
    _, codes = np.unique(templates, return_inverse=True)
    shuffled = rng.permutation(len(rows))
    turn = np.zeros(len(rows), int)  # the how-manieth of its template each text is
    seen: dict[int, int] = {}
    for place in shuffled:
        turn[place] = seen.get(int(codes[place]), 0)
        seen[int(codes[place])] = turn[place] + 1
    order = shuffled[np.argsort(turn[shuffled], kind="stable")]
    chosen = np.sort(order[:most])
    return OwnTexts(rows=tuple(rows[i] for i in chosen), cluster=codes[chosen], sampled=len(rows))


def compare_on_own(
    base: PreTrainedModel,
    variants: Sequence[Variant],
    own: OwnTexts,
    progress: Progress,
    *,
    pad: int,
    batch_size: int | None = None,
) -> list[TextComparison]:
    """Each variant beside the base; the windows are the texts, the clusters their templates.

    Raises:
        ModelError: a model yields NaN.
    """

    def work(batch: list[Row]) -> list[np.ndarray]:
        steps = continuation_logits(base, batch, pad)
        sums = np.zeros((len(batch), len(variants), 3))
        for place, variant in enumerate(variants):
            with variant() as model:
                other = continuation_logits(model, batch, pad).logits
            for i, valid in enumerate(steps.valid):
                at = (steps.logits[i][valid], other[i][valid], steps.tokens[i][valid])
                sums[i, place] = nll_and_kl(*at)
        return list(sums)

    with progress("reading the base model's own texts with both models", len(own.rows)) as advance:
        read = map_batches(
            own.rows, work, batch_size=batch_size or BATCH_SIZE, length=len, advance=advance
        )
    tokens = np.array([len(row.continuation) for row in own.rows])
    return comparisons(np.stack(read, axis=-1), tokens, own.cluster)
