"""Has a pruned model's text degenerated? Repetition, empty and early-ended continuations.

Compares continuations of the same prompts, base against pruned. Each sign is the mean of a value
per continuation; it is raised where the pruned model is worse by more than the stated size AND
the interval of the difference excludes 0. Knows nothing of how texts were sampled, nor of meaning:
fluent nonsense passes.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from levelhead.metrics.intervals import linear_difference_interval
from levelhead.records import Estimate

NGRAM = 3
LIMITS: Mapping[str, float] = {
    "repetition": 0.05,
    "empty": 0.02,
    "ended_early": 0.10,
}
"""By how much (absolute, of a share in [0, 1]) the pruned model must be worse to be flagged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DegenerationSign:
    """One sign: mean shares in [0, 1], and pruned minus base with its interval."""

    name: str
    base: float
    pruned: float
    difference: Estimate
    limit: float

    @property
    def raised(self) -> bool:
        """Whether the pruned model is clearly worse."""
        return self.difference.value > self.limit and self.difference.interval.low > 0


def repeated_ngram_share(tokens: Sequence[Hashable], n: int = NGRAM) -> float:
    """1 - distinct / total n-grams, in [0, 1): 0 where none repeats or there is none.

    Args:
        tokens: token ids, or words.
        n: the length of an n-gram.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def degeneration_values(
    texts: Sequence[str], token_ids: Sequence[Sequence[int]], new_tokens: int
) -> dict[str, Float[np.ndarray, "n"]]:
    """The value of each sign for each continuation.

    Args:
        texts: what the model wrote, without the prompt.
        token_ids: the same as sampled, up to and including the first end-of-text token.
        new_tokens: how many tokens were asked for; fewer means that the text ended early.
    """
    return {
        "repetition": np.array([repeated_ngram_share(ids) for ids in token_ids], dtype=float),
        "empty": np.array([not text.strip() for text in texts], dtype=float),
        "ended_early": np.array([len(ids) < new_tokens for ids in token_ids], dtype=float),
    }


def compare_degeneration(
    base: Mapping[str, Float[np.ndarray, "n"]],
    pruned: Mapping[str, Float[np.ndarray, "n"]],
    template: Int[np.ndarray, "n"],
    *,
    level: float = 0.95,
) -> list[DegenerationSign]:
    """Every sign, from what `degeneration_values` gave for both models on the same prompts.

    Args:
        base: values of the base model's continuations.
        pruned: values of the pruned model's, in the same order of prompts.
        template: codes of the prompts' templates, over which intervals are taken.
        level: confidence level of the differences.

    Raises:
        PromptError: fewer than two templates.
    """
    return [
        DegenerationSign(
            name=name,
            base=float(base[name].mean()),
            pruned=float(pruned[name].mean()),
            difference=linear_difference_interval(pruned[name] - base[name], template, level=level),
            limit=limit,
        )
        for name, limit in LIMITS.items()
    ]
