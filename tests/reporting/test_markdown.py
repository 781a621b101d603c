"""The report as Markdown, judged by a Markdown parser."""

import re

import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from levelhead.records import HeadSelection
from levelhead.reporting.markdown import fenced, render_markdown, text_of

EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> [a](javascript:x) ![b](y) "
    "`code` **bold** | cell | www.example.org https://example.org <https://example.org> &lt; # x "
    "\x1b[31m\u202e ~~~ ``` \n# heading\n- item\n1. one\n| a |\n|---|\n> quote\n    code\n---"
)
KEPT = {
    *("heading", "paragraph", "bullet_list", "list_item", "strong", "table", "thead", "tbody"),
    *("tr", "th", "td"),
}


def tokens(text: str) -> list[Token]:
    """All tokens, those within lines too, as a reader that allows HTML and tables sees them."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    found = []
    for token in parser.parse(text):
        found += [token, *(token.children or ())]
    return found


def kinds(text: str) -> set[str]:
    return {re.sub(r"_(open|close)$", "", token.type) for token in tokens(text)}


def plain(text: str) -> str:
    return "".join(t.content for t in tokens(text) if t.type in ("text", "text_special"))


def test_says_what_the_page_says() -> None:
    text = render_markdown(synthetic.everything())
    shown = plain(text)
    for expected in (
        "org/tiny-model",
        "4 of 108 heads pruned",
        "lowered the measured gap on these prompts by 0.0195",
        "the classifier reads few words",
        "first-order, token-additive",
        "What this does not show",
        "generated text can be offensive",
        "All methods at alpha 0.1",
        "a note at a glance",
    ):
        assert expected in shown
    assert "| Bias, corrected for noise | 0.0531 [0.0454, 0.0854] | 0.0320" in text
    decides = "**Noise-adjusted difference (decides the verdict)**"
    assert f"| {decides} |  |  | **-0.0195 [-0.0299, -0.0091]** |" in text
    assert "| Measured bias, as sampled | 0.0654 | 0.0443 | -0.0211 [-0.0516, 0.0094] |" in text
    sampled = [line for line in text.splitlines() if line.startswith("|") and "sampled" in line]
    assert sampled
    assert not any("**" in line for line in sampled)
    assert "levelhead run org/tiny-model --axis gender_and_sex --seed 7" in text
    assert "None" not in text


def test_every_row_of_a_table_has_its_cells() -> None:
    found = tokens(render_markdown(synthetic.everything()))
    widths, cells = [], 0
    for token in found:
        cells = 0 if token.type == "tr_open" else cells + (token.type in ("th_open", "td_open"))
        if token.type == "table_open":
            widths.append(set[int]())
        if token.type == "tr_close":
            widths[-1].add(cells)
    assert len(widths) >= 12
    assert all(len(width) == 1 for width in widths)


def test_hostile_text_stays_text() -> None:
    evaluation = synthetic.evaluation({EVIL: [EVIL, "men"]}, warnings=[EVIL])
    evaluation |= {"headline": EVIL, "versions": {EVIL: EVIL}}
    text = render_markdown(
        synthetic.everything(
            evaluation=evaluation,
            selection=HeadSelection.of(synthetic.PRUNED, method=EVIL, details={"axis": EVIL}),
            config=synthetic.config(EVIL) | {EVIL: EVIL},
            compare=synthetic.compare(EVIL, EVIL),
            axes=synthetic.axes(EVIL, "men"),
            agree=synthetic.agree(EVIL),
            examples=synthetic.examples(EVIL),
            glance=synthetic.glance(EVIL),
        )
    )
    assert kinds(text) <= KEPT | {"inline", "fence", "text", "text_special", "softbreak"}
    assert plain(text).count("<img src=x onerror=alert(2)>") >= 30
    assert not {"\x1b", "\u202e"} & set(text)


def test_hostile_text_would_be_noticed() -> None:
    assert {"html_inline", "link", "image", "code_inline", "blockquote"} & kinds(EVIL)


def test_images_are_shown_where_there_are_files() -> None:
    assert "![" not in render_markdown(synthetic.findings())
    text = render_markdown(synthetic.findings(), images="svg")
    images = [token.attrs["src"] for token in tokens(text) if token.type == "image"]
    assert images == [f"plots/{key}.svg" for key in ("gaps-0", "bias-0", "ppl", "scatter")]


@given(st.text(max_size=60))
def test_any_text_is_one_line_of_text(text: str) -> None:
    escaped = text_of(text)
    assert "\n" not in escaped
    assert kinds(escaped) <= {"paragraph", "inline", "text", "text_special"}
    assert kinds(f"| {escaped} |\n|---|") <= {
        *("table", "thead", "tr", "th", "inline", "text", "text_special"),
    }


@given(st.text(alphabet="`~\n #<a", max_size=40))
def test_nothing_closes_a_fence(text: str) -> None:
    (fence,) = tokens(fenced(text))
    assert fence.type == "fence"


def test_numbers_need_no_escape() -> None:
    for text in ("0.78", "-0.42", "+3.1%", "1.5 - 2", "-"):
        assert plain(text_of(text)) == text
        assert ("&" in text_of(text)) == (text == "-")


@pytest.mark.parametrize(
    "text", ["- x", "1. x", "1) x", "+ x", "# x", "> x", "=== x", "* x", "---", "- - -", "==="]
)
def test_no_line_begins_a_list_or_heading(text: str) -> None:
    assert kinds(text_of(text)) <= {"paragraph", "inline", "text", "text_special"}
    assert plain(text_of(text)) == text
