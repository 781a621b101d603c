"""Which words name a group: those of the prompts, of the built-in descriptors, and of a list."""

from __future__ import annotations

from pathlib import Path

import pytest

from levelhead.data import identity_terms
from levelhead.data.builtin_terms import builtin_terms
from levelhead.data.identity_terms import (
    IdentityTerms,
    read_terms,
    terms_of_builtin,
    terms_of_prompts,
)
from levelhead.data.prompts import builtin_prompts
from levelhead.errors import PromptError
from levelhead.records import Prompt


def prompt(text: str, subgroup: str, descriptor: str, template: str) -> Prompt:
    return Prompt(
        id=f"{subgroup}/{template}", text=text, axis="a", subgroup=subgroup, descriptor=descriptor,
        template=template, split="validation",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("axis", "some", "none"),
    [
        (
            "gender_and_sex",
            {"women", "woman", "aunts", "men", "transgender", "queer", "wives"},
            {"young", "parent", "person"},
        ),
        (
            "race_ethnicity",
            {"native american", "black", "jamaicans", "cherokee"},
            {"person", "parent", "a", "community"},
        ),
        ("nationality", {"american", "mexican", "chinese", "texans"}, {"resident", "the"}),
        ("ability", {"wheelchair user", "wheelchair users", "deaf"}, {"people", "parent"}),
        ("age", {"older", "35-year-old", "35-year-olds"}, {"neighbor", "because"}),
        ("sexual_orientation", {"gay", "lesbian", "lesbians", "bisexual"}, {"artist", "couple"}),
        ("religion", {"jewish", "muslim", "muslims", "atheist", "catholics"}, {"friend", "our"}),
    ],
)
def test_terms_of_the_built_in_descriptors(axis: str, some: set[str], none: set[str]) -> None:
    every = terms_of_builtin([axis]).every
    assert some <= set(every)
    assert not none & set(every)
    assert max(len(term.split()) for term in every) <= 4, "a piece of a template"


def test_every_axis_is_masked_whichever_is_measured() -> None:
    every = terms_of_builtin().every
    of_axes = [terms_of_builtin([axis]).every for axis in builtin_terms()]
    assert set(every) == set().union(*of_axes)
    assert {"native american", "women", "wheelchair users"} <= set(every)


def test_a_word_that_is_noun_and_adjective_is_the_adjective_wherever_it_stands() -> None:
    both = {
        one.term.lower()
        for groups in builtin_terms().values()
        for terms in groups.values()
        for one in terms
        if one.number == "adjective"
    }
    every = terms_of_builtin().every
    assert {"lesbian", "christian", "female"} <= both
    assert {every[term] for term in both} == {"adjective"}
    assert (every["lesbians"], every["aunt"], every["aunts"]) == ("plural", "singular", "plural")
    listed = IdentityTerms(others={"lesbian": "singular"}).joined(terms_of_builtin())
    assert listed.every["lesbian"] == "adjective"


def test_terms_know_whom_they_name() -> None:
    terms = terms_of_builtin()
    women, men = terms.of("gender_and_sex", "women"), terms.of("gender_and_sex", "men")
    assert {"woman", "women", "aunt", "aunts"} <= set(women)
    assert not set(women) & set(men)
    assert terms.of("gender_and_sex", "nobody") == {}


def test_terms_of_matched_prompts_are_what_differs() -> None:
    terms = terms_of_prompts(
        [
            prompt("I met a young transgender person at work", "trans", "trans", "t0"),
            prompt("I met a young woman at work", "women", "women", "t0"),
            prompt("I met a young gay man at work", "gay", "gay", "t0"),
            prompt("All lesbians say", "women", "lesbians", "t1"),
            prompt("All men say", "gay", "men", "t1"),
            prompt("All enbies say", "trans", "enbies", "t1"),
        ]
    )
    assert terms.of("a", "trans")["transgender"] == "adjective"
    assert terms.of("a", "women") == {
        "woman": "singular",
        "women": "plural",
        "lesbian": "singular",
        "lesbians": "plural",
    }
    assert {"gay", "gay man"} <= set(terms.of("a", "gay"))
    assert terms.every["lesbians"] == "plural"
    assert not {"young", "person", "work", "a", "i"} & set(terms.every)


def test_terms_of_prompts_that_are_not_matched_are_their_descriptors() -> None:
    terms = terms_of_prompts(
        [
            prompt("My Deaf neighbor came", "deaf", "Deaf", "row 0"),
            prompt("I met a blind woman.", "bucket-2", "blind", "row 1"),
            prompt("Nobody came", "sighted", "sighted", "row 2"),
        ]
    )
    assert set(terms.every) == {"blind", "deaf", "blinds", "deafs"}
    assert terms.by_group["a", "sighted"] == {}  # its name is nowhere in the text


def test_terms_of_the_built_in_prompts_are_mostly_the_built_in_terms() -> None:
    """The two ways agree, so prompts of a user's are read as the built-in ones would be."""
    known = terms_of_builtin(["gender_and_sex"]).every
    prompts = [p for p in builtin_prompts(["gender_and_sex"]) if p.split == "test"]
    found = terms_of_prompts(prompts).every
    assert len(set(found) & set(known)) > 0.5 * len(found)


@pytest.mark.parametrize(
    ("content", "terms"),
    [
        ("redhead\nlesbians, plural\n", {"redhead": "singular", "lesbians": "plural"}),
        ("# ours\nRed-haired, Adjective # a comment\n\n", {"red-haired": "adjective"}),
        ("\ufeffredheads\r\n", {"redheads": "plural"}),
        ("people of Ourtown, plural", {"people of ourtown": "plural"}),
    ],
)
def test_a_list_of_terms(content: str, terms: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_text(content, encoding="utf-8")
    assert read_terms(path).others == terms
    assert set(terms) <= set(read_terms(path).every)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no identity words"),
        (b"\n# a comment\n  \n", "holds no identity words"),
        (b"redhead\nqueer, nouns", "line 2: 'nouns' is none of singular, plural, adjective"),
        (b"\xff\xfe\x00", "terms.txt is not UTF-8: .* looks like UTF-16"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=why):
        read_terms(path)


def test_a_list_that_is_missing_or_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PromptError, match="cannot read"):
        read_terms(tmp_path / "none.txt")
    monkeypatch.setattr(identity_terms, "MAX_FILE_BYTES", 10)
    (tmp_path / "terms.txt").write_text("redheads\nfair people\n")
    with pytest.raises(PromptError, match="larger than 10 bytes"):
        read_terms(tmp_path / "terms.txt")
