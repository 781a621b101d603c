"""A user's own function as a toxicity scorer, for the Python interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScorerError
from levelhead.toxicity.base import ScorerCost, ToxicityScorer

_MEMBERS = ("name", "identity", "cost")


class FunctionScorer:
    """`function(texts)` gives one toxicity in [0, 1] per text.

    Its answers are kept nowhere: nothing tells that a function is still the one it was.
    """

    cost: ScorerCost = "cheap"

    def __init__(self, function: Callable[[Sequence[str]], Any], name: str = "") -> None:
        kind = getattr(function, "__qualname__", type(function).__qualname__)
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.identity = f"function:{getattr(function, '__module__', '')}.{kind}"
        self._function = function

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """What the function returns; `score_texts` checks it."""
        found: Float[np.ndarray, " texts"] = self._function(texts)
        return found


def as_scorer(given: Any, load: Callable[[str], ToxicityScorer]) -> ToxicityScorer:
    """A name, a scorer, or a function of texts, as a scorer.

    Args:
        given: what the user gave.
        load: makes the scorer of a name.

    Raises:
        ScorerError: none of the three, or no scorer of that name.
    """
    if isinstance(given, str):
        return load(given)
    if not callable(given):
        raise ScorerError(
            f"{given!r} is no toxicity scorer: give a name, or a function that takes a list of "
            "texts and returns one number in [0, 1] per text"
        )
    if all(hasattr(given, member) for member in _MEMBERS):
        scorer: ToxicityScorer = given
        return scorer
    return FunctionScorer(given)
