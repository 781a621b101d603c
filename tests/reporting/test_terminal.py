import io
from typing import Any

import pytest
import synthetic
from rich.console import Console

from levelhead.reporting.terminal import summary_table


def printed(evaluation: dict[str, Any], width: int = 80, *, colour: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=colour).print(summary_table(evaluation))
    return out.getvalue()


@pytest.mark.parametrize(
    "expected",
    [
        "0.0654",
        "[0.0454, 0.0854]",
        "-0.0211",
        "[-0.0316, -0.0106]",
        "0.2717",
        "-0.0187",
        "+6.9%",
        "134,515,008",
        "528.4 MB",
        "gender_and_sex: The measured bias is lower after pruning",
    ],
)
def test_same_numbers_as_on_the_page_in_80_columns(expected: str) -> None:
    assert expected in printed(synthetic.evaluation())


def test_no_number_is_cut_in_a_narrow_terminal() -> None:
    text = printed(synthetic.evaluation(), width=60)
    for number in ("-0.0316", "-0.0106", "134,515,008", "+6.9%"):
        assert number in text


def test_markup_and_escape_sequences_are_shown_not_obeyed() -> None:
    name = "[bold red]x[/] [link=http://e]y[/link] \x1b]0;t\x07\u202e"
    text = printed(synthetic.evaluation({name: ["a", "b"]}), width=200)
    assert "[bold red]x[/] [link=http://e]y[/link] \\x1b]0;t\\x07\\u202e" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "\x1b[" in printed(synthetic.evaluation(), colour=True)  # the control: styles are sent


def test_missing_parts_are_left_out() -> None:
    text = printed({"headline": "", "axes": {"religion": {"base": {"bias": 0.5}}}})
    assert "0.5000" in text
    assert "perplexity" not in text
    assert "None" not in text
