"""Perplexity of a model on a session's text, by the windows that the run asks for."""

from __future__ import annotations

from transformers.modeling_utils import PreTrainedModel

from levelhead.evaluation.divergence import further_window
from levelhead.metrics.perplexity import PerplexityResult, perplexity, strided_perplexity
from levelhead.progress import Progress
from levelhead.records import Split
from levelhead.session import Session


def text_perplexity(
    session: Session,
    model: PreTrainedModel,
    split: Split,
    progress: Progress,
    name: str,
    limit: int | None = None,
    text: str | None = None,
) -> PerplexityResult:
    """Perplexity on the first `limit` (all) tokens of a split's text; `name` is for people.

    text: one of the run's `price_texts`; none: the run's own.

    Raises:
        TextError: a text that is too short for the windows.
        ModelError: the model yields NaN or infinite log-likelihoods.
    """
    ids = session.text_ids(split, text)[:limit]
    with progress(f"perplexity of the {name} model", len(ids)) as advance:
        if session.config.text_windows == "paper" and text is None:
            return strided_perplexity(model, ids, advance=advance)
        bos = session.tokenizer.bos_token_id
        window = None if text is None else further_window(model)
        return perplexity(model, ids, window=window, bos_token_id=bos, advance=advance)
