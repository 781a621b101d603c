"""What a variant of a run's base model is expected to do, without sampling from it."""

from __future__ import annotations

from typing import Any

from levelhead.evaluation.axis import expected_difference
from levelhead.evaluation.base import Variant, base_axis
from levelhead.evaluation.text import text_perplexity
from levelhead.metrics.perplexity import relative_increase
from levelhead.progress import Progress
from levelhead.session import Session


def expected_change(
    session: Session, axis: str, variant: Variant, progress: Progress
) -> dict[str, Any]:
    """Teacher-forced difference of bias on the test prompts, and perplexity on the test text.

    Returns:
        `expected_difference` and `perplexity_increase`, each {"value", "ci95"}, the increase as a
        share of the base's; `perplexity` of both models.
    """
    base = base_axis(session.problem(axis, "test"), progress)
    expected = expected_difference(base, variant, progress)
    whole = text_perplexity(session, session.base.model, "test", progress, "base")
    with variant() as model:
        other = text_perplexity(session, model, "test", progress, "pruned")
    return {
        "expected_difference": expected.to_json(),
        "perplexity": {"base": whole.perplexity, "pruned": other.perplexity},
        "perplexity_increase": relative_increase(whole, other).to_json(),
    }
