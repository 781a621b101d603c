"""What a toxicity scorer is, and the one place that calls it and checks its answers.

Knows nothing of any particular scorer, nor of prompts, continuations and models: what part of a
text a scorer gets to see is decided by the caller (`toxicity_input`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float

from levelhead import journal
from levelhead.errors import LevelheadError, ScorerError

ScorerCost = Literal["cheap", "expensive"]
"""cheap: tens of thousands of texts a second on a CPU. expensive: tens, as a transformer."""

CHUNK = 256
"""Texts that an expensive scorer is asked about at a time: what a crash can cost of its work."""
_SHOWN_CHARACTERS = 80
_SHOWN_TEXTS = 3


class ToxicityScorer(Protocol):
    """Texts in, one toxicity in [0, 1] per text out; the same text always scores the same."""

    @property
    def name(self) -> str:
        """What the user calls it (`--scorer NAME`)."""

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

    No texts give no scores, without a call. An expensive scorer is asked about `CHUNK` texts at a
    time, and its answers are in the stage's journal. Texts that do not fit in memory together are
    asked about by halves.

    Raises:
        ScorerError: the scorer raised, returned another number of scores than there are texts, or
            one that is not a finite number in [0, 1]; the message names the texts.
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
    if scorer.cost == "cheap":
        return _asked(scorer, distinct)[inverse]
    parts = []
    for start in range(0, len(distinct), CHUNK):
        part = distinct[start : start + CHUNK]
        of = (scorer.identity, part)
        parts.append(journal.step("toxicity", partial(_asked, scorer, part), of=of))
    scores: Float[np.ndarray, " texts"] = np.concatenate(parts)[inverse]
    return scores


def _asked(scorer: ToxicityScorer, texts: list[str]) -> Float[np.ndarray, "texts"]:
    """The scorer's answers, checked."""
    try:
        answers = scorer(texts)
    except LevelheadError:
        raise
    except Exception as error:
        if len(texts) > 1 and _out_of_memory(error):
            half = len(texts) // 2
            return np.concatenate([_asked(scorer, texts[:half]), _asked(scorer, texts[half:])])
        culprits = _culprits(scorer, texts)
        raise ScorerError(
            f"toxicity scorer {scorer.name!r} failed with {type(error).__name__}: "
            f"{shorten(str(error))} on {_listed(culprits)}; all finished work is kept"
        ) from error
    scores = _as_floats(scorer, answers)
    if scores.shape != (len(texts),):
        raise ScorerError(
            f"toxicity scorer {scorer.name!r} returned scores of shape {scores.shape} for "
            f"{_listed(texts)}; it must return one score per text"
        )
    wrong = ~((scores >= 0) & (scores <= 1))  # also true for NaN
    if wrong.any():
        first = int(np.argmax(wrong))
        affected = [texts[i] for i in np.flatnonzero(wrong)]
        raise ScorerError(
            f"toxicity scorer {scorer.name!r} returned {scores[first]} for {_listed(affected)}; a "
            f"score must be a finite number in [0, 1] ({len(affected)} of {len(texts)} texts are "
            "affected)"
        )
    return scores


def _culprits(scorer: ToxicityScorer, texts: list[str]) -> list[str]:
    """The text that makes a scorer raise, by halving; all of them where no single one does."""
    suspects = texts
    while len(suspects) > 1:
        half = len(suspects) // 2
        for part in (suspects[:half], suspects[half:]):
            if _fails(scorer, part):
                suspects = part
                break
        else:
            return texts
    return suspects


def _fails(scorer: ToxicityScorer, texts: list[str]) -> bool:
    try:
        scorer(texts)
    except Exception:
        return True
    return False


def _out_of_memory(error: Exception) -> bool:
    """A device's or torch's CPU allocator's RuntimeError; torch itself is not imported here."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _listed(texts: Sequence[str]) -> str:
    """Texts as they can stand in an error message, the first few of them."""
    shown = ", ".join(shorten(text) for text in texts[:_SHOWN_TEXTS])
    if len(texts) == 1:
        return f"the text {shown}"
    more = f" and {len(texts) - _SHOWN_TEXTS:,} more" if len(texts) > _SHOWN_TEXTS else ""
    return f"{len(texts):,} texts, the first of them {shown}{more}"


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
