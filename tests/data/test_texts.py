"""Perplexity text: halves that share nothing, hashes, and errors that name a way out."""

import hashlib
import sys
import types
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levelhead.data import texts
from levelhead.data.texts import load_text
from levelhead.errors import MissingExtraError, TextError


def paragraphs(text, at_least=1):
    flat = {" ".join(block.split()) for block in text.split("\n\n")}
    return {block for block in flat if len(block) >= at_least}


def test_pydoc_halves_share_no_paragraph_and_are_of_like_size():
    validation, test = load_text("pydoc", "validation"), load_text("pydoc", "test")
    assert not paragraphs(validation.text, 40) & paragraphs(test.text, 40)
    lengths = sorted((len(validation.text), len(test.text)))
    assert lengths[0] > 100_000
    assert lengths[1] < 2 * lengths[0]


def test_the_topics_do_overlap_so_that_halving_them_alone_would_leak():
    shared = paragraphs(topics["compound"], 40) & paragraphs(topics["while"], 40)
    assert shared


def test_pydoc_halves_are_disjoint_by_topic_and_complete():
    halves = [paragraphs(load_text("pydoc", split).text, 40) for split in ("validation", "test")]
    for topic, text in topics.items():
        own = paragraphs("\n\n".join(texts._paragraphs(text)), 40)
        assert not own or own <= halves[0] or own <= halves[1], topic


def test_pydoc_is_recorded_by_hash_and_licence_and_stable():
    text = load_text("pydoc", "test")
    assert text.sha256 == hashlib.sha256(text.text.encode()).hexdigest()
    assert text.licence == "PSF-2.0"
    assert load_text("pydoc", "test") == text
    assert text.sha256 != load_text("pydoc", "validation").sha256


def test_pydoc_order_does_not_follow_the_order_of_the_dictionary(monkeypatch):
    before = load_text("pydoc", "test")
    module = types.ModuleType("pydoc_data.topics")
    module.topics = dict(reversed(topics.items()))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)
    assert load_text("pydoc", "test") == before


def test_a_python_without_topics(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(TextError, match="--text FILE"):
        load_text("pydoc", "test")


LINES = st.lists(
    st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=40),
    min_size=10,
    max_size=60,
)


@given(lines=LINES, joint=st.sampled_from(["\n\n", "\n", " ", "\r\n\r\n"]))
@settings(max_examples=50, deadline=None)
def test_a_file_is_cut_once_near_its_middle_and_nothing_is_lost(tmp_path_factory, lines, joint):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_bytes(joint.join(lines).encode())
    whole = joint.join(lines).replace("\r\n", "\n").strip()
    first, second = (texts._file_half(path, split) for split in ("validation", "test"))
    assert whole.startswith(first)
    assert whole.endswith(second)
    assert len(first) + len(second) <= len(whole)
    assert "".join((first + second).split()) == "".join(whole.split())
    assert len(whole) // 4 - 2 <= len(first) + (len(whole) - len(first) - len(second))


def test_a_file_is_cut_between_paragraphs(tmp_path):
    blocks = [
        f"Paragraph {i}.\nIt has two lines, and this is the second of them." for i in range(99)
    ]
    path = tmp_path / "t.txt"
    path.write_text("\n\n".join(blocks))
    halves = [load_text(str(path), split) for split in ("validation", "test")]
    assert [block for half in halves for block in half.text.split("\n\n")] == blocks
    assert abs(len(halves[0].text) - len(halves[1].text)) < 200
    assert halves[0].name == str(path)
    assert halves[0].sha256 != halves[1].sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short", "validation part of .* has [0-9] characters; perplexity needs at least 2,000"),
        (b"", "has 0 characters"),
        (b"ab\xff", "not UTF-8: byte 0xff at offset 2"),
        ("a text".encode("utf-16"), "not UTF-8: .*it looks like UTF-16"),
    ],
)
def test_unusable_files(tmp_path, content, message):
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(TextError, match=message):
        load_text(str(path), "validation")


@pytest.mark.parametrize("source", ["nowhere.txt", "wikitext-3", "\0", "."])
def test_no_such_text(source):
    with pytest.raises(TextError, match=r"no such text.*wikitext-2, pydoc|cannot read"):
        load_text(source, "test")


def test_a_file_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "MAX_BYTES", 10)
    path = tmp_path / "t.txt"
    path.write_text("more than ten bytes")
    with pytest.raises(TextError, match="10 are allowed"):
        load_text(str(path), "test")


def fake_datasets(monkeypatch, load_dataset):
    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_wikitext_asks_for_its_own_split_and_joins_rows(monkeypatch):
    def load_dataset(*names, split):
        assert names == ("Salesforce/wikitext", "wikitext-2-raw-v1")
        return {"text": [split, "x" * 3000]}

    fake_datasets(monkeypatch, load_dataset)
    assert load_text("wikitext-2", "validation").text == "validation\n\n" + "x" * 3000
    assert load_text("wikitext-2", "test").text.startswith("test")
    assert load_text("wikitext-2", "test").licence.startswith("CC BY-SA")


def test_wikitext_without_network_names_the_flags(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach the hub")

    fake_datasets(monkeypatch, load_dataset)
    with pytest.raises(TextError, match=r"Couldn't reach.*--text pydoc or --text FILE"):
        load_text("wikitext-2", "test")


def test_wikitext_without_datasets_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"levelhead\[datasets\]"):
        load_text("wikitext-2", "test")


def shipped(name):
    return [load_text(name, split) for split in ("validation", "test")]


def sequences(text, length=12):
    words = text.lower().split()
    return {tuple(words[i : i + length]) for i in range(len(words) - length)}


@pytest.mark.parametrize("name", sorted(texts.SHIPPED))
def test_parts_of_shipped_texts_share_nothing(name):
    validation, test = shipped(name)
    assert not paragraphs(validation.text) & paragraphs(test.text)
    assert not sequences(validation.text) & sequences(test.text)
    halves = load_text(name, "test").text.split("\n\n")
    mixed = sequences("\n\n".join(halves[:6])) & sequences("\n\n".join(halves[4:]))
    assert mixed, "control: parts that do share paragraphs are noticed"


def test_shipped_texts_are_long_varied_and_plain():
    for name, words in (("everyday", 2200), ("literature", 12_000)):
        for part in shipped(name):
            assert len(part.text.split()) > words, part.name
            assert part.text.isascii()
            found = part.text.split("\n\n")
            assert len(set(found)) > 0.99 * len(found), "hardly a paragraph twice"
            openings = [" ".join(one.split()[:4]) for one in found]
            assert len(set(openings)) > 0.9 * len(openings), "no template behind them"


def test_licences_of_shipped_texts_are_named_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "licences.md").read_text(encoding="utf-8")
    for name, licence in texts.SHIPPED.items():
        assert load_text(name, "test").licence == licence
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}`")]
        assert f"| {licence} |" in row
    folder = Path(texts.__file__).parent / "prose"
    assert {path.name.partition(".")[0] for path in folder.glob("*.txt")} == set(texts.SHIPPED)
