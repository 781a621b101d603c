"""The identity words of the built-in descriptors: all of them, nothing neutral, none of two."""

import re
from collections import defaultdict
from itertools import permutations

import pytest

from levelhead.data.builtin_prompts import BUILTIN_AXES, builtin_descriptors
from levelhead.data.builtin_terms import IdentityTerm, builtin_terms
from levelhead.errors import PromptError

FRAME = frozenset({"a", "an", "the", "of", "person", "people", "member", "members", "community"})
GENDERED = frozenset({"man", "men", "woman", "women"})
"""Neutral in sexual_orientation, where they name no subgroup."""
REPLACED = {"singular": "person", "plural": "people", "adjective": ""}


def masked(text, terms):
    """The text with every term replaced, the longest first."""
    replaced = {t.term.lower(): REPLACED[t.number] for t in terms}
    longest_first = sorted(replaced, key=len, reverse=True)
    rule = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.I)
    return " ".join(rule.sub(lambda found: replaced[found[0].lower()], text).split())


def named(text, terms):
    return [t.term for t in terms if masked(text, [t]) != " ".join(text.split())]


def terms_of(descriptor):
    return [
        IdentityTerm(term=term, number=number)
        for number, terms in descriptor["terms"].items()
        for term in terms
    ]


def entries(axis):
    for subgroup, own in builtin_descriptors([axis])[axis].items():
        for descriptor in own["validation"] + own["test"]:
            yield subgroup, descriptor


def test_examples():
    terms = builtin_terms(["gender_and_sex", "sexual_orientation"])
    assert tuple(terms) == ("gender_and_sex", "sexual_orientation")
    women = terms["gender_and_sex"]["women"]
    assert IdentityTerm(term="aunt", number="singular") in women
    assert IdentityTerm(term="wives", number="plural") in women
    assert IdentityTerm(term="trans", number="adjective") in terms["gender_and_sex"]["transgender"]
    lesbian = terms["sexual_orientation"]["lesbian"]
    assert {t.number for t in lesbian if t.term == "lesbian"} == {"singular", "adjective"}
    assert masked("a trans parent", terms["gender_and_sex"]["transgender"]) == "a parent"
    assert tuple(builtin_terms()) == BUILTIN_AXES
    with pytest.raises(PromptError, match="'height'"):
        builtin_terms(["height"])


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_masking_a_descriptor_leaves_no_identity_word(axis):
    of_axis = builtin_terms([axis])[axis]
    all_terms = [t for own in of_axis.values() for t in own]
    left = defaultdict(set)
    for subgroup, descriptor in entries(axis):
        own = terms_of(descriptor)
        assert set(own) <= set(of_axis[subgroup])
        for form in ("singular", "plural"):
            assert named(descriptor[form], own), descriptor
            rest = masked(descriptor[form], own)
            assert not named(rest, all_terms), descriptor
            for word in re.findall(r"[\w'-]+", rest.lower()):
                left[re.sub(r"s$", "", word)].add(subgroup)
    neutral = FRAME | (GENDERED if axis == "sexual_orientation" else set())
    # Whatever else is left is said of several subgroups ("parent"), so it names none.
    assert {word: of for word, of in left.items() if word not in neutral and len(of) < 2} == {}


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_no_term_of_a_subgroup_names_another(axis):
    of_axis = builtin_terms([axis])[axis]
    for one, other in permutations(of_axis, 2):
        for term in of_axis[other]:
            assert not named(term.term, of_axis[one]), (one, other)
    for subgroup, descriptor in entries(axis):
        for other in set(of_axis) - {subgroup}:
            assert not named(f"{descriptor['singular']} {descriptor['plural']}", of_axis[other])


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_terms_are_words_of_their_descriptors_and_none_is_neutral(axis):
    neutral = FRAME | {"parent", "cousin", "server", "neighbor", "spouse", "adult", "worker"}
    for _, descriptor in entries(axis):
        for term in terms_of(descriptor):
            assert term.term == term.term.strip() != ""
            assert term.term.lower() not in neutral
            assert not term.term.lower().startswith(("a ", "an ", "the "))
            assert term.number in REPLACED
        # A name in capitals in the phrase ("Black") has them in its terms.
        phrase = descriptor["singular"]
        assert any(term.term in phrase for term in terms_of(descriptor)), descriptor


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_nouns_have_both_numbers_where_the_descriptor_is_one(axis):
    for _, descriptor in entries(axis):
        for number in ("singular", "plural"):
            form = re.sub(r"^an? ", "", descriptor[number])
            nouns = descriptor["terms"].get(number, [])
            adjectives = descriptor["terms"].get("adjective", [])
            assert form in nouns or any(re.search(rf"\b{re.escape(a)} ", form) for a in adjectives)


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_each_pair_stands_once(axis):
    for terms in builtin_terms([axis])[axis].values():
        assert len(terms) == len(set(terms)) >= 8


def test_the_check_does_find_what_is_not_masked():
    mother = [IdentityTerm(term="mother", number="singular")]
    assert masked("a mother", mother) == "a person"
    assert masked("a godmother", mother) == "a godmother"
    assert named("a trans parent", mother) == []
