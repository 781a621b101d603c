"""The words by which prompts and texts name a group: "women", "transgender", "Native American".

They come from four places: the prompts themselves, the built-in descriptors of every axis,
HolisticBias' descriptors and nouns where its prompts are used, and a list of the user's. In matched
prompts they are the words that not all subgroups' versions of a sentence share ("young" is none in
"a young woman" beside "a young man"); other prompts are searched for their descriptor, and all for
their subgroup's name. What they are for (masking, counting mentions) is decided by the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from levelhead.data.builtin_terms import builtin_terms
from levelhead.data.identity_words import (
    FUNCTION_WORDS,
    NEUTRAL,
    NOUNS,
    NUMBERS,
    Number,
    number_of,
    with_forms,
)
from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import PromptError
from levelhead.plain_text import read_utf8
from levelhead.records import Prompt

MAX_FILE_BYTES = 5_000_000
_EDGE = re.compile(r"^\W+|\W+$")
Group = tuple[str, str]
"""(axis, subgroup)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityTerms:
    """Terms that name groups, lower-case, each with its number (singular, plural, adjective)."""

    by_group: Mapping[Group, Mapping[str, Number]] = field(default_factory=dict)
    others: Mapping[str, Number] = field(default_factory=dict)
    """Terms of a list that does not say whom they name."""

    @property
    def every(self) -> dict[str, Number]:
        """All terms, with the plurals and singulars of each; of noun and adjective, adjective."""
        found: dict[str, Number] = dict(self.others)
        for terms in self.by_group.values():
            _add(found, terms)
        return with_forms(found)

    def of(self, axis: str, subgroup: str) -> dict[str, Number]:
        """Those that name one subgroup, with their plurals and singulars."""
        return with_forms(self.by_group.get((axis, subgroup), {}))

    def joined(self, other: IdentityTerms) -> IdentityTerms:
        """The terms of both."""
        groups = [
            *self.by_group,
            *(group for group in other.by_group if group not in self.by_group),
        ]
        both = {g: {**other.by_group.get(g, {}), **self.by_group.get(g, {})} for g in groups}
        return IdentityTerms(by_group=both, others={**other.others, **self.others})


def terms_of_prompts(prompts: Sequence[Prompt]) -> IdentityTerms:
    """Every term that names a subgroup of these prompts.

    "transgender people" gives "transgender", an adjective; "women" is a plural; a neutral noun
    alone ("people") is no term.
    """
    found: dict[Group, dict[str, Number]] = {(p.axis, p.subgroup): {} for p in prompts}
    matched: set[str] = set()
    for group in matched_groups(prompts):
        matched.update(prompt.id for prompt in group)
        texts = [_words(prompt.text) for prompt in group]
        for prompt, phrases in zip(group, _differences(texts), strict=True):
            for before, phrase, after in phrases:
                found[prompt.axis, prompt.subgroup] |= dict(_term(before, phrase, after))
    for prompt in prompts:
        own = found[prompt.axis, prompt.subgroup]
        names = {prompt.subgroup} if prompt.id in matched else {prompt.subgroup, prompt.descriptor}
        for name in names:
            for term, number in _term("", _words(name), ""):
                if term not in own and _holds(prompt.text, term):
                    own[term] = number
    return IdentityTerms(by_group=found)


def terms_of_builtin(axes: Sequence[str] | None = None) -> IdentityTerms:
    """The terms of the built-in descriptors, of every axis unless some are named."""
    found: dict[Group, dict[str, Number]] = {}
    for axis, groups in builtin_terms(axes).items():
        for subgroup, terms in groups.items():
            own = found.setdefault((axis, subgroup), {})
            for one in terms:
                _add(own, {one.term.lower(): one.number})
    return IdentityTerms(by_group=found)


def read_terms(path: str | Path) -> IdentityTerms:
    """Identity words from a text file: one a line, "#" starts a comment.

    A line may say the word's number after a comma: "lesbians, plural"; "deaf, adjective".

    Raises:
        PromptError: no such file, one that is not text, larger than 5 MB, or with nothing in it;
            a number that there is not.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PromptError(
                f"--identity-terms {path} is larger than {MAX_FILE_BYTES:,} bytes: is it a list?"
            )
        held = path.read_bytes()
    except (OSError, ValueError) as error:
        raise PromptError(f"cannot read --identity-terms {path}: {error}") from error
    lines = read_utf8(held, f"--identity-terms {path}", PromptError).splitlines()
    terms: dict[str, Number] = {}
    for place, line in enumerate(lines, 1):
        content, _, said = (part.strip() for part in line.partition("#")[0].rpartition(","))
        term, number = (content, said.lower()) if content else (said, "")
        if not term:
            continue
        if number and number not in NUMBERS:
            raise PromptError(
                f"--identity-terms {path}, line {place}: {said!r} is none of {', '.join(NUMBERS)}; "
                "write one word or phrase a line, such as: lesbians, plural"
            )
        known = next((one for one in NUMBERS if one == number), None)
        terms[term.lower()] = known or number_of(term)
    if not terms:
        raise PromptError(
            f"--identity-terms {path} holds no identity words; write one a line, or leave it out"
        )
    return IdentityTerms(others=terms)


def _add(found: dict[str, Number], terms: Mapping[str, Number]) -> None:
    """Terms that are new; what is noun and adjective ("lesbian") stands as the adjective.

    What replaces an adjective ("human") fits where a noun stands, and not the other way round.
    """
    for term, number in terms.items():
        if number == "adjective" or term not in found:
            found[term] = number


def _holds(text: str, term: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(term)}(?!\w)", text.lower()) is not None


def _words(text: str) -> list[str]:
    return [word for word in (_EDGE.sub("", word) for word in text.lower().split()) if word]


def _differences(texts: Sequence[list[str]]) -> Iterator[list[tuple[str, list[str], str]]]:
    """Of each text, runs of words that not every text has: (word before, run, word after)."""
    shared = set.intersection(*map(set, texts))
    for text in texts:
        found, place = [], 0
        for same, run in groupby(text, shared.__contains__):
            words = list(run)
            end = place + len(words)
            if not same:
                before = text[place - 1] if place else ""
                found.append((before, words, text[end] if end < len(text) else ""))
            place = end
        yield found


def _term(before: str, phrase: Sequence[str], after: str) -> Iterator[tuple[str, Number]]:
    """The phrase without what frames it, and without a noun that says less than the rest.

    "a transgender person": "transgender", an adjective. "gay men": that and "gay". "women": itself.
    """
    words = _stripped(phrase, FUNCTION_WORDS)
    core = _stripped(phrase, FUNCTION_WORDS | NOUNS)
    if core:
        end = phrase.index(core[-1]) + 1
        follows = phrase[end] if end < len(phrase) else after
        start = phrase.index(core[0])
        leads = phrase[start - 1] if start else before
        yield " ".join(core), _number(core, leads, follows)
    if words and words != core and " ".join(words) not in NEUTRAL:
        last = words[-1]
        if last not in NEUTRAL:
            yield " ".join(words), number_of(last)


def _number(core: Sequence[str], leads: str, follows: str) -> Number:
    if follows in NOUNS:
        return "adjective"
    if number_of(core[-1]) == "plural":
        return "plural"
    return "singular" if leads in ("a", "an") else "adjective"


def _stripped(words: Sequence[str], frame: frozenset[str]) -> Sequence[str]:
    inside = [i for i, word in enumerate(words) if word not in frame]
    return words[inside[0] : inside[-1] + 1] if inside else []
