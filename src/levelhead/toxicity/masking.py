"""Texts without the words that name a group: each stands as a neutral word of the same grammar.

    "A queer artist and two Black women, one deaf."  ->  "A human artist and two people, one human."

A singular noun becomes "person", a plural one "people", an adjective that no such noun follows
"human"; possessives stay possessive, and "an" before what was replaced becomes "a". Case does not
matter, nor whether a term of several parts is written with hyphens, spaces or in one word
("non-binary", "non binary", "nonbinary"). A run of terms ("young Black women") becomes one word.
Pronouns, names of people and places stay: what a text says of a group by other words is content.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from levelhead.data.identity_words import FUNCTION_WORDS, NEUTRAL, Number
from levelhead.errors import ScorerError

NEUTRAL_WORDS: Mapping[Number, str] = {
    "singular": "person",
    "plural": "people",
    "adjective": "human",
}
"""What stands for a term. No scorer measured here reacts to them, and they fit where most stand."""
PREFIXES = ("non", "trans", "cis", "gender", "inter", "neuro", "able", "bi", "pan", "mid")
"""What a term may start with and be written apart from: "trans gender", "non-binary"."""
MOST_TERMS = 50_000
LONGEST_TERM = 200
_APART = r"[\s\-\u2010\u2011\u2013]*"
_BETWEEN = r"[\s\-\u2010\u2011\u2013]+"
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_WORD = re.compile(r"\w+")


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
            plain = " ".join(term.casefold().split())
            if plain:
                _check_term(term, plain)
                self.terms.setdefault(plain, number)
        if not self.terms:
            raise ScorerError("there are no identity words to mask")
        if len(self.terms) > MOST_TERMS:
            raise ScorerError(
                f"{len(self.terms):,} identity words are more than {MOST_TERMS:,}: mask fewer"
            )
        self._number = {_letters(term): number for term, number in self.terms.items()}
        spaced = [term for term in self.terms if not _unspaced(term)]
        dense = [re.escape(t) for t in sorted(self.terms, key=len, reverse=True) if _unspaced(t)]
        self._dense = re.compile("|".join(dense)) if dense else None
        self._firsts = frozenset(first for term in spaced for first in _first_words(term))
        self._pattern = _runs(spaced) if spaced else None
        self._one = _alone(spaced)

    def mask(self, text: str) -> str:
        """The text with every term replaced."""
        if self._dense is not None:
            text = self._dense.sub(lambda m: NEUTRAL_WORDS[self._number[_letters(m[0])]], text)
        if self._pattern is None or not self._may_hold(text):
            return text
        return self._pattern.sub(self._replaced, text)

    @staticmethod
    def key(term: str) -> str:
        """A term as `found` spells it."""
        return _letters(term)

    def found(self, text: str) -> list[str]:
        """The terms in a text as it spells them, without case, hyphens and spaces, in order."""
        held = [_letters(m[0]) for m in self._dense.finditer(text)] if self._dense else []
        if self._pattern is None or not self._may_hold(text):
            return held
        for run in self._pattern.finditer(text):
            held += [_letters(m[0]) for m in self._one.finditer(run["run"])]
        return held

    def _may_hold(self, text: str) -> bool:
        """Whether a word of the text starts a term: most texts have none."""
        return not self._firsts.isdisjoint(_WORD.findall(text.casefold()))

    def _replaced(self, found: re.Match[str]) -> str:
        noun, article = found["noun"], found["article"] or ""
        number = NEUTRAL[noun.casefold()] if noun else self._number[_letters(found["last"])]
        neutral = NEUTRAL_WORDS[number]
        if article[:2].casefold() == "an":
            article = article[0] + article[2:]
        possessive = found["possessive"] or ""
        if possessive and number == "plural":
            possessive = possessive[0] + "s"  # "boys'" and "women's" both: people's
        starts = not article and _starts_sentence(found)
        return f"{article}{neutral.capitalize() if starts else neutral}{possessive}"


def _starts_sentence(found: re.Match[str]) -> bool:
    """Whether what is replaced had a capital because a sentence starts with it."""
    before = found.string[: found.start()].rstrip()
    return found["run"][0].isupper() and (not before or before[-1] in '.!?"\u201c\u201d:\n')


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


def _any_of(terms: Iterable[str]) -> str:
    return "|".join(_spelled(term) for term in sorted(terms, key=lambda t: (-len(t), t)))


def _alone(terms: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{_any_of(terms)})(?!\w)", re.IGNORECASE)


def _runs(terms: Iterable[str]) -> re.Pattern[str]:
    """An article, a run of terms that a neutral noun may follow, and a possessive."""
    one = f"(?:{_any_of(terms)})"
    return re.compile(
        rf"(?<!\w)(?P<article>an?\s+)?(?P<run>(?:{one}{_BETWEEN})*"
        rf"(?P<last>{one})(?:{_BETWEEN}(?P<noun>{'|'.join(NEUTRAL)}))?)"
        rf"(?P<possessive>['\u2019]s?)?(?!\w)",
        re.IGNORECASE,
    )
