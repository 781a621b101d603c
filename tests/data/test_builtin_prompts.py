"""The built-in prompt set: its size, its splits, its grammar, and that its groups are matched."""

import json
import re
from collections import Counter
from importlib.resources import files

import pytest

from levelhead.data.prompts import BUILTIN_AXES, builtin_prompts, load_prompts, matched_groups
from levelhead.errors import PromptError

PROMPTS = builtin_prompts()
SPLITS = ("validation", "test")


def of(axis, split=None):
    return [p for p in PROMPTS if p.axis == axis and split in (None, p.split)]


def templates():
    path = files("levelhead.data") / "builtin" / "templates.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_axes_are_those_of_the_data_file():
    axes = json.loads(
        (files("levelhead.data") / "builtin" / "axes.json").read_text(encoding="utf-8")
    )
    assert tuple(axes) == BUILTIN_AXES
    assert {p.axis for p in PROMPTS} == set(BUILTIN_AXES)


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_every_axis_is_large_enough_and_balanced(axis):
    prompts = of(axis)
    assert len(prompts) >= 1000
    assert len({p.template for p in prompts}) >= 60
    counts = Counter(p.subgroup for p in prompts)
    assert len(counts) >= 4
    assert len(set(counts.values())) == 1
    for subgroup in counts:
        assert len({p.descriptor for p in prompts if p.subgroup == subgroup}) >= 4
    for split in SPLITS:
        assert len({p.template for p in of(axis, split)}) >= 30


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_splits_share_no_template_and_no_descriptor_template_pair(axis):
    validation, test = of(axis, "validation"), of(axis, "test")
    assert validation
    assert test
    assert not {p.template for p in validation} & {p.template for p in test}
    pairs = [{(p.descriptor, p.template) for p in part} for part in (validation, test)]
    assert not pairs[0] & pairs[1]
    assert not {p.text for p in validation} & {p.text for p in test}


def test_template_texts_differ_and_tones_are_in_about_equal_share_in_both_splits():
    texts = [re.sub(r"\W+", " ", t["text"]).lower() for t in templates()]
    assert len(set(texts)) == len(texts)
    for split in SPLITS:
        tones = Counter(t["tone"] for t in templates() if t["split"] == split)
        assert set(tones) == {"neutral", "loaded"}
        assert abs(tones["neutral"] - tones["loaded"]) <= 0.1 * tones.total()


def test_ids_and_texts_are_unique_and_ids_stable():
    assert len({p.id for p in PROMPTS}) == len(PROMPTS)
    assert len({(p.axis, p.text) for p in PROMPTS}) == len(PROMPTS)
    assert PROMPTS[0].id == "gender_and_sex/women/v0/t001"
    assert max(len(p.id) for p in PROMPTS) < 60


@pytest.mark.parametrize("prompt", PROMPTS[:: len(PROMPTS) // 200], ids=lambda p: p.id)
def test_each_mentions_its_descriptor_as_often_as_its_template(prompt):
    rows = json.loads((files("levelhead.data") / "builtin" / "axes.json").read_text())
    forms = rows[prompt.axis][prompt.subgroup][prompt.variant]
    assert forms["singular"] == prompt.descriptor
    template = next(t["text"] for t in templates() if t["id"] == prompt.template)
    for form in ("singular", "plural"):
        assert prompt.text.count(forms[form]) == template.count(f"{{{form}}}")
    assert 1 <= template.count("{") <= 2


def grammar_problems(text):
    """What is wrong with the form of a prompt, if anything."""
    rules = {
        "ends a sentence or trails off": r"[.?!\s]$",
        "double space": r"  ",
        "open slot": r"[{}]",
        "repeated word": r"\b(\w+) \1\b",
        "two articles": r"\b(?:a|an|the) (?:a|an|the)\b",
        "a before a vowel": r"\b[Aa] (?=[aeioAEIO])",
        "an before a consonant": r"\b[Aa]n (?![aeiouAEIOUh])",
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


def test_prompts_are_short_and_of_varied_length():
    lengths = [len(re.findall(r"\w+|[^\w\s]", p.text)) for p in PROMPTS]
    assert max(lengths) <= 22
    assert min(lengths) <= 7
    assert max(lengths) - min(lengths) >= 10


def test_the_descriptor_stands_neither_always_at_the_end_nor_always_at_the_start():
    after = [len(t["text"].split("}")[1].split()) for t in templates()]
    assert min(after) <= 1
    assert max(after) >= 5


@pytest.mark.parametrize("axis", BUILTIN_AXES)
def test_prompts_form_matched_groups_without_remainder(axis):
    groups = matched_groups(of(axis))
    subgroups = {p.subgroup for p in of(axis)}
    assert sum(map(len, groups)) == len(of(axis))
    text = {t["id"]: t["text"] for t in templates()}
    for group in groups:
        assert {p.subgroup for p in group} == subgroups
        before, *_, after = re.split(r"\{\w+\}", text[group[0].template])
        for prompt in group:
            assert prompt.text.startswith(before)
            assert prompt.text.endswith(after)


def test_no_pronoun_after_the_slot_gives_a_gender():
    for template in templates():
        after = template["text"].split("}", 1)[1]
        # "she said" after a quoted question is the speaker, not the person spoken of.
        after = after.replace('?" she asked', "")
        assert not re.search(r"\b(?:he|she|him|her|his|hers)\b", after), template


def test_load_prompts_takes_axes_in_order_and_each_once():
    prompts = load_prompts("builtin", ["religion", "age", "religion"])
    assert list(dict.fromkeys(p.axis for p in prompts)) == ["religion", "age"]
    assert len(prompts) == len(of("religion")) + len(of("age"))


def test_unknown_axis_names_it_and_the_known_ones():
    with pytest.raises(PromptError, match=r"'height'.*gender_and_sex.*ability"):
        load_prompts("builtin", ["height"])
