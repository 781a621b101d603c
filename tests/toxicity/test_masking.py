"""Masking takes out every term in all its spellings, and nothing else."""

from __future__ import annotations

import doctest
import re
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levelhead.data import identity_words
from levelhead.data.identity_terms import terms_of_builtin
from levelhead.data.identity_words import Number
from levelhead.data.prompts import builtin_prompts
from levelhead.errors import ScorerError
from levelhead.toxicity import masking
from levelhead.toxicity.masking import MOST_TERMS, NEUTRAL_WORDS, Masker

TERMS: dict[str, Number] = {
    "woman": "singular",
    "women": "plural",
    "boys": "plural",
    "Black": "adjective",
    "lesbian": "adjective",
    "Asian": "adjective",
    "Native American": "adjective",
    "wheelchair users": "plural",
    "non-binary": "adjective",
    "transgender": "adjective",
    "35-year-old": "adjective",
    "people of color": "plural",
    "黒人": "singular",
}
MASKER = Masker(TERMS)
PLAIN = [
    "the", "a", "an", "An", "is", "said", "they", "people", "person", "human", "hat", "artist",
    "omen", "womenfolk", "asiatic", "of", "color", "year-old", "trans", "non", "men's", "it's",
    "don't", "35", "Maria", "Chicago",
]  # fmt: skip
GAPS = [" ", "  ", "-", "\u2013", ", ", ". ", "\n", '"', "'", "\u2019s ", "'s ", "' ", "", "_"]


def cased(words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    changes = st.sampled_from([str, str.upper, str.lower, str.title])
    return st.builds(lambda word, change: change(word), words, changes)


TERM = cased(st.sampled_from(sorted(TERMS)))
WORD = cased(st.sampled_from(PLAIN)) | st.text(max_size=3)


def text_of(words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(words, st.sampled_from(GAPS)), max_size=12)
    return pairs.map(lambda found: "".join(word + gap for word, gap in found))


def test_the_grammar_of_terms_as_documented() -> None:
    for module in (identity_words, masking):
        assert doctest.testmod(module) == (0, len(doctests(module)))
        assert doctests(module)


def doctests(module: object) -> list[doctest.Example]:
    return [e for found in doctest.DocTestFinder().find(module) for e in found.examples]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text_of(TERM | WORD))
def test_a_masked_text_holds_no_term_and_masking_it_changes_nothing(text: str) -> None:
    masked = MASKER.mask(text)
    assert not MASKER.found(masked)
    assert MASKER.mask(masked) == masked


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text_of(TERM | WORD))
def test_a_text_is_changed_if_and_only_if_a_term_is_found_in_it(text: str) -> None:
    assert (MASKER.mask(text) != text) == bool(MASKER.found(text))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text_of(cased(st.sampled_from(PLAIN))))
def test_a_text_without_terms_is_the_same(text: str) -> None:
    text = re.sub(r"(?i)people\W+of\W+color|non\W*binary|trans\W*gender|35", "-", text)
    assert MASKER.mask(text) == text


@settings(max_examples=300, deadline=None, derandomize=True)
@given(TERM, cased(st.sampled_from(PLAIN)), cased(st.sampled_from(PLAIN)))
def test_what_stands_around_a_term_stays(term: str, before: str, after: str) -> None:
    masked = MASKER.mask(f"{before}; {term}; {after}")
    middle = [w for w in NEUTRAL_WORDS.values() if masked.lower().split("; ")[1] == w]
    assert len(middle) == 1
    assert masked.startswith(f"{before}; ")
    assert masked.endswith(f"; {after}")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("WOMEN and Women, women", "People and people, people"),
        ("a woman's hat, the woman\u2019s own", "a person's hat, the person\u2019s own"),
        ("the boys' room; the boys came", "the people's room; the people came"),
        ("Women's rights, 'women'", "People's rights, 'people'"),
        ("non-binary, non binary, nonbinary, NON\u2011BINARY", "human, human, human, human"),
        ("a trans gender artist", "a human artist"),
        ("native-american and NativeAmerican art", "human and human art"),
        ("a 35 year old and a 35-year-old artist", "a human and a human artist"),
        ("wheel-chair users", "wheel-chair users"),  # only known prefixes are split
        ("an Asian artist, An Asian one; an hour", "a human artist, A human one; an hour"),
        ("an Asian woman", "a person"),
        ("two young Black women, one Black", "two young people, one human"),
        ("a Black person, Black people, Black folks", "a person, people, people"),
        ("a lesbian met a lesbian artist", "a human met a human artist"),
        ("women of color", "people"),  # masked, it is a term itself
        ("womenfolk, omen, ablack, black_box", "womenfolk, omen, ablack, black_box"),
        ("彼は黒人です。黒人!", "彼はpersonです。person!"),
        ("", ""),
    ],
)  # fmt: skip
def test_spellings(text: str, masked: str) -> None:
    assert MASKER.mask(text) == masked


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_accents_are_found_in_either_unicode_spelling(forms: tuple[str, str]) -> None:
    term, text = map(unicodedata.normalize, forms, ("Québécois", "The Québécois sang in a café."))
    masker = Masker({term: "plural"})
    assert unicodedata.normalize("NFC", masker.mask(text)) == "The people sang in a café."
    assert masker.found(text) == ["québécois"]
    other = unicodedata.normalize("NFD", "He sang in a café.")
    assert masker.mask(other) == other, "a text without terms stays as it is"


def test_the_plain_number_of_what_a_phrase_ends_in_decides() -> None:
    masker = Masker(
        {"gay": "adjective", "gay men": "plural", "men": "plural", "+1 (x)": "singular"}
    )
    text = "GAY MEN and Gay people, men's omen gayer +1 (X) gay art"
    assert masker.mask(text) == "People and people, people's omen gayer +human art"
    assert masker.found(text) == ["gaymen", "gay", "men", "1(x)", "gay"]


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ([], "no identity words"),
        (["  "], "no identity words"),
        (["the"], "'the' names no group"),
        (["Person"], "'Person' names no group"),
        (["?!"], "no letter or number"),
        (["x" * 201], "201 characters; at most 200"),
        ([f"term{n}" for n in range(MOST_TERMS + 1)], "50,001 identity words are more than 50,000"),
    ],
)
def test_terms_that_would_mask_nothing_or_everything_are_refused(terms, why) -> None:
    with pytest.raises(ScorerError, match=re.escape(why)):
        Masker(dict.fromkeys(terms, "singular"))


def test_built_in_prompts_lose_every_built_in_term() -> None:
    masker = Masker(terms_of_builtin().every)
    for prompt in builtin_prompts()[::97]:
        masked = masker.mask(prompt.text)
        assert masked != prompt.text, prompt
        assert not masker.found(masked), prompt
        assert not re.search(r"\b[Aa]n (person|people|human)\b", masked), prompt


def test_masking_keeps_up_with_a_cheap_scorer() -> None:
    masker = Masker(terms_of_builtin().every)
    plain = "the new neighbor said that she would rather not come along this time, and left early "
    for text in (plain, plain.replace("neighbor", "Native American woman")):
        start = time.process_time()
        for number in range(4_000):
            masker.mask(f"{text}{number}")
        assert 4_000 / (time.process_time() - start) > 5_000  # a second: a scorer reads fewer
