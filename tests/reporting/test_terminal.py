import io
import re
from typing import Any

import pytest
import synthetic
from rich.console import Console

from levelhead.reporting.terminal import summary_table
from levelhead.verdict_words import WORDS, saying


def printed(evaluation: dict[str, Any], width: int = 80, *, colour: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=colour).print(summary_table(evaluation))
    return out.getvalue()


@pytest.mark.parametrize(
    "expected",
    [
        "bias, corrected 0.0531 0.0320",
        "noise-adjusted -0.0195",
        "[-0.0299, -0.0091]",
        "plain, adjusted -0.0595",
        "echo of names 0.0601 0.0202 -0.0399",
        "second, adjusted -0.0099",
        "names own group 20% 7% -13 points",
        "[18%, 22%]",
        "[-15, -11]",
        "bias, as sampled 0.0654 0.0443 -0.0211",
        "plain, as sampled 0.1254 0.0643 -0.0611",
        "second, corrected 0.0829 0.0728",
        "common factor 93%",
        "beyond the factor -0.0166",
        "p, no change 0.011",
        "p, not lower 0.022",
        "relative bias 1.15 0.81 -0.34",
        "scorer's floor 0.0308 0.0308",
        "prompt floor 0.2717 0.2717",
        "expected -0.0187",
        "ppl pydoc 21.43 22.91 +6.9%",
        "ppl everyday 30.11 31.37 +4.2%",
        "ppl own-text 7.85 8.09 +3.1%",
        "KL own-text 0.033",
        "134,515,008",
        "528.4 MB",
        "gender_and_sex: Lower: pruning reduces the measured gender_and_sex gap on these prompts.",
        "500 test prompts, 1,000 samples, identity words masked",
        "Only the first of two scorers tells the difference from 0 (masked:profanity-check).",
        "names the prompt's own group less often (women). A group that is no longer named",
    ],
)
def test_same_numbers_as_on_the_page_in_80_columns(expected: str) -> None:
    assert expected in " ".join(printed(synthetic.evaluation()).split())


def bold(line: str) -> bool:
    return re.search(r"\x1b\[1m *\w", line) is not None


def test_of_the_axis_only_the_row_that_decides_is_bold() -> None:
    lines = printed(synthetic.evaluation(), colour=True).splitlines()
    thick = [line for line in lines if bold(line)]
    assert sum("noise-adjusted" in line for line in thick) == 1
    assert not any("sampled" in line for line in thick)
    assert len(thick) == 3  # the header, this row, and the price in perplexity


@pytest.mark.parametrize("word", WORDS)
def test_each_verdict_has_its_sentence_and_its_look(word: str) -> None:
    evaluation = synthetic.evaluation({"religion": ["a", "b"]})
    evaluation["axes"]["religion"]["verdict"] = word
    said = f"religion: {word.capitalize()}: pruning {saying(word, 'religion')}"
    assert said in " ".join(printed(evaluation, width=400).split())
    colour = {"lower": "\x1b[32m", "higher": "\x1b[1;31m"}.get(word, "\x1b[33m")
    line = next(x for x in printed(evaluation, 400, colour=True).splitlines() if ": pruning" in x)
    assert line.startswith(colour)


def test_of_several_axes_the_details_stay_in_the_report() -> None:
    text = printed(synthetic.evaluation({"religion": ["a", "b"], "age": ["c", "d"]}))
    assert text.count("noise-adjusted") == 2
    assert "as sampled" not in text
    assert "levelhead report" in text


def test_what_an_older_levelhead_wrote_is_shown() -> None:
    text = printed(synthetic.old_evaluation())
    for present in ("-0.0195", "-0.0211", "0.0531", "Lower: pruning reduces"):
        assert present in text
    for absent in ("plain", "echo", "names own group", "second", "masked", "None", "p, no"):
        assert absent not in text


def test_no_number_is_cut_in_a_narrow_terminal() -> None:
    text = printed(synthetic.evaluation(), width=60)
    for number in ("-0.0299", "-0.0091", "134,515,008", "+6.9%"):
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
