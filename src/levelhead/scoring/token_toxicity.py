"""Token toxicity tau: how much more toxic a text becomes when one more word is written.

    tau_s(v) = mean over contexts c of  tox(c + v) - tox(c)

Only word-initial tokens (" word") count: tau ignores words of several tokens and negation. It is
restricted to tokens that carry nearly all of the next-token probability on the base model's own
continuations, so that its cost stays bounded for an expensive scorer, whose answers are kept on
disk besides: a context that was ever asked about with the same words costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from levelhead import journal
from levelhead.batching import Advance
from levelhead.errors import ScorerError
from levelhead.records import ToxicityInput
from levelhead.toxicity import ToxicityScorer, score_texts_once

SPACE_MARKS = ("Ġ", "▁")
MASS = 0.999
"""Share of next-token probability that the scored tokens carry."""
MAX_CALLS = {"cheap": 1_500_000, "expensive": 20_000}
"""Classifier calls that tau may cost, by the scorer's own hint."""


@dataclass(frozen=True, slots=True)
class TokenToxicity:
    """tau for the tokens where it is not 0.

    `tau` has a row per subgroup, or a single row that serves all of them. Values in [-1, 1].
    """

    token_ids: Int[np.ndarray, " tokens"]
    tau: Float[np.ndarray, "rows tokens"]
    classifier_calls: int
    """Texts whose score went into this tau; a context drawn twice counts once."""
    classifier_calls_cached: int = 0
    """How many of them were answered from disk, by an earlier run or an earlier round of this."""

    def row(self, subgroup: int) -> int:
        """The row of `tau` that a subgroup uses."""
        return subgroup if len(self.tau) > 1 else 0


def toxicity_text(prompt: str, continuation: str, toxicity_input: ToxicityInput | str) -> str:
    """What the classifier reads.

    `full` is the authors' choice: prompt and continuation, lower-cased, newlines as spaces.
    `continuation` is only what the model wrote, newlines as spaces.
    """
    if toxicity_input == "full":
        return (prompt + continuation).lower().replace("\n", " ")
    return continuation.replace("\n", " ").strip()


def word_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Word-initial alphabetic tokens by the lower-cased word they start: {"the": [262, 383]}."""
    words: dict[str, list[int]] = {}
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    for index, name in enumerate(names):
        if name and name.startswith(SPACE_MARKS) and name[1:].isalpha():
            words.setdefault(name[1:].lower(), []).append(index)
    return words


def measure_token_toxicity(
    scorer: ToxicityScorer,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[Sequence[str]],
    mass: Float[np.ndarray, " vocab"],
    advance: Advance | None = None,
) -> TokenToxicity:
    """tau by asking the scorer.

    Args:
        contexts: texts that a word is appended to, a list per row of tau.
        mass: mean next-token probability of every token; where words must be left out, the
            least probable go first.
        advance: called with 1 after every context.

    Raises:
        ScorerError: no word changes any score, so heads cannot be told apart by this scorer.
    """
    words = word_tokens(tokenizer)
    spread = sum(map(len, contexts))
    budget = MAX_CALLS[scorer.cost] // max(1, spread) - 1  # a context itself is asked about too
    chosen = _most_probable(words, mass, budget)
    ids = np.array([i for word in chosen for i in words[word]], dtype=np.int64)
    repeat = np.array([len(words[word]) for word in chosen])
    tau = np.zeros((len(contexts), len(chosen)))
    rises: dict[str, Float[np.ndarray, " words"]] = {}
    calls = cached = 0
    for row, texts in enumerate(contexts):
        for text in texts:
            if text not in rises:
                # One question per context, so that an interrupted run keeps what it has paid for.
                question = [text, *(f"{text} {word}" for word in chosen)]
                scores, kept = _asked(scorer, question)
                rises[text] = scores[1:] - scores[0]
                calls += len(question)
                cached += len(question) * kept
            tau[row] += rises[text]
            if advance:
                advance(1)
        tau[row] /= max(1, len(texts))
    if not np.any(tau):
        raise ScorerError(
            f"token toxicity is all zero: no word of {len(chosen)} changes a score of "
            f"{scorer.name!r}; use another --toxicity or --estimator ablate"
        )
    expanded = np.repeat(tau, repeat, axis=1)
    used = np.flatnonzero(np.any(expanded != 0, axis=0))
    return TokenToxicity(ids[used], expanded[:, used], calls, cached)


def _asked(scorer: ToxicityScorer, question: list[str]) -> tuple[Float[np.ndarray, " texts"], bool]:
    of = (scorer.identity, question)
    return journal.step("word toxicity", lambda: score_texts_once(scorer, question), of=of)


def _most_probable(
    words: dict[str, list[int]], mass: Float[np.ndarray, " vocab"], limit: int
) -> list[str]:
    """The words that carry `MASS` of the probability of all words, at most `limit`."""
    names = list(words)
    weight = np.array([mass[words[name]].sum() for name in names])
    order = np.argsort(-weight, kind="stable")
    total = weight.sum()
    if total > 0:
        carried = np.cumsum(weight[order]) / total
        limit = min(limit, int(np.searchsorted(carried, MASS)) + 1)
    return [names[i] for i in order[: max(1, limit)]]
