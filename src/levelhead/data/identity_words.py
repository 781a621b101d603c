"""The grammar of words that name a group: singular, plural or adjective, and one from another.

English rules of thumb, for terms that nobody has said more about. They decide which neutral word
stands for a term, and which other forms of it are masked too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

Number = Literal["singular", "plural", "adjective"]
NUMBERS: tuple[Number, ...] = ("singular", "plural", "adjective")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


FUNCTION_WORDS = _set(
    "a an the i'm i am is are was were be who whom whose which that this these those he she it "
    "they him her them his hers their its my our your in on of at by with without from for to and "
    "or as uses use not no do does did do have has had"
)
"""They frame a term ("a person WITH low vision") and are none by themselves."""
NEUTRAL: Mapping[str, Number] = {
    **dict.fromkeys(_set("person individual someone somebody"), "singular"),
    **dict.fromkeys(_set("people persons individuals folk folks"), "plural"),
}
"""Neutral nouns: they name nobody's group, and end a phrase that does ("queer PEOPLE")."""
NOUNS = frozenset(NEUTRAL) | _set("man men woman women guy guys lady ladies")
"""Left out where a word that says more is beside them ("gay men" gives "gay" as well)."""
ALSO: Mapping[str, Number] = {
    **dict.fromkeys(_set("girl boy lady gentleman guy latino latina immigrant"), "singular"),
    **dict.fromkeys(_set("elderly disabled homosexual islamic islam judaism"), "adjective"),
}
"""Words that name groups in what models write and stand in no built-in prompt: masked, too."""
_ENDS: tuple[tuple[str, str], ...] = (
    ("woman", "women"), ("man", "men"), ("child", "children"), ("person", "people"),
    ("wife", "wives"), ("life", "lives"),
)  # fmt: skip
"""Endings whose plural has no rule."""


def number_of(term: str) -> Number:
    """What a term is by its ending; an adjective and a singular noun look alike: singular.

    >>> number_of("Black women"), number_of("Muslims"), number_of("deaf")
    ('plural', 'plural', 'singular')
    """
    word = term.casefold()
    if word.endswith(tuple(many for _, many in _ENDS)) or word in ("folk", "folks"):
        return "plural"
    return "plural" if re.search(r"[^\W\d_]{2}[^\Wsiu]s$", word) else "singular"


def plural_of(term: str) -> str:
    """The plural of a singular noun.

    >>> [plural_of(term) for term in ("trans woman", "lady", "witch", "Muslim")]
    ['trans women', 'ladies', 'witches', 'Muslims']
    """
    for one, many in _ENDS:
        if term.endswith(one) and not term.endswith(("german", "roman", "human", "ottoman")):
            return term.removesuffix(one) + many
    if re.search(r"[^aeiou]y$", term):
        return term[:-1] + "ies"
    return term + ("es" if term.endswith(("s", "x", "ch", "sh")) else "s")


def singular_of(term: str) -> str:
    """The singular of a plural noun: what `plural_of` makes it of.

    >>> [singular_of(term) for term in ("trans women", "ladies", "witches", "Muslims")]
    ['trans woman', 'lady', 'witch', 'Muslim']
    """
    for one, many in _ENDS:
        if term.endswith(many):
            return term.removesuffix(many) + one
    if term.endswith("ies") and len(term) > 4:
        return term[:-3] + "y"
    return term[:-2] if term.endswith(("sses", "xes", "ches", "shes")) else term.removesuffix("s")


def with_forms(terms: Mapping[str, Number]) -> dict[str, Number]:
    """The terms with the other number of each: plurals of singulars and adjectives, and back.

    What is given is kept as it is given.
    """
    found: dict[str, Number] = {}
    for term, number in terms.items():
        if not term[-1:].isalpha() or not term.isascii():
            continue
        if number == "plural":
            found.setdefault(singular_of(term), "singular")
        else:
            found.setdefault(plural_of(term), "plural")
    return found | dict(terms)


def as_terms(terms: Iterable[str] | Mapping[str, Number]) -> dict[str, Number]:
    """Terms with their number: as it is given, else by their ending."""
    if isinstance(terms, Mapping):
        return dict(terms)
    return {term: number_of(term) for term in terms}
