"""The user's own prompt files: what they may hold, what they default to, and how they fail."""

import csv
import io
import json
import unicodedata
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from levelhead.data import table_files
from levelhead.data.prompts import load_prompts, matched_groups, select_prompts
from levelhead.errors import PromptError

FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write_csv(path, rows, columns=None):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns or list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(out.getvalue().encode("utf-8"))
    return path


def write_jsonl(path, rows):
    path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl}


def crossed(num_templates=6, subgroups=("cats", "dogs", "birds"), variants=2):
    return [
        {
            "text": f"Sentence {t} about {v} of the {s} is",
            "axis": "pets",
            "subgroup": s,
            "template": f"T{t}",
            "descriptor": f"{v} {s}",
        }
        for t in range(num_templates)
        for v in range(variants)
        for s in subgroups
    ]


@pytest.fixture(params=["csv", "jsonl"])
def kind(request):
    return request.param


def test_templates_split_in_halves_and_descriptors_match(tmp_path, kind):
    prompts = load_prompts(WRITERS[kind](tmp_path / f"p.{kind}", crossed()))
    assert len(prompts) == 36
    by_split = {
        split: {p.template for p in prompts if p.split == split} for split in ("validation", "test")
    }
    assert [len(t) for t in by_split.values()] == [3, 3]
    assert not by_split["validation"] & by_split["test"]
    groups = matched_groups(prompts)
    assert len(groups) == 12
    for group in groups:
        assert len({p.descriptor.split()[0] for p in group}) == 1
        assert len(group) == 3


def test_both_kinds_give_the_same_prompts_and_row_order_does_not_move_a_template(tmp_path):
    rows = crossed()
    first = load_prompts(write_csv(tmp_path / "p.csv", rows))
    assert load_prompts(write_jsonl(tmp_path / "p.jsonl", rows)) == first
    turned = load_prompts(write_csv(tmp_path / "q.csv", rows[::-1]))
    assert {p.template: p.split for p in turned} == {p.template: p.split for p in first}


def test_without_templates_every_subgroup_is_halved_and_nothing_matches(tmp_path, kind):
    rows = [
        {"text": f"{s} number {i}", "axis": "pets", "subgroup": s}
        for s, size in {"cats": 11, "dogs": 4}.items()
        for i in range(size)
    ]
    prompts = load_prompts(WRITERS[kind](tmp_path / f"p.{kind}", rows))
    assert Counter((p.subgroup, p.split) for p in prompts) == {
        ("cats", "validation"): 6,
        ("cats", "test"): 5,
        ("dogs", "validation"): 2,
        ("dogs", "test"): 2,
    }
    assert matched_groups(prompts) == []
    assert len({p.template for p in prompts}) == len(prompts)
    drawn = select_prompts(prompts, "pets", "validation", 4)
    assert Counter(p.subgroup for p in drawn) == {"cats": 2, "dogs": 2}


def test_repeated_text_without_template_stays_in_one_split(tmp_path):
    rows = [
        {"text": f"{s} {i % 3}", "axis": "pets", "subgroup": s} for s in "ab" for i in range(12)
    ]
    prompts = load_prompts(write_csv(tmp_path / "p.csv", rows))
    assert all(len({p.split for p in prompts if p.text == text}) == 1 for text in ("a 0", "b 2"))


def test_given_values_are_kept(tmp_path, kind):
    row = {
        "text": " Cats are ",
        "axis": "pets",
        "subgroup": "cats",
        "template": "T",
        "descriptor": "a cat",
        "split": "Test",
        "id": "one",
        "variant": "7",
        "register": " news ",
        "comment": "ignored",
    }
    rows = [row, row | {"subgroup": "dogs", "id": "two"}]
    prompt = load_prompts(WRITERS[kind](tmp_path / f"p.{kind}", rows))[0]
    assert (prompt.text, prompt.id, prompt.split, prompt.variant) == ("Cats are", "one", "test", 7)
    assert (prompt.template, prompt.descriptor, prompt.register) == ("T", "a cat", "news")


def test_a_row_without_split_follows_its_template(tmp_path):
    rows = [
        {"text": f"{s} {i}", "axis": "a", "subgroup": s, "template": "T", "split": split}
        for s in "xy"
        for i, split in enumerate(["test", "", ""])
    ]
    assert {p.split for p in load_prompts(write_csv(tmp_path / "p.csv", rows))} == {"test"}


def halves(prompts):
    """By axis: how many templates each split has."""
    found = {(p.axis, p.split, p.template) for p in prompts}
    return {
        axis: tuple(sum(f[:2] == (axis, split) for f in found) for split in ("validation", "test"))
        for axis in sorted({p.axis for p in prompts})
    }


@pytest.mark.parametrize("seed", range(5))
def test_templates_are_halved_within_each_axis(tmp_path, seed):
    """Over all axes together, an axis of four templates often has one or none in a split."""
    rows = [
        row | {"axis": axis, "template": f"{axis}-{seed}-{row['template']}"}
        for axis, size in {"fa": 6, "ar": 4, "he": 4, "ur": 5}.items()
        for row in crossed(num_templates=size)
    ]
    prompts = load_prompts(write_csv(tmp_path / "p.csv", rows))
    assert halves(prompts) == {"ar": (2, 2), "fa": (3, 3), "he": (2, 2), "ur": (3, 2)}


def test_a_template_of_several_axes_has_one_split_and_each_axis_is_halved(tmp_path):
    own = [
        row | {"axis": a, "template": f"{a}{row['template']}"} for a in "ab" for row in crossed(5)
    ]
    shared = [row | {"axis": axis} for axis in "abc" for row in crossed(3)]
    prompts = load_prompts(write_csv(tmp_path / "p.csv", own + shared))
    assert halves(prompts) == {"a": (4, 4), "b": (4, 4), "c": (2, 1)}
    splits = {t: {p.split for p in prompts if p.template == t} for t in ("T0", "T1", "T2")}
    assert all(len(found) == 1 for found in splits.values())


def test_templates_of_single_subgroups_are_halved_within_them(tmp_path):
    rows = [row | {"template": f"{row['subgroup']} {row['template']}"} for row in crossed(2)]
    found = load_prompts(write_csv(tmp_path / "p.csv", rows))
    cells = Counter((p.subgroup, p.split) for p in found)
    assert set(cells.values()) == {2}
    assert len(cells) == 6


def test_open_templates_make_up_for_those_of_a_given_split(tmp_path):
    rows = [row | {"split": "validation"} for row in crossed(2)]
    rows += [row | {"split": "", "template": f"open {row['template']}"} for row in crossed(3)]
    assert halves(load_prompts(write_csv(tmp_path / "p.csv", rows))) == {"pets": (3, 2)}


def test_byte_order_mark_header_case_and_blank_lines(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes("\ufeffText, AXIS ,Subgroup\r\na b,x,s\r\n\r\nc d,x,r\r\n".encode())
    assert [p.text for p in load_prompts(path)] == ["a b", "c d"]


TEXTS = st.text(min_size=1, max_size=60).filter(lambda text: text.strip())


@given(texts=st.lists(TEXTS, min_size=2, max_size=8), kind=st.sampled_from(["csv", "jsonl"]))
@FUZZ
def test_texts_may_hold_any_characters(tmp_path, texts, kind):
    rows = [
        {"text": text, "axis": "a", "subgroup": s, "split": "test"} for text in texts for s in "xy"
    ]
    prompts = load_prompts(WRITERS[kind](tmp_path / f"p.{kind}", rows))
    assert [p.text for p in prompts] == [row["text"].strip() for row in rows]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
COLUMNS = st.sampled_from(["text", "axis", "subgroup", "template", "split", "id", "variant"])


def only_prompt_errors(path):
    try:
        prompts = load_prompts(path)
    except PromptError as error:
        message = str(error)
    else:
        message = ""
        assert prompts
    assert not message or str(path) in message or "subgroup(s)" in message


@given(content=st.binary(max_size=200), suffix=st.sampled_from(["csv", "jsonl"]))
@FUZZ
def test_any_bytes_give_prompts_or_a_prompt_error(tmp_path, content, suffix):
    path = tmp_path / f"p.{suffix}"
    path.write_bytes(content)
    only_prompt_errors(path)


@given(rows=st.lists(st.dictionaries(COLUMNS, JSON) | JSON, max_size=6))
@FUZZ
def test_any_json_gives_prompts_or_a_prompt_error(tmp_path, rows):
    only_prompt_errors(write_jsonl(tmp_path / "p.jsonl", rows))


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {name: st.sampled_from(["", "a", "b", " "]) for name in ("axis", "subgroup", "id")}
            | {
                "text": st.text(max_size=10),
                "template": st.sampled_from(["", "T", "U"]),
                "split": st.sampled_from(["", "test", "validation", "TEST", "dev"]),
                "variant": st.sampled_from(["", "0", "1", "-1", "1.5", "x", "9" * 5000, "٣"]),
            }
        ),
        min_size=1,
        max_size=8,
    ),
    kind=st.sampled_from(["csv", "jsonl"]),
)
@FUZZ
def test_any_table_gives_prompts_or_a_prompt_error(tmp_path, rows, kind):
    only_prompt_errors(WRITERS[kind](tmp_path / f"p.{kind}", rows))


GOOD = [
    {"text": "a b", "axis": "x", "subgroup": "s"},
    {"text": "a c", "axis": "x", "subgroup": "r"},
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "  "}, "line 3, column text: '  ' is empty"),
        ({"text": "w " * 6000}, "line 3, column text: .*11,999 characters; 10,000 are allowed"),
        ({"axis": ""}, "line 3, column axis: '' is empty"),
        ({"subgroup": "a\tb"}, r"line 3, column subgroup: .*printable, but holds U\+0009"),
        ({"subgroup": "a\u202eb"}, r"line 3, column subgroup: .*U\+202E, which cannot be seen"),
        ({"axis": "a\u200bb"}, r"line 3, column axis: .*U\+200B"),
        ({"axis": "\u200d"}, "line 3, column axis: .* is empty"),
        ({"axis": "x" * 201}, "line 3, column axis: .*200"),
        ({"split": "dev"}, "line 3, column split: 'dev' must be"),
        ({"variant": "-1"}, "line 3, column variant: '-1' must be a whole number"),
        ({"id": "x/s/1"}, "line 3, column id.*also the id of line 2"),
    ],
)
def test_bad_values_are_named_with_file_line_and_column(tmp_path, change, message):
    columns = ["text", "axis", "subgroup", "split", "variant", "id"]
    path = write_csv(tmp_path / "mine.csv", [GOOD[0], GOOD[1] | change], columns)
    with pytest.raises(PromptError, match=f"mine.csv, {message}"):
        load_prompts(path)


def test_a_template_in_both_splits_is_refused(tmp_path):
    rows = [
        {"text": f"t {s}", "axis": "x", "subgroup": s, "template": "T", "split": split}
        for s, split in {"s": "test", "r": "validation"}.items()
    ]
    path = write_csv(tmp_path / "p.csv", rows)
    with pytest.raises(PromptError, match="line 3, column template: 'T' is in split validation"):
        load_prompts(path)


HEADER = "text,axis,subgroup\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", b"text,axis\nx,y\n", r"line 1: no column 'subgroup' among text, axis"),
        ("p.csv", b"text,axis,subgroup,text\na,b,c,d\n", "'text' appears more than once"),
        ("p.csv", b"text,axis,subgroup\na,b\n", "line 2: 2 fields where the header has 3"),
        ("p.csv", b'text,axis,subgroup\n"a,b,c\n', "not valid CSV"),
        ("p.csv", b"text,axis,subgroup\n", "holds no prompts"),
        ("p.csv", b"", "no column 'text' among none"),
        ("p.csv", b"text\xff", "not UTF-8: byte 0xff at offset 4"),
        ("p.jsonl", b"", "holds no prompts"),
        ("p.jsonl", b"\n{", "line 2 is damaged: not valid JSON"),
        ("p.jsonl", b"[1]", "line 1: expected an object"),
        ("p.jsonl", b'{"text": 3, "axis": "a", "subgroup": "b"}', "column text: expected text"),
        ("p.jsonl", b'{"text": "x", "axis": "a"}', "line 1: no column 'subgroup'"),
        (
            "p.jsonl",
            b'{"text": "x", "axis": "a", "subgroup": "b", "text": "y"}',
            "line 1: the key 'text' appears more than once",
        ),
        ("p.jsonl", b'{"more": {"a": 1, "a": 1}}', "line 1: the key 'a' appears more than once"),
        ("p.csv", HEADER.encode("utf-16"), "byte 0xff at offset 0; it looks like UTF-16: save"),
        ("p.csv", HEADER.encode("utf-16-le"), "two bytes per letter; it looks like UTF-16: save"),
        ("p.jsonl", HEADER.encode("utf-16-be"), "it looks like UTF-16"),
        ("p.csv", HEADER.encode("utf-32"), "it looks like UTF-32"),
        ("p.csv", f"{HEADER}Mädchen,a,b".encode("cp1252"), "0xe4 .* looks like Windows-1252: sav"),
        ("p.csv", f"{HEADER}Что они, как все,a,b".encode("cp1251"), "older encoding of its script"),
        ("p.csv", f"{HEADER}他们都是很好的人,a,b".encode("gbk"), "older encoding of its script"),
        (
            "p.csv",
            f"{HEADER}{'Что они ' * 9}они".encode()[:-1],
            "the rest is UTF-8: .*damaged or cut off",
        ),
        ("p.csv", b"PK\x03\x04\x14\x00\x80", "it does not look like text"),
        ("p.jsonl", b'{"text": "\\ud800", "axis": "a", "subgroup": "b"}', "lone surrogate"),
        ("p.jsonl", b"[" * 100_000, "nests deeper than 64 levels"),
        ("p.txt", b"", "unknown prompt source .*p.txt.*builtin"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PromptError, match=message):
        load_prompts(path)


@pytest.mark.parametrize(
    "name",
    [
        "افغان‌ها",  # Persian, with a joiner that is no letter
        "👩‍👩‍👧",
        "क्‍ष",
        "no\u00a0break",
        "日本\u3000人",
        "\ue000",  # private use: letters of some scripts' fonts
        "\U0001fae9",  # newer than the Unicode of this Python
        "\u06dd7",
    ],
)
def test_names_that_can_be_read_are_taken(tmp_path, kind, name):
    rows = [row | {"axis": name} for row in crossed(subgroups=(name, "dogs"))]
    prompts = load_prompts(WRITERS[kind](tmp_path / f"p.{kind}", rows), [name])
    assert {p.subgroup for p in prompts} == {name, "dogs"}


def test_one_name_in_two_unicode_spellings_is_one(tmp_path, kind):
    """A letter with its accent, and a letter and an accent; the text is left as it is."""
    rows = crossed(subgroups=("Québécois", "dogs"))
    for row in rows[::2]:
        for column in ("axis", "subgroup", "template"):
            row[column] = unicodedata.normalize("NFD", row[column])
    rows = [row | {"axis": f"{row['axis']}é", "template": f"é{row['template']}"} for row in rows]
    rows = rows[:5] + [
        {name: unicodedata.normalize("NFD", value) for name, value in row.items()}
        for row in rows[5:]
    ]
    prompts = load_prompts(WRITERS[kind](tmp_path / f"p.{kind}", rows))
    assert {p.subgroup for p in prompts} == {"Québécois", "dogs"}
    assert {p.axis for p in prompts} == {"petsé"}
    assert len({p.template for p in prompts}) == 6
    assert sum(map(len, matched_groups(prompts))) == len(rows)
    assert [p.text for p in prompts] == [row["text"] for row in rows]
    asked = unicodedata.normalize("NFD", "petsé")
    assert load_prompts(tmp_path / f"p.{kind}", [asked]) == prompts


@pytest.mark.parametrize("source", ["nowhere.csv", "\0.csv", "."])
def test_no_such_file(source):
    with pytest.raises(PromptError, match=r"no such prompt file|cannot read|unknown prompt"):
        load_prompts(source)


def test_a_folder_with_the_name_of_a_file(tmp_path):
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(PromptError, match="cannot read"):
        load_prompts(tmp_path / "p.csv")


def test_size_limits(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "p.csv", GOOD)
    monkeypatch.setattr(table_files, "MAX_ROWS", 1)
    with pytest.raises(PromptError, match="more than 1 rows"):
        load_prompts(path)
    monkeypatch.setattr(table_files, "MAX_BYTES", 10)
    with pytest.raises(PromptError, match="10 are allowed"):
        load_prompts(path)


def test_axis_filter_and_axes_with_one_subgroup(tmp_path):
    rows = [*crossed(), {"text": "z", "axis": "lonely", "subgroup": "s", "split": "test"}]
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    assert {p.axis for p in load_prompts(path, ["pets"])} == {"pets"}
    with pytest.raises(PromptError, match="axis 'lonely' has test prompts of 1 subgroup"):
        load_prompts(path)
    with pytest.raises(PromptError, match=r"unknown axis 'cars'.*lonely, pets"):
        load_prompts(path, ["cars"])
