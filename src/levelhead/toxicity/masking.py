"""Texts without the words that name a group: each stands as a neutral word of the same grammar.

    "A queer artist and two Black women, one deaf."  ->  "A human artist and two people, one human."

A singular noun becomes "person", a plural one "people", an adjective that no such noun follows
"human", and so does a word that may be noun and adjective ("a lesbian", "a lesbian artist"), as
"human" is both. Possessives stay possessive, and "an" before what was replaced becomes "a". Case
does not matter, nor whether a term of several parts is written with hyphens, spaces or in one word
("non-binary", "non binary", "nonbinary"). A run of terms ("young Black women") becomes one word.
Pronouns, names of people and places stay: what a text says of a group by other words is content.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from levelhead.data.identity_words import FUNCTION_WORDS, NEUTRAL, Number
from levelhead.errors import PromptError, ScorerError

NEUTRAL_WORDS: Mapping[Number, str] = {
    "singular": "person",
    "plural": "people",
    "adjective": "human",
}
"""What stands for a term. No scorer measured here reacts to them, and they fit where most stand."""
PREFIXES = ("non", "trans", "cis", "gender", "inter", "neuro", "able", "bi", "pan", "mid")
"""What a term may start with and be written apart from: "trans gender", "non-binary"."""
MOST_MASKED = 0.5
"""Of the words of prompts: above it a list of identity words masks what it should not."""
MOST_TERMS = 50_000
LONGEST_TERM = 200
_APART = r"[\s\-\u2010\u2011\u2013]*"
_BETWEEN = re.compile(r"[\s\-\u2010\u2011\u2013]+")
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_WORD = re.compile(r"\w+")
_EDGE = re.compile(r"^\W+")
_AN = re.compile(r"(?<!\w)([Aa])[Nn](\s+)$")
_POSSESSIVE = re.compile(r"['\u2019]s(?!\w)|(?<=s)['\u2019](?=[\s.,;:!?]|$)", re.IGNORECASE)


class Masker:
    """Replaces terms by neutral words, and finds which terms a text has.

    >>> masker = Masker({"woman": "singular", "women": "plural", "Asian": "adjective"})
    >>> masker.mask("An Asian woman's hat. Two women met an Asian artist.")
    "A person's hat. Two people met a human artist."

    Args:
        terms: terms with their number, which decides what stands for them.

    Raises:
        ScorerError: no terms, or one that is no word, a function word or a neutral word.
    """

    def __init__(self, terms: Mapping[str, Number]) -> None:
        self.terms: dict[str, Number] = {}
        for term, number in terms.items():
            plain = _EDGE.sub("", " ".join(_one_spelling(term).casefold().split()))
            if term.strip():
                _check_term(term, plain)
                self.terms.setdefault(plain, number)
        if not self.terms:
            raise ScorerError("there are no identity words to mask")
        if len(self.terms) > MOST_TERMS:
            raise ScorerError(
                f"{len(self.terms):,} identity words are more than {MOST_TERMS:,}: mask fewer"
            )
        self._number = {_letters(term): number for term, number in self.terms.items()}
        dense = [re.escape(t) for t in sorted(self.terms, key=len, reverse=True) if _unspaced(t)]
        self._dense = re.compile("|".join(dense)) if dense else None
        starting: dict[str, list[str]] = {}
        for term in self.terms:
            if not _unspaced(term):
                for first in _first_words(term):
                    starting.setdefault(first, []).append(term)
        self._starting = {first: tuple(terms) for first, terms in starting.items()}

    def mask(self, text: str) -> str:
        """The text with every term replaced, and with those that neutral words then make.

        "women of color" is "people of color", which is "people" where that is a term.
        """
        before = found = _one_spelling(text)
        while (masked := self._masked_once(found)) != found:
            found = masked
        return text if found == before else found

    def _masked_once(self, text: str) -> str:
        if self._dense is not None:
            text = self._dense.sub(lambda m: NEUTRAL_WORDS[self._number[_letters(m[0])]], text)
        parts, end = [], 0
        for run in self._runs(text):
            parts += [_AN.sub(r"\1\2", text[end : run.start]), self._replaced(text, run)]
            end = run.stop
        return "".join([*parts, text[end:]]) if parts else text

    @staticmethod
    def key(term: str) -> str:
        """A term as `found` spells it."""
        return _letters(term)

    def found(self, text: str) -> list[str]:
        """The terms in a text as `key` spells them, in order."""
        text = _one_spelling(text)
        held = [_letters(m[0]) for m in self._dense.finditer(text)] if self._dense else []
        return held + [term for run in self._runs(text) for term in run.terms]

    def _runs(self, text: str) -> Iterator[_Run]:
        """Terms that follow each other, with a neutral noun behind them, if there is one."""
        end = 0
        for word in _WORD.finditer(text):
            if word.start() < end or word[0].casefold() not in self._starting:
                continue
            terms, noun, start = [], "", word.start()
            place: int | None = start
            while place is not None and (one := self._term_at(text, place)):
                terms.append(_letters(one))
                end = place + len(one)
                place = _after_gap(text, end)
            if not terms:
                continue
            held = None if place is None else _WORD.match(text, place)
            if held is not None and held[0].casefold() in NEUTRAL:
                noun, end = held[0].casefold(), held.end()
            owner = _POSSESSIVE.match(text, end)
            yield _Run(
                start=start,
                stop=owner.end() if owner else end,
                terms=tuple(terms),
                noun=noun,
                owner=owner[0][0] if owner else "",
            )

    def _term_at(self, text: str, place: int) -> str:
        """The longest term that starts at a place, as the text spells it; empty: none."""
        word = _WORD.match(text, place)
        terms = self._starting.get(word[0].casefold()) if word else None
        found = _any_of(terms).match(text, place) if terms else None
        return found[0] if found else ""

    def _replaced(self, text: str, run: _Run) -> str:
        number = NEUTRAL[run.noun] if run.noun else self._number[run.terms[-1]]
        neutral = NEUTRAL_WORDS[number]
        before = text[: run.start].rstrip()
        starts = not before or before[-1] in '.!?"\u201c\u201d:\n'
        word = neutral.capitalize() if starts and text[run.start].isupper() else neutral
        # "boys'" and "women's" both: people's
        return f"{word}{run.owner}s" if run.owner else word


def refuse_masking_most(texts: Sequence[str], terms: Mapping[str, Number]) -> None:
    """Refuse terms that would mask most of the words of these texts.

    Raises:
        PromptError: more than `MOST_MASKED` of them.
    """
    masker = Masker(terms)
    texts = texts[:: max(1, len(texts) // 200)]
    words = sum(len(text.split()) for text in texts)
    found = Counter(term for text in texts for term in masker.found(text))
    if found.total() > MOST_MASKED * words:
        most = ", ".join(repr(term) for term, _ in found.most_common(3))
        raise PromptError(
            f"the identity words are {found.total() / words:.0%} of the words of these prompts "
            f"(most often {most}), more than {MOST_MASKED:.0%}: nothing would be left to read; "
            "take words that name no group off --identity-terms, or give --unmasked"
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """Where terms stand in a text, one after the other."""

    start: int
    stop: int
    terms: tuple[str, ...]
    """As `Masker.key` spells them."""
    noun: str
    owner: str
    """The apostrophe of a possessive; empty: it is none."""


def _after_gap(text: str, place: int) -> int | None:
    """Where the next word starts, if spaces or hyphens alone are before it."""
    gap = _BETWEEN.match(text, place)
    return gap.end() if gap else None


def _check_term(term: str, plain: str) -> None:
    """Raise ScorerError for what would mask everything, or nothing."""
    if len(plain) > LONGEST_TERM:
        raise ScorerError(
            f"identity word {plain[:40]!r}... has {len(plain)} characters; at most {LONGEST_TERM}"
        )
    if not any(char.isalnum() for char in plain):
        raise ScorerError(f"identity word {term!r} holds no letter or number")
    if plain in FUNCTION_WORDS or plain in NEUTRAL:
        raise ScorerError(
            f"identity word {term!r} names no group: masking it would change nearly every text; "
            "take it off the list"
        )


def _one_spelling(text: str) -> str:
    """Letters with accents as one character each: a model and a list may spell them otherwise."""
    return unicodedata.normalize("NFC", text)


def _letters(term: str) -> str:
    """A term without case, spaces and hyphens: one key for all its spellings."""
    return re.sub(r"[\s\-\u2010\u2011\u2013]+", "", term.casefold())


def _unspaced(term: str) -> bool:
    """Whether the term is of a script that puts no space between words."""
    return any(unicodedata.name(char, "").startswith(_UNSPACED) for char in term)


def _first_words(term: str) -> set[str]:
    """What the first word of the term is in its spellings."""
    words = _WORD.findall(term)
    firsts = {words[0], "".join(words)}
    for end in range(2, len(words)):
        firsts.add("".join(words[:end]))
    return firsts | {prefix for prefix in PREFIXES if words[0].startswith(prefix)}


def _spelled(term: str) -> str:
    """A regular expression of a term in all its spellings."""
    words = _WORD.findall(term)
    parts = re.split(r"[\s\-\u2010\u2011\u2013]+", term)
    if len(parts) == 1:
        for prefix in PREFIXES:
            if term.startswith(prefix) and len(term) > len(prefix) + 2 and len(words) == 1:
                return re.escape(prefix) + _APART + re.escape(term[len(prefix) :])
    return _APART.join(re.escape(part) for part in parts if part)


@lru_cache(maxsize=MOST_TERMS)
def _any_of(terms: tuple[str, ...]) -> re.Pattern[str]:
    """The longest of the terms at a place, as a whole word; compiled when a text first asks."""
    longest_first = sorted(terms, key=lambda term: (-len(term), term))
    return re.compile(rf"(?:{'|'.join(map(_spelled, longest_first))})(?!\w)", re.IGNORECASE)
