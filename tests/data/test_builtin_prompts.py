"""The built-in prompt set: its size, its splits, its grammar, and that its groups are matched."""

import json
import re
from collections import Counter
from difflib import SequenceMatcher
from importlib.resources import files
from itertools import product

import pytest

from levelhead.data.builtin_prompts import builtin_descriptors
from levelhead.data.builtin_terms import builtin_terms
from levelhead.data.prompts import BUILTIN_AXES, builtin_prompts, load_prompts, matched_groups
from levelhead.errors import PromptError

PROMPTS = builtin_prompts()
SPLITS = ("validation", "test")
REGISTERS = {
    "introductions", "work", "dialogue", "news", "questions", "stories", "posts", "reference",
}  # fmt: skip
TEMPLATES = json.loads(
    (files("levelhead.data") / "builtin" / "templates.json").read_text(encoding="utf-8")
)
NEUTRAL = frozenset(
    {"a", "an", "the", "of", "person", "people", "member", "members", "community", "someone"}
)
GENDERED = frozenset({"man", "men", "woman", "women"})
"""Neutral too, in an axis where they name no subgroup."""


def of(axis, split=None):
    return [p for p in PROMPTS if p.axis == axis and split in (None, p.split)]


def words(text):
    """Lower-case words of a text, parts of hyphenated ones each."""
    return re.findall(r"[^\W_]+", text.lower())


def test_axes_are_those_of_the_data_file():
    path = files("levelhead.data") / "builtin" / "axes.json"
    assert tuple(json.loads(path.read_text(encoding="utf-8"))) == BUILTIN_AXES
    assert {p.axis for p in PROMPTS} == set(BUILTIN_AXES)


@pytest.mark.parametrize("axis", BUILTIN_AXES)
@pytest.mark.parametrize("split", SPLITS)
def test_every_axis_is_large_enough_and_balanced(axis, split):
    prompts = of(axis, split)
    assert len({p.template for p in prompts}) >= 40
    counts = Counter(p.subgroup for p in prompts)
    assert len(counts) >= 4
    assert len(set(counts.values())) == 1
    for subgroup in counts:
        own = [p for p in prompts if p.subgroup == subgroup]
        assert len({p.descriptor for p in own}) >= 4
        assert len({p.variant for p in own}) == len({p.descriptor for p in own})
        assert len(own) == len({(p.template, p.variant) for p in own})


def shares_a_word(one, other):
    """Whether two words are one to a reader: the same, one in the other, or the same stem."""
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) > 3 and short in long) or short[:5] == long[:5]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("trans", "transgender", True),
        ("retired", "retiree", True),
        ("sexual", "bisexual", True),
        ("aunt", "uncle", False),
        ("heterosexual", "straight", False),
        ("man", "woman", False),
    ],
)
def test_what_counts_as_the_same_word(one, other, same):
    assert shares_a_word(one, other) == same


def content_words(axis, descriptors):
    neutral = NEUTRAL | (GENDERED if axis == "sexual_orientation" else set())
    return {w for d in descriptors for w in words(f"{d['singular']} {d['plural']}")} - neutral


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_splits_share_no_template_and_no_word_of_a_subgroup(axis):
    validation, test = of(axis, "validation"), of(axis, "test")
    assert not {p.template for p in validation} & {p.template for p in test}
    assert not {p.variant for p in validation} & {p.variant for p in test}
    for subgroup, own in builtin_descriptors([axis])[axis].items():
        pairs = product(*(content_words(axis, own[split]) for split in SPLITS))
        assert not [pair for pair in pairs if shares_a_word(*pair)], subgroup


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_the_descriptors_of_a_split_are_words_of_their_own(axis):
    for subgroup, own in builtin_descriptors([axis])[axis].items():
        for split in SPLITS:
            names = [
                {w for term in d["terms"].values() for t in term for w in words(t)}
                for d in own[split]
            ]
            twice = [w for w, n in Counter(w for name in names for w in name).items() if n > 1]
            # Parts of compounds ("opposite-sex-attracted") may come again, whole names not.
            assert all(name - set(twice) for name in names), (subgroup, split, twice)


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_the_descriptors_of_a_variant_are_alike_in_grammar(axis):
    for group in matched_groups(of(axis)):
        kinds = [p.descriptor.startswith("a member of the ") for p in group]
        assert sum(kinds) in {0, *range(len(kinds) - 2, len(kinds) + 1)}
        length = [len(p.descriptor.split()) for p in group]
        assert max(length) - min(length) <= (4 if any(kinds) else 2)


def test_template_texts_differ_and_splits_are_alike_in_registers_and_tones():
    texts = [" ".join(words(t["text"])) for t in TEMPLATES]
    assert len(set(texts)) == len(texts)
    of_split = [
        Counter((t["register"], t["tone"]) for t in TEMPLATES if t["split"] == split)
        for split in SPLITS
    ]
    assert of_split[0] == of_split[1]
    assert len(set(of_split[0].values())) == 1
    assert set(of_split[0]) == set(product(REGISTERS, ("neutral", "loaded")))
    register = {t["id"]: t["register"] for t in TEMPLATES}
    assert all(p.register == register[p.template] for p in PROMPTS)


def test_no_template_of_one_split_is_nearly_one_of_the_other():
    def alike(one, other):
        return SequenceMatcher(None, words(one), words(other), autojunk=False).ratio()

    assert alike("The sign said that {plural} are", "The graffiti said that {plural} are") > 0.55
    parts = [[t["text"] for t in TEMPLATES if t["split"] == split] for split in SPLITS]
    assert {pair: a for pair in product(*parts) if (a := alike(*pair)) > 0.55} == {}


def test_no_template_has_an_identity_word_of_its_own():
    terms = {t.term for groups in builtin_terms().values() for own in groups.values() for t in own}
    rule = re.compile(rf"\b(?:{'|'.join(map(re.escape, terms))})\b", re.IGNORECASE)
    assert {t["text"]: found for t in TEMPLATES if (found := rule.findall(t["text"]))} == {}


def test_ids_and_texts_are_unique_and_ids_stable():
    assert len({p.id for p in PROMPTS}) == len(PROMPTS)
    assert len({(p.axis, p.text) for p in PROMPTS}) == len(PROMPTS)
    assert [t["id"] for t in TEMPLATES] == [f"t{n:03d}" for n in range(1, len(TEMPLATES) + 1)]
    assert PROMPTS[0].id == "gender_and_sex/women/v0/t001"
    assert max(len(p.id) for p in PROMPTS) < 60


def test_each_is_its_template_with_its_descriptor():
    text = {t["id"]: t["text"] for t in TEMPLATES}
    known = builtin_descriptors()
    for prompt in PROMPTS:
        own = known[prompt.axis][prompt.subgroup]
        forms = (own["validation"] + own["test"])[prompt.variant]
        assert forms["singular"] == prompt.descriptor
        assert forms in own[prompt.split]
        assert prompt.text == text[prompt.template].format(**forms)
    assert {t["text"].count("{") for t in TEMPLATES} == {1}


def grammar_problems(text):
    """What is wrong with the form of a prompt, if anything."""
    rules = {
        "ends a sentence or trails off": r"[.?!\s]$",
        "double space": r"  ",
        "open slot": r"[{}]",
        "repeated word": r"\b(\w+) \1\b",
        "two articles": r"\b(?:a|an|the) (?:a|an|the)\b",
        # Capitals alone are said letter by letter: "an FTM person", "a WLW neighbor".
        "a before a vowel": r"\b[Aa] (?=[aeioAEIO](?!uropean)|[AEFHILMNORSX][A-Z]{2})",
        "an before a consonant": r"\b[Aa]n (?![aeiouAEIOUh]|[AEFHILMNORSX][A-Z]{2})",
        "plural after an article": r"\b[Aa]n? \w+ (?:women|men|people)\b",
        "number word before a singular": r"\b(?:many|most|[Ss]everal|three|more) an? ",
        "no capital at the start": r"^\"?[a-z]",
    }
    return [name for name, rule in rules.items() if re.search(rule, text)]


def test_grammar_of_all_prompts():
    assert {p.text: found for p in PROMPTS if (found := grammar_problems(p.text))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "I met a Asian man who",
        "I met an woman who",
        "I met a FTM person who",
        "I met an WLW neighbor who",
        "I met a a woman who",
        "I met  a woman who",
        "I met a woman.",
        "I met a woman ",
        "I met a {singular} who",
        "I met a young women who",
        "i met a woman who",
        "Several a woman joined",
    ],
)
def test_the_grammar_rules_do_find_mistakes(text):
    assert grammar_problems(text)


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_singular_and_plural_are_forms_of_one_phrase(axis):
    nouns = {"person": "people", "man": "men", "woman": "women", "wife": "wives"}
    for own in builtin_descriptors([axis])[axis].values():
        for forms in own["validation"] + own["test"]:
            singular = re.sub(r"^an? ", "", forms["singular"])
            assert singular != forms["singular"]
            inside = singular.startswith(("member of", "fully mobile member", "sure-footed member"))
            before, noun, after = re.fullmatch(
                r"(.*?)(\bmember\b)( of the.*)" if inside else r"(.*?)(\w+)()", singular
            ).groups()
            ending = "es" if noun.endswith("ss") else "s"
            assert forms["plural"] == before + nouns.get(noun, noun + ending) + after


def test_plural_slots_take_plural_verbs_and_singular_ones_singular():
    rules = (
        r"(?:^|that|because|only|are|do|will|can) \{plural\} (?:is|was|has|does|\w+[^su]s)\b",
        r"\{singular\},? (?:are|were|have|do)\b",
        r"\{plural\} who (?:is|was|has|does)\b",
        r"\b[Aa]n? \{|\b(?:many|ten|these|those) \{singular\}",
    )
    assert re.search(rules[0], "He says that {plural} ruins")
    for template in TEMPLATES:
        assert not [rule for rule in rules if re.search(rule, template["text"])], template


def test_prompts_are_short_and_of_varied_length():
    lengths = [len(re.findall(r"\w+|[^\w\s]", p.text)) for p in PROMPTS]
    assert max(lengths) <= 30
    assert min(lengths) <= 5
    assert max(lengths) - min(lengths) >= 10


def test_the_descriptor_stands_neither_always_at_the_end_nor_always_at_the_start():
    after = [len(t["text"].split("}")[1].split()) for t in TEMPLATES]
    assert min(after) <= 1
    assert max(after) >= 5


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_prompts_form_matched_groups_without_remainder(axis):
    groups = matched_groups(of(axis))
    subgroups = {p.subgroup for p in of(axis)}
    assert sum(map(len, groups)) == len(of(axis))
    text = {t["id"]: t["text"] for t in TEMPLATES}
    for group in groups:
        assert {p.subgroup for p in group} == subgroups
        before, *_, after = re.split(r"\{\w+\}", text[group[0].template])
        for prompt in group:
            assert prompt.text.startswith(before)
            assert prompt.text.endswith(after)


def test_no_pronoun_after_the_slot_gives_a_gender():
    for template in TEMPLATES:
        after = template["text"].split("}", 1)[1]
        assert not re.search(r"\b(?:he|she|him|her|his|hers)\b", after), template


def test_load_prompts_takes_axes_in_order_and_each_once():
    prompts = load_prompts("builtin", ["religion", "age", "religion"])
    assert list(dict.fromkeys(p.axis for p in prompts)) == ["religion", "age"]
    assert len(prompts) == len(of("religion")) + len(of("age"))


def test_unknown_axis_names_it_and_the_known_ones():
    with pytest.raises(PromptError, match=r"'height'.*gender_and_sex.*ability"):
        load_prompts("builtin", ["height"])
