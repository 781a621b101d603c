import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.reporting.escape import plot_text, script_json, visible

# Any code point, lone surrogates and unassigned ones too.
anything = st.text(st.characters(exclude_categories=()))


@given(anything)
def test_nothing_that_controls_a_terminal_or_hides_is_left(text: str) -> None:
    shown = visible(text)
    hidden = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden <= {"\u200c", "\u200d"}
    shown.encode("utf-8")


@given(anything, st.booleans())
def test_a_second_time_changes_nothing(text: str, multiline: bool) -> None:
    once = visible(text, multiline=multiline)
    assert visible(once, multiline=multiline) == once


@given(anything)
def test_multiline_keeps_just_line_feeds_and_tabs(text: str) -> None:
    shown = visible(text, multiline=True)
    assert shown.count("\n") == text.count("\n")
    assert shown.count("\t") == text.count("\t")
    assert shown.replace("\n", "\\n").replace("\t", "\\t") == visible(text)


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs"))))
def test_words_of_any_script_are_kept(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x9b2J\x00\x7f", "\\x9b2J\\x00\\x7f"),
        ("\ud800", "\\ud800"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("👩\u200d🔬 می\u200cخواهم", "👩\u200d🔬 می\u200cخواهم"),
    ],
)
def test_named_cases(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(anything)
def test_plot_labels_hold_no_markup(text: str) -> None:
    shown = plot_text(text)
    assert not set(shown) & set("<>$")
    plain = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&#36;", "$")
    assert plain.replace("&amp;", "&") == visible(text)


@given(st.dictionaries(anything, st.lists(anything)))
def test_script_json_reads_back_and_cannot_end_the_element(data: dict[str, list[str]]) -> None:
    text = script_json(data)
    assert json.loads(text) == data
    assert not set(text) & set("<>&")
    assert text.isascii()


def test_script_json_refuses_numbers_json_lacks() -> None:
    with pytest.raises(ValueError, match="JSON"):
        script_json([float("nan")])
