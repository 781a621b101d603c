"""What pruning costs on each text: the run's own, further ones, and what the base model writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.evaluation.base import Variant
from levelhead.evaluation.divergence import TextComparison, compare_on_text
from levelhead.evaluation.own_text import OwnTexts, compare_on_own
from levelhead.price import OWN_TEXT
from levelhead.progress import Progress
from levelhead.sampling import pad_id
from levelhead.session import Session

Json = dict[str, Any]


def measured_prices(
    session: Session, variant: Variant, own: OwnTexts, progress: Progress
) -> tuple[TextComparison, list[Json]]:
    """The comparison on the run's own text, and evaluation.json's `price`, that text first.

    Raises:
        TextError: a text that is too short.
        ModelError: a model yields NaN.
    """
    base = session.base.model
    found: list[tuple[TextComparison, Json]] = []
    for name in (None, *session.config.price_texts):
        (one,) = compare_on_text(session, base, [variant], "test", progress, name=name)
        text = session.text("test", name)
        about = {"text": text.name, "sha256": text.sha256, "licence": text.licence}
        found.append((one, about | {"windows": len(one.base.block_tokens)}))
    (one,) = compare_on_own(
        base,
        [variant],
        own,
        progress,
        pad=pad_id(session.tokenizer),
        batch_size=session.config.batch_size,
    )
    counts = {
        "texts": len(own.rows),
        "sampled": own.sampled,
        "templates": len(set(own.cluster.tolist())),
    }
    found.append((one, {"text": OWN_TEXT} | counts))
    return found[0][0], [_entry(one, about) for one, about in found]


def text_summary(
    comparison: TextComparison, entry: Mapping[str, Any], predicted: Mapping[str, Any] | None
) -> Json:
    """evaluation.json's `perplexity`: the run's own text, with what was predicted on it."""
    same = ("base", "pruned", "increase", "kl", "tokens", "text", "sha256", "licence")
    return {key: entry[key] for key in same} | {
        "nll_increase": comparison.nll_increase,
        "predicted": None if predicted is None else dict(predicted),
    }


def _entry(one: TextComparison, about: Json) -> Json:
    return {
        "text": about["text"],
        "increase": one.increase.to_json(),
        "kl": one.kl.to_json(),
        "base": one.base.perplexity,
        "pruned": one.other.perplexity,
        "tokens": one.base.num_tokens,
    } | about
