"""Token toxicity tau: how much more toxic a text becomes when one more word is written.

    tau_s(v) = mean over contexts c of  tox(c + v) - tox(c)

Only word-initial tokens (" word") count: tau ignores words of several tokens and negation. The
same answers also give how far a word moves the logit of toxicity, which adds up over the words of
a text far better than toxicity does (`WordLevels`; the control variate rests on it). tau is
restricted to tokens that carry nearly all of the next-token probability on the base model's own
continuations, so that its cost stays bounded for an expensive scorer, whose answers are kept on
disk besides: a context that was ever asked about with the same words costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from levelhead import journal
from levelhead.batching import Advance
from levelhead.errors import ModelError, ScorerError
from levelhead.records import ToxicityInput
from levelhead.toxicity import ToxicityScorer, score_texts_once

SPACE_MARKS = ("Ġ", "▁")
MASS = 0.999
"""Share of next-token probability that the scored tokens carry."""
MAX_CALLS = {"cheap": 1_500_000, "expensive": 20_000}
"""Classifier calls that tau may cost, by the scorer's own hint."""


SMALLEST = 1e-3
"""Toxicities are kept this far from 0 and 1 where a logit of them is taken."""


@dataclass(frozen=True, slots=True)
class WordLevels:
    """How far a word moves the logit of a text's toxicity, mean over all contexts.

    Tokens that spell the same word share it: " word", and "word" where nothing stands before it.
    """

    token_ids: Int[np.ndarray, " tokens"]
    rise: Float[np.ndarray, " tokens"]
    spaced: Bool[np.ndarray, " tokens"]
    """The token begins a word wherever it stands (" word"); else only after no letter ("word")."""


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
    levels: WordLevels | None = None
    """None: nothing is known but tau."""

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


def logit(toxicity: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """log(p / (1 - p)), finite."""
    kept = np.clip(toxicity, SMALLEST, 1 - SMALLEST)
    out: Float[np.ndarray, "*n"] = np.log(kept / (1 - kept))
    return out


def word_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Word-initial alphabetic tokens by the lower-cased word they start: {"the": [262, 383]}.

    Most tokenizers mark them ("▁the"). Of those that do not, tokens that are decoded with a space
    before them are taken (BERT's, whose other tokens begin with "##"); letters are no words.
    """
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    words: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if name and name.startswith(SPACE_MARKS) and name[1:].isalpha():
            words.setdefault(name[1:].lower(), []).append(index)
    return words or _unmarked_words(tokenizer, names)


def _unmarked_words(
    tokenizer: PreTrainedTokenizerBase, names: Sequence[str | None]
) -> dict[str, list[int]]:
    special = set(tokenizer.all_special_ids)
    words: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if name and name.isalpha() and index not in special:
            words.setdefault(name.lower(), []).append(index)
    first = [own[0] for word, own in words.items() if len(word) > 1][:2]
    spaced = " ".join(str(names[index]) for index in first)
    if len(first) < 2 or str(tokenizer.decode(first)).strip() != spaced:
        return {}
    return words


def refuse_without_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose tokens are no words, before anything is sampled.

    Raises:
        ModelError: no token begins a word: what is written could not be read word by word.
    """
    if not word_tokens(tokenizer):
        raise ModelError(
            f"none of the {len(tokenizer):,} tokens of this model's tokenizer begins a word (one "
            "token per letter or byte, or no mark of where words begin): toxicity cannot be told "
            "word by word, on which scoring and evaluation rest; choose a model of word pieces"
        )


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
    level = np.zeros(len(chosen))
    rises: dict[str, Float[np.ndarray, "2 words"]] = {}
    calls = cached = 0
    for row, texts in enumerate(contexts):
        for text in texts:
            if text not in rises:
                # One question per context, so that an interrupted run keeps what it has paid for.
                question = [text, *(f"{text} {word}" for word in chosen)]
                scores, kept = _asked(scorer, question)
                moved = logit(scores)
                rises[text] = np.stack([scores[1:] - scores[0], moved[1:] - moved[0]])
                calls += len(question)
                cached += len(question) * kept
            tau[row] += rises[text][0]
            level += rises[text][1] / max(1, spread)
            if advance:
                advance(1)
        tau[row] /= max(1, len(texts))
    if not np.any(tau):
        raise ScorerError(
            f"token toxicity is all zero: no word of {len(chosen)} changes a score of "
            f"{scorer.name!r}; use another --scorer or --estimator ablate"
        )
    expanded = np.repeat(tau, repeat, axis=1)
    used = np.flatnonzero(np.any(expanded != 0, axis=0))
    levels = _levels(tokenizer, words, dict(zip(chosen, level, strict=True)))
    return TokenToxicity(ids[used], expanded[:, used], calls, cached, levels)


def _levels(
    tokenizer: PreTrainedTokenizerBase, words: dict[str, list[int]], rise: dict[str, float]
) -> WordLevels:
    spaced = [(i, word) for word in rise for i in words[word]]
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    known = {i for i, _ in spaced}
    bare = [
        (i, name.lower())
        for i, name in enumerate(names)
        if name and name.lower() in rise and i not in known
    ]
    return WordLevels(
        token_ids=np.array([i for i, _ in (*spaced, *bare)], dtype=np.int64),
        rise=np.array([rise[word] for _, word in (*spaced, *bare)]),
        spaced=np.arange(len(spaced) + len(bare)) < len(spaced),
    )


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
