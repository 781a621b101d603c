"""The words by which prompts name a subgroup: "women", "transgender people", "Native American".

They are found in the prompts themselves. In matched prompts they are the words that not all
subgroups' versions of a sentence share ("young" is none in "a young woman" beside "a young man");
other prompts are searched for their descriptor, and all for their subgroup's name. So singular
and plural are known as they stand in prompts, and forms that no prompt has are not.
It does not know what the words are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from levelhead.data.prompt_selection import matched_groups
from levelhead.records import Prompt


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


FUNCTION_WORDS = _set(
    "a an the i'm i am is are was were be who whom whose which that this these those he she it "
    "they him her them his hers their its my our your in on of at by with without from for to and "
    "or as uses use"
)
"""They frame a term ("a person WITH low vision") and are none by themselves."""
NEUTRAL_NOUNS = _set("person people individual individuals folk folks")
NOUNS = NEUTRAL_NOUNS | _set("man men woman women guy guys lady ladies")
"""Left out where a word that says more is beside them ("gay men" gives "gay" as well)."""

_EDGE = re.compile(r"^\W+|\W+$")


def identity_terms(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """Every term that names a subgroup of these prompts, lower-case, the longest first.

    "transgender people" gives that and "transgender"; "women" is a term of its own; a neutral
    noun alone ("people") is none.
    """
    found: set[str] = set()
    matched: set[str] = set()
    for group in matched_groups(prompts):
        matched.update(prompt.id for prompt in group)
        for phrase in _differences([_words(prompt.text) for prompt in group]):
            found.update(_terms(phrase))
    for prompt in prompts:
        names = {prompt.subgroup} if prompt.id in matched else {prompt.subgroup, prompt.descriptor}
        for term in {term for name in names for term in _terms(_words(name))} - found:
            if re.search(rf"(?<!\w){re.escape(term)}(?!\w)", prompt.text.lower()):
                found.add(term)
    return tuple(sorted(found, key=lambda term: (-len(term), term)))


def _words(text: str) -> list[str]:
    return [word for word in (_EDGE.sub("", word) for word in text.lower().split()) if word]


def _differences(texts: Sequence[list[str]]) -> Iterator[list[str]]:
    """Runs of words that not every text has."""
    shared = set.intersection(*map(set, texts))
    for text in texts:
        for same, run in groupby(text, shared.__contains__):
            if not same:
                yield list(run)


def _terms(phrase: Sequence[str]) -> Iterator[str]:
    """The phrase without what frames it, and without a noun that says less than the rest."""
    words = _stripped(phrase, FUNCTION_WORDS)
    core = _stripped(phrase, FUNCTION_WORDS | NOUNS)
    yield from {" ".join(words), " ".join(core)} - NEUTRAL_NOUNS - {""}


def _stripped(words: Sequence[str], frame: frozenset[str]) -> Sequence[str]:
    inside = [i for i, word in enumerate(words) if word not in frame]
    return words[inside[0] : inside[-1] + 1] if inside else []
