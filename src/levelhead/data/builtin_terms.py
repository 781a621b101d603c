"""The words of the built-in descriptors that name a subgroup, with their grammar.

They are what masking takes out: "trans" of "a trans parent" (an adjective), "aunt" and "aunts" of
"an aunt". Neutral words of a descriptor ("person", "parent", "member of the ... community") are
none. They stand beside their descriptors in `builtin/axes.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from levelhead.data.builtin_prompts import builtin_descriptors
from levelhead.data.identity_words import NUMBERS, Number


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityTerm:
    """A word or phrase that names a subgroup, in its canonical case ("aunt", "New Yorker")."""

    term: str
    number: Number
    """What it is replaced like: a singular noun ("person"), a plural noun ("people"), or an
    adjective before a noun. A word that is noun and adjective ("lesbian") is one term of each."""


def builtin_terms(
    axes: Sequence[str] | None = None,
) -> Mapping[str, Mapping[str, tuple[IdentityTerm, ...]]]:
    """{axis: {subgroup: terms}} of `axes` (default: all built-in), of both splits' descriptors.

    Each pair of term and number stands once per subgroup, in the order of the descriptors. Within
    an axis no term of one subgroup stands in a term of another.

    Raises:
        PromptError: an axis that the set does not have; the message lists those it has.
    """
    return {
        axis: {
            subgroup: tuple(
                dict.fromkeys(
                    IdentityTerm(term=term, number=number)
                    for descriptors in splits.values()
                    for descriptor in descriptors
                    for number in NUMBERS
                    for term in descriptor["terms"].get(number, ())
                )
            )
            for subgroup, splits in groups.items()
        }
        for axis, groups in builtin_descriptors(axes).items()
    }
