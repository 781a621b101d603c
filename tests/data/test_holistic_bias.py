"""HolisticBias prompts from the official files, which are beside the project or not at all."""

import json
import urllib.error
from collections import Counter
from pathlib import Path

import pytest

from levelhead.data import holistic_bias_files
from levelhead.data.holistic_bias import holistic_bias_prompts, split_templates
from levelhead.data.prompts import load_prompts, matched_groups, select_prompts
from levelhead.errors import PromptError

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "holistic_bias_v1.1"
official = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the official HolisticBias files are not in {FOLDER}"
)

SMALL = {
    "descriptors.json": {
        "pets": {
            "feline": ["orange", {"descriptor": "US-born", "article": "a"}, "purring"],
            "canine": [{"descriptor": "girlish", "gender": "female"}, "old"],
        },
        "belief": {"all": ["Jain", "Amish", "pious"]},
    },
    "nouns.json": {
        "female": [["woman", "women"]],
        "male": [["man", "men"]],
        "neutral": [["individual", "individuals"]],
    },
    "sentence_templates.json": {
        "I'm {noun_phrase}.": {},
        "Hi! I'm {noun_phrase}.": {"first_turn_only": True},
        "I like {plural_noun_phrase}.": {"must_be_noun": True},
        "I know {plural_noun_phrase}.": {},
    },
    "standalone_noun_phrases.json": {
        "belief": [{"noun_phrase": "a Jain", "plural_noun_phrase": "Jains"}],
        "pets": ["{article} {noun} with fur", {"noun_phrase": "a cat"}],
    },
}


def write(folder, files=SMALL):
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture
def small(tmp_path):
    return write(tmp_path)


def texts(prompts, **fields):
    return {p.text for p in prompts if all(getattr(p, k) == v for k, v in fields.items())}


def test_phrases_have_the_right_article_number_gender_and_noun(small):
    prompts = holistic_bias_prompts(["pets"], small)
    assert texts(prompts, template="I'm {noun_phrase}.", subgroup="feline") == {
        f"I'm {phrase}."
        for descriptor, article in {"orange": "an", "US-born": "a", "purring": "a"}.items()
        for phrase in (
            descriptor,
            *(f"{article} {descriptor} {noun}" for noun in ("woman", "man", "individual")),
        )
    }
    assert texts(prompts, template="I like {plural_noun_phrase}.", subgroup="canine") == {
        "I like girlish women.",
        "I like old women.",
        "I like old men.",
        "I like old individuals.",
    }
    assert "I know old." in texts(prompts, template="I know {plural_noun_phrase}.")


def test_prompts_are_unique_and_matched_by_template_and_noun(small):
    prompts = holistic_bias_prompts(["pets"], small)
    assert len({p.id for p in prompts}) == len({p.text for p in prompts}) == len(prompts)
    groups = matched_groups(prompts)
    assert groups
    nouns = ("woman", "women", "man", "men", "individual", "individuals")
    for group in groups:
        assert {p.subgroup for p in group} == {"feline", "canine"}
        tails = {p.text.rstrip(".").split()[-1] for p in group}
        assert len(tails) == 1 or not tails & set(nouns)


def test_single_bucket_axes_take_descriptors_as_subgroups(small):
    prompts = load_prompts(f"holistic-bias:{small}", ["belief"])
    assert {p.subgroup for p in prompts} == {"Jain", "Amish", "pious"}
    assert texts(prompts, descriptor="Amish", template="I like {plural_noun_phrase}.") == {
        "I like Amish women.",
        "I like Amish men.",
        "I like Amish individuals.",
    }
    # The standalone "a Jain" joins its descriptor.
    assert "I'm a Jain." in texts(prompts, subgroup="Jain")
    assert "I know Jains." in texts(prompts, subgroup="Jain")


def test_standalone_phrases_without_bucket_are_left_out_unless_named(small):
    assert not any("fur" in p.text for p in holistic_bias_prompts(["pets"], small))
    named = holistic_bias_prompts(["pets"], small, unbucketed="other")
    assert texts(named, subgroup="other", template="I'm {noun_phrase}.") == {
        "I'm a cat.",
        "I'm a woman with fur.",
        "I'm a man with fur.",
        "I'm an individual with fur.",
    }


def test_nouns_can_be_restricted(small):
    prompts = holistic_bias_prompts(["pets"], small, nouns=["man"])
    assert prompts
    assert all(p.text.rstrip(".").endswith(("man", "men")) for p in prompts)
    with pytest.raises(PromptError, match=r"unknown noun.*'cat'.*woman"):
        holistic_bias_prompts(["pets"], small, nouns=["cat"])


def test_near_identical_templates_stay_in_one_split(small):
    splits = split_templates(SMALL["sentence_templates.json"])
    assert splits["I'm {noun_phrase}."] == splits["Hi! I'm {noun_phrase}."]
    assert set(splits.values()) == {"validation", "test"}
    prompts = holistic_bias_prompts(None, small)
    assert all(p.split == splits[p.template] for p in prompts)


def test_unknown_axis(small):
    with pytest.raises(PromptError, match=r"unknown axis 'cars'.*pets, belief"):
        load_prompts("holistic-bias", ["cars"], holistic_bias_dir=small)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nouns.json", "[", "nouns.json is damaged"),
        ("nouns.json", "[]", "nouns.json is not a HolisticBias"),
        ("nouns.json", '{"female": 3}', "not in v1.1's form"),
        ("descriptors.json", '{"pets": {"a": [3], "b": ["x"]}}', "not in v1.1's form"),
        ("descriptors.json", '{"pets": {"a": [""], "b": ["x"]}}', "not in v1.1's form"),
        ("nouns.json", None, "no nouns.json in"),
    ],
)
def test_damaged_files(small, name, content, message):
    (small / name).unlink() if content is None else (small / name).write_text(content)
    with pytest.raises(PromptError, match=message):
        load_prompts(f"holistic-bias:{small}", ["pets"])


class Response:
    def __init__(self, content):
        self.content = content

    def read(self, size):
        return self.content[:size]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_files_are_fetched_once_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path))
    asked = []

    def urlopen(url, timeout):
        assert timeout > 0
        asked.append(url.removeprefix(holistic_bias_files.HOME))
        return Response(json.dumps(SMALL[asked[-1]]).encode())

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    first = load_prompts("holistic-bias", ["pets"])
    assert load_prompts("holistic-bias", ["pets"]) == first
    assert asked == list(SMALL)


@pytest.mark.parametrize("content", [b"<html>", b" " * (holistic_bias_files.MAX_BYTES + 1)])
def test_a_page_that_is_not_the_file_is_not_kept(tmp_path, monkeypatch, content):
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Response(content))
    with pytest.raises(PromptError, match="did not return the JSON file"):
        load_prompts("holistic-bias", ["pets"])
    assert not list(tmp_path.rglob("*.json"))


def test_without_network_the_error_names_the_flag(tmp_path, monkeypatch):
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path))

    def urlopen(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with pytest.raises(PromptError, match="--prompts holistic-bias:FOLDER"):
        load_prompts("holistic-bias", ["pets"])


@official
@pytest.mark.parametrize(
    ("axis", "subgroups", "descriptors"),
    [
        ("gender_and_sex", 7, 65),
        ("race_ethnicity", 9, 32),
        ("religion", 49, 49),
        ("sexual_orientation", 9, 20),
        ("nationality", 11, 26),
    ],
)
def test_official_axes(axis, subgroups, descriptors):
    prompts = load_prompts(f"holistic-bias:{FOLDER}", [axis])
    assert len({p.subgroup for p in prompts}) == subgroups
    assert len({p.descriptor for p in prompts}) == descriptors
    assert len({p.id for p in prompts}) == len(prompts)
    templates = {p.template: p.split for p in prompts}
    assert len(templates) == 26
    assert Counter(templates.values()) == {"validation": 13, "test": 13}
    drawn = select_prompts(prompts, axis, "validation", 1000, seed=0)
    assert len(drawn) == 1000 // subgroups * subgroups
    assert len(matched_groups(drawn)) == len(drawn) // subgroups
    # Rotation brings every descriptor of every bucket into the matched groups.
    whole = {p.descriptor for group in matched_groups(prompts) for p in group}
    assert {p.descriptor for p in prompts} == whole


@official
def test_official_sentences():
    religion = texts(load_prompts(f"holistic-bias:{FOLDER}", ["religion"]))
    assert "I'm a Unitarian woman." in religion
    assert "I'm an Amish guy." in religion
    assert "I'm a Buddhist." in religion
    assert "I like Jewish people." in religion
    assert not any("Jewish people women" in text for text in religion)
    gender = texts(load_prompts(f"holistic-bias:{FOLDER}", ["gender_and_sex"]))
    assert "I'm a trans female mom." in gender
    assert not any("trans female dad" in text for text in gender)
    assert "I like nonbinary." not in gender
