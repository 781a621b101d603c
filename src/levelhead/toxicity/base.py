"""What a toxicity scorer is, and the one place that calls it and checks its answers.

Knows nothing of any particular scorer, nor of prompts, continuations and models: what part of a
text a scorer gets to see is decided by the caller (`toxicity_input`).
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScorerError

ScorerCost = Literal["cheap", "expensive"]
"""cheap: tens of thousands of texts a second on a CPU. expensive: tens, as a transformer."""

_SHOWN_CHARACTERS = 80


class ToxicityScorer(Protocol):
    """Texts in, one toxicity in [0, 1] per text out; the same text always scores the same."""

    @property
    def name(self) -> str:
        """What the user calls it (`--toxicity NAME`)."""

    @property
    def identity(self) -> str:
        """Stable across machines and processes; two scorers share it only if they score alike.

        Holds the name and the version, revision or hash of what computes the scores. It goes
        into fingerprints and caches.
        """

    @property
    def cost(self) -> ScorerCost:
        """Whether a caller can afford one call per vocabulary entry and context."""

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "texts"]:
        """The toxicity of each text, in the order given."""


def score_texts(scorer: ToxicityScorer, texts: Sequence[str]) -> Float[np.ndarray, "texts"]:
    """Toxicity of each text in [0, 1], in the order given; every distinct text is scored once.

    No texts give no scores, without a call.

    Raises:
        ScorerError: the scorer returned another number of scores than there are texts, or one
            that is not a finite number in [0, 1].
    """
    if not len(texts):
        return np.zeros(0)
    position: dict[str, int] = {}
    inverse = np.fromiter(
        (position.setdefault(text, len(position)) for text in texts),
        dtype=np.intp,
        count=len(texts),
    )
    distinct = list(position)
    scores = _as_floats(scorer, scorer(distinct))
    if scores.shape != (len(distinct),):
        raise ScorerError(
            f"toxicity scorer {scorer.name!r} returned scores of shape {scores.shape} for "
            f"{len(distinct)} texts, the first of them {shorten(distinct[0])}; it must return "
            "one score per text"
        )
    wrong = ~((scores >= 0) & (scores <= 1))  # also true for NaN
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ScorerError(
            f"toxicity scorer {scorer.name!r} returned {scores[first]} for the text "
            f"{shorten(distinct[first])}; a score must be a finite number in [0, 1] "
            f"({int(wrong.sum())} of {len(distinct)} texts are affected)"
        )
    return scores[inverse]


def shorten(text: str) -> str:
    """The text as it can stand in an error message: escaped, on one line, its start only."""
    if len(text) <= _SHOWN_CHARACTERS:
        return ascii(text)
    return f"{text[:_SHOWN_CHARACTERS]!a}... ({len(text):,} characters)"


def _as_floats(scorer: ToxicityScorer, scores: object) -> Float[np.ndarray, "..."]:
    try:
        return np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as err:
        raise ScorerError(
            f"toxicity scorer {scorer.name!r} returned {type(scores).__name__} that is not an "
            f"array of numbers ({err}); it must return one score in [0, 1] per text"
        ) from err
