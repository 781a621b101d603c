"""How much work a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Plan:
    """How much work a run is, known before it starts."""

    axes: tuple[str, ...]
    evaluated_axes: tuple[str, ...]
    scoring_tokens: int
    evaluation_tokens: int
    text_tokens: int
    price_tokens: int
    """Of further texts, which both models read in evaluation."""
    heads: int
    """Or neurons, or layers: how many units are scored."""
    more_tokens: int
    """To be sampled on top of `scoring_tokens` while the ranking is not reliable."""
    reliability: float
    detectable: Mapping[str, float]
    """By axis: the smallest fall of the measured gap that the evaluation tells in 4 of 5 runs."""
    unit: str = "head"
    estimator: str = ""
    sets_read: int = 0
    """How many sets of heads the model reads before one is chosen."""

    changes_read: int = 0
    """The same of changes of method average; 0: averaging is not tried."""

    dropped_tokens: tuple[str, ...] = ()
    """Special tokens that the tokenizer puts at the end of a text, and that prompts are without."""

    @property
    def sampled_tokens(self) -> int:
        """Tokens to be sampled in all, at most (continuations may end early)."""
        return self.scoring_tokens + self.evaluation_tokens
