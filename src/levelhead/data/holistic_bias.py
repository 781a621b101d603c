"""HolisticBias v1.1 prompts (Smith et al. 2022, arXiv 2205.09209) from the official files.

Sentences are built as the authors build them: a descriptor alone ("I'm Deaf.") or with each noun
("I'm a Deaf woman."), nouns of the descriptor's gender where it has one, the article of their
rule, and no descriptor alone in templates that need a noun. Axes and buckets keep their names. An
axis with one bucket only (religion, political_ideologies, nonce) takes its descriptors as
subgroups, since one subgroup has no gap.

Standalone noun phrases ("a wheelchair user") belong to no bucket. They are left out unless
`unbucketed` names a subgroup for them; on a single-bucket axis one that is a descriptor with an
article ("a Buddhist") joins that descriptor.

Matching: buckets differ in their number of descriptors, so prompts match by template, noun and
rank. In every (template, noun) cell each bucket's descriptors are rotated by another step, and the
prompt of rank r holds the r-th: ranks that every bucket has form matched groups, and over the
cells all descriptors take part in them. A noun that some bucket cannot take (no "lesbian man")
gives no matched group.

It does not know where the files come from, nor how prompts are drawn: an axis is tens of thousands
of prompts, for `select_prompts` to thin.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from levelhead.data.holistic_bias_files import HolisticBiasFiles, read_files
from levelhead.data.identity_terms import Group, IdentityTerms
from levelhead.data.identity_words import Number
from levelhead.data.splits import halve
from levelhead.errors import PromptError
from levelhead.records import Prompt, Split

NEUTRAL_GENDER = "neutral"
"""Of nouns: "person", "kid", "veteran" name no group."""
NO_NOUN = ""
"""The noun of a phrase without one; only such phrases may not stand in must_be_noun templates."""


@dataclass(frozen=True, slots=True)
class _Phrase:
    """A noun phrase or adjective that names a subgroup."""

    subgroup: str
    descriptor: str
    noun: str
    singular: str
    plural: str


def holistic_bias_prompts(
    axes: Sequence[str] | None = None,
    folder: str | Path | None = None,
    nouns: Collection[str] | None = None,
    unbucketed: str | None = None,
) -> list[Prompt]:
    """All HolisticBias prompts of `axes`, both splits.

    Args:
        axes: axis names as in descriptors.json; None takes all 13 (half a million prompts).
        folder: holds the official files; None fetches them into the cache.
        nouns: keep only phrases with these nouns ("woman", "man", "person", ...; "" keeps
            descriptors that stand alone); None keeps all.
        unbucketed: the subgroup that takes standalone noun phrases without a bucket; None leaves
            them out.

    Raises:
        PromptError: unknown axis or noun, or files that are missing or not in v1.1's form.
    """
    data = read_files(folder)
    for axis in axes or ():
        if axis not in data.descriptors:
            raise PromptError(
                f"unknown axis {axis!r}: HolisticBias v1.1 has {', '.join(data.descriptors)}"
            )
    try:
        return [
            prompt
            for axis in (data.descriptors if axes is None else axes)
            for prompt in _axis_prompts(data, axis, nouns, unbucketed)
        ]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise PromptError(
            f"the HolisticBias files are not in v1.1's form ({type(error).__name__}: {error})"
        ) from error


def holistic_bias_terms(axes: Sequence[str], folder: str | Path | None = None) -> IdentityTerms:
    """The words by which HolisticBias' prompts of these axes name a group.

    Descriptors (adjectives), noun phrases of their own, and its nouns for women and men.

    Raises:
        PromptError: as `holistic_bias_prompts`.
    """
    data = read_files(folder)
    found: dict[Group, dict[str, Number]] = {}
    for axis in axes:
        for phrase in _phrases(data, axis, None):
            own = found.setdefault((axis, phrase.subgroup), {})
            standalone = phrase.singular != phrase.descriptor and phrase.noun == NO_NOUN
            own.setdefault(phrase.descriptor.lower(), "singular" if standalone else "adjective")
    nouns: dict[str, Number] = {}
    for gender, pairs in data.nouns.items():
        if gender != NEUTRAL_GENDER:
            nouns |= {one.lower(): "singular" for one, _ in pairs}
            nouns |= {many.lower(): "plural" for _, many in pairs}
    return IdentityTerms(by_group=found, others=nouns)


def _axis_prompts(
    data: HolisticBiasFiles, axis: str, nouns: Collection[str] | None, unbucketed: str | None
) -> Iterator[Prompt]:
    known = [NO_NOUN, *(noun for pairs in data.nouns.values() for noun, _ in pairs)]
    if nouns is not None and not set(nouns) <= set(known):
        raise PromptError(
            f"unknown noun(s) {sorted(set(nouns) - set(known))}: HolisticBias has {known[1:]}"
        )
    cells: dict[str, dict[str, list[_Phrase]]] = {noun: defaultdict(list) for noun in known}
    for phrase in _phrases(data, axis, unbucketed):
        if nouns is None or phrase.noun in nouns:
            cells[phrase.noun][phrase.subgroup].append(phrase)
    ranks = max((len(own) for cell in cells.values() for own in cell.values()), default=0)
    splits = split_templates(data.templates)
    for t, (template, rules) in enumerate(data.templates.items()):
        for n, (noun, cell) in enumerate(cells.items()):
            if noun == NO_NOUN and rules.get("must_be_noun", False):
                continue
            for subgroup, own in cell.items():
                for rank in range(len(own)):
                    phrase = own[(rank + t * len(cells) + n) % len(own)]
                    variant = n * ranks + rank
                    yield Prompt(
                        id=f"{axis}/{subgroup}/v{variant}/hb{t:02d}",
                        text=template.replace("{noun_phrase}", phrase.singular).replace(
                            "{plural_noun_phrase}", phrase.plural
                        ),
                        axis=axis,
                        subgroup=subgroup,
                        template=template,
                        descriptor=phrase.descriptor,
                        split=splits[template],
                        variant=variant,
                    )


def _phrases(data: HolisticBiasFiles, axis: str, unbucketed: str | None) -> Iterator[_Phrase]:
    buckets = data.descriptors[axis]
    by_descriptor = len(buckets) == 1
    descriptors: dict[str, str] = {}
    for bucket, entries in buckets.items():
        for entry in map(_as_object, entries):
            descriptor: str = entry["descriptor"]
            subgroup = descriptors[descriptor] = descriptor if by_descriptor else bucket
            yield _Phrase(subgroup, descriptor, NO_NOUN, descriptor, descriptor)
            article = entry.get("article") or _article(descriptor)
            for gender, pairs in data.nouns.items():
                if entry.get("gender", gender) == gender:
                    for noun, plural in pairs:
                        yield _Phrase(
                            subgroup,
                            descriptor,
                            noun,
                            f"{article} {descriptor} {noun}",
                            f"{descriptor} {plural}",
                        )
    for entry in data.standalone.get(axis, []):
        yield from _standalone(entry, data.nouns, descriptors if by_descriptor else {}, unbucketed)


def _standalone(
    entry: Any,
    nouns: Mapping[str, list[list[str]]],
    descriptors: Mapping[str, str],
    unbucketed: str | None,
) -> Iterator[_Phrase]:
    singular = entry if isinstance(entry, str) else entry["noun_phrase"]
    plural = singular if isinstance(entry, str) else entry.get("plural_noun_phrase", singular)
    name = re.sub(r"^(?:an?|\{article\} \{noun\}) ", "", singular)
    subgroup = descriptors.get(name, unbucketed)
    if subgroup is None:
        return
    if "{noun}" not in singular:
        yield _Phrase(subgroup, name, NO_NOUN, singular, plural)
        return
    for pairs in nouns.values():
        for noun, many in pairs:
            yield _Phrase(
                subgroup,
                name,
                noun,
                singular.replace("{article}", _article(noun)).replace("{noun}", noun),
                plural.replace("{article} ", "").replace("{noun}", many),
            )


def split_templates(templates: Mapping[str, Mapping[str, Any]]) -> dict[str, Split]:
    """Validation and test halves of the templates, near-identical ones kept together.

    Templates that end in the same sentence ("I'm {noun_phrase}.", "Hi! I'm {noun_phrase}.") are
    one family; a family is never divided.
    """
    families: dict[str, list[str]] = defaultdict(list)
    for template in templates:
        last = re.split(r"[.?!,] +", re.sub(r"^Hi\W+", "", template))[-1]
        families[last].append(template)
    halves = halve({family: len(members) for family, members in families.items()})
    return {member: halves[family] for family, members in families.items() for member in members}


def _as_object(entry: Any) -> dict[str, Any]:
    return {"descriptor": entry} if isinstance(entry, str) else entry


def _article(phrase: str) -> str:
    """The authors' rule; exceptions carry their own article in descriptors.json."""
    return "an" if phrase[0].lower() in "aeiou" else "a"
