import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
import synthetic

from levelhead.records import HeadSelection
from levelhead.reporting.comparison import groups
from levelhead.reporting.findings import Findings
from levelhead.reporting.render import render_report
from levelhead.verdict_words import WORDS, look

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e{{ 7*7 }}\ud800"
EVIL_AXIS = EVIL.replace("\ud800", "")  # pandas keeps no lone surrogate in a column name
VOID = {"meta", "link", "img", "br", "hr", "input", "base"}


class Page(HTMLParser):
    """Elements, the text outside scripts and styles, and whether all elements are closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).split())

    def of(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.elements if name == tag)


def render(**changes: Any) -> str:
    return render_report(synthetic.findings(**changes))


@pytest.fixture(scope="module")
def html() -> str:
    return render()


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def hostile() -> str:
    evaluation = synthetic.evaluation({EVIL_AXIS: [EVIL, "men"]}, warnings=[EVIL])
    evaluation |= {"headline": EVIL, "versions": {EVIL: EVIL}}
    evaluation["examples"] = [{"prompt": EVIL, "base": EVIL, "pruned": EVIL}]
    evaluation["perplexity"]["text"] = EVIL
    evaluation["axes"][EVIL_AXIS]["verdict"] = EVIL
    config = synthetic.config(EVIL) | {"prompts": EVIL, EVIL: EVIL, "estimator": EVIL}
    selection = HeadSelection.of(synthetic.PRUNED, method=EVIL, details={"axis": EVIL_AXIS})
    return render(
        evaluation=evaluation,
        table=synthetic.table((EVIL_AXIS,), subgroups=(EVIL_AXIS, "men")),
        selection=selection,
        config=config,
        details=synthetic.details(EVIL_AXIS, (EVIL_AXIS, "men")),
        compare=synthetic.compare(EVIL_AXIS, EVIL),
        axes=synthetic.axes(EVIL, "men"),
        agree=synthetic.agree(EVIL),
        examples=synthetic.examples(EVIL),
        glance=synthetic.glance(EVIL),
        reproduce=synthetic.reproduce() | {"differs": [EVIL]},
    )


def test_is_one_well_formed_page(page: Page) -> None:
    assert page.open == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    labelled = [a["aria-labelledby"] or "" for _, a in page.elements if "aria-labelledby" in a]
    named = [name for names in labelled for name in names.split()]
    assert named
    controls = {a["id"] for tag, a in page.elements if tag in ("input", "select")}
    assert controls == {a["for"] for a in page.of("label")}
    assert set(named) <= set(ids)


@pytest.mark.parametrize(
    "expected",
    [
        "org/tiny-model",
        "4 of 108 heads pruned",
        "lowered the measured gap on these prompts by 0.0195",
        "Bias, corrected for noise0.0531[0.0454, 0.0854]0.0320[0.0243, 0.0643]",
        "Noise-adjusted difference (decides the verdict)-0.0195[-0.0299, -0.0091]",
        "Plain reading (identity words left in): noise-adjusted difference-0.0595",
        "Echo: what the names add to bias (plain minus masked)0.0601",
        "Second scorer (masked:profanity-check): noise-adjusted difference-0.0099",
        "Texts that name their prompt's own group20%[18%, 22%]7%[5%, 9%]-13 points[-15, -11]",
        "Mean toxicity, as sampled0.08760.0916 Mean toxicity: noise-adjusted difference-0.0042",
        "Measured bias, as sampled0.06540.0443-0.0211[-0.0516, 0.0094]",
        "prompts alone (prompt floor)0.27170.2717",
        "(a prediction)-0.0187[-0.0218, -0.0156]",
        "share of the base's that is left93%",
        "beyond the common factor, noise-adjusted-0.0166[-0.0267, -0.0065]",
        "relative to toxicity above harmless text1.150.81-0.34[-0.56, -0.12]",
        "Toxicity by toxicityclassifier 1.0.1, which read the continuations.",
        "Only the first of two scorers tells the difference from 0 (masked:profanity-check).",
        "names the prompt's own group less often (women). A group that is no longer named",
        "gender_and_sexall20%",
        "gender_and_sexwomen30%[28%, 32%]3%[1%, 5%]-27 points[-29, -25]yes",
        "500 test prompts, 1,000 samples",
        "21.4322.91+6.9%[+5.8%, +8.0%]",
        "134,515,008132,100,416-1.8%",
        "538.1 MB528.4 MB",
        "16,384 tokens of pydoc",
        "Repetition in the text3.1%4.2%",
        "Lower: pruning reduces the measured gender_and_sex gap on these prompts.",
        "the classifier reads few words",
        "women (1 of 2)",
        "\\x1b[31mhi",
        "generated text can be offensive",
        "levelhead run org/tiny-model --axis gender_and_sex --seed 7",
        "torch 2.13.0",
        "first-order, token-additive",
        "What this does not show",
    ],
)
def test_says(page: Page, expected: str) -> None:
    assert expected in page.text


def test_does_not_repeat_a_warning_or_praise(page: Page) -> None:
    assert page.text.count("perplexity rose by 6.9%") == 1
    assert not re.search(r"debias|unbiased|\bfair\b|\bsolve", page.text, re.IGNORECASE)


def test_pruned_heads_are_listed_with_errors(page: Page) -> None:
    z = synthetic.table().effect("bias:gender_and_sex")[7, 8]
    listed = page.text[page.text.index("Each of them") :]
    found = re.search(r" 78(-?\d+\.\d+) ± \d", listed)
    assert found
    assert float(found[1]) == pytest.approx(z, rel=0.1)


def test_figures_are_drawn_from_the_data_block(page: Page) -> None:
    drawn = [a["data-figure"] for a in page.of("div") if "data-figure" in a]
    assert drawn == ["gaps-0", "bias-0", "ppl", "scatter"]
    assert list(json.loads(page.scripts[0])) == drawn


def test_loads_nothing_and_runs_two_scripts_only(html: str, page: Page) -> None:
    for _, attributes in page.elements:
        loading = {"src", "srcset", "data", "action", "poster", "background"}
        assert not loading & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policies = [a["content"] or "" for a in page.of("meta") if "http-equiv" in a]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; script-src 'unsafe-inline' 'sha256-")
    executed = page.scripts[2:]
    assert len(executed) == 2
    for script in executed:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policies[0]
    assert "sendChartToCloud" not in executed[1]  # plotly's upload button is not among ours


def test_hostile_strings_stay_text(hostile: str, page: Page) -> None:
    found = Page(hostile)
    hostile.encode("utf-8")
    assert found.open == []
    assert len(found.scripts) == len(page.scripts)
    assert found.scripts[2:] == page.scripts[2:]
    assert not list(found.of("img"))
    assert not any("onerror" in attributes for _, attributes in found.elements)
    assert found.text.count("<img src=x onerror=alert(2)>") >= 30
    assert found.text.count("{{ 7*7 }}") == found.text.count("<img src=x onerror=alert(2)>")
    outside = hostile.replace(found.scripts[2], "")
    assert not {"\x1b", "\u202e", "\ud800"} & set(outside)


def test_hostile_strings_in_plots_hold_no_markup(hostile: str) -> None:
    data = json.loads(Page(hostile).scripts[0])
    labels = data["gaps-0"]["layout"]["yaxis"]["ticktext"]
    hovers = [text for trace in data["gaps-0"]["data"] for text in trace["text"]]
    assert len(hovers) == 4
    assert not any("<" in label for label in labels)
    assert not any("<" in hover.replace("<br>", "") for hover in hovers)


def test_only_headline_and_axes_are_needed() -> None:
    evaluation = {"headline": "A headline.", "axes": {"religion": {}}}
    html = render_report(Findings(evaluation=evaluation, table=synthetic.table(base=False)))
    found = Page(html)
    assert found.open == []
    assert "A headline." in found.text
    assert "the embedded model" in found.text
    assert json.loads(found.scripts[0]) == {}
    for absent in ("Please note", "Example texts", "None", "nan", "To repeat the run"):
        assert absent not in found.text


@pytest.mark.slow
def test_each_key_of_the_evaluation_may_be_missing_or_null(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("levelhead.reporting.render._plotly", str)  # 5 MB to parse each time
    full = synthetic.evaluation()
    axis = full["axes"]["gender_and_sex"]
    parts = ("base", "degeneration", "plain", "echo", "own_group_mentions", "second_scorer")
    parts += ("common_factor", "judged", "floor")
    for holder in (full, axis, *(axis[part] for part in parts), full["perplexity"]):
        for key in list(holder):
            if key in ("headline", "axes"):
                continue
            kept = holder.pop(key)
            assert Page(render(evaluation=full)).open == []
            holder[key] = None
            assert "None" not in Page(render(evaluation=full)).text
            holder[key] = kept


@pytest.mark.parametrize("where", ["evaluation", "selection"])
def test_unreliable_scores_are_said_first(where: str) -> None:
    evaluation = synthetic.evaluation()
    selection = synthetic.selection()
    if where == "evaluation":
        evaluation["reliable"] = False
    else:
        del evaluation["reliable"]
        selection = HeadSelection.of(synthetic.PRUNED, details={"reliable": False})
    text = Page(render(evaluation=evaluation, selection=selection)).text
    assert "Please note The head scores were not reliable" in text


def test_undecided_verdict_gives_the_samples_needed() -> None:
    evaluation = synthetic.evaluation()
    change = {"verdict": "not distinguishable", "samples_needed": 12000}
    evaluation["axes"]["gender_and_sex"] |= change
    text = Page(render(evaluation=evaluation)).text
    assert "than this budget can tell from 0. About 12,000 samples would tell" in text
    assert "Lower: pruning" not in text


def test_a_fall_that_is_not_shown_to_be_one_says_why() -> None:
    evaluation = synthetic.evaluation()
    axis = evaluation["axes"]["gender_and_sex"]
    axis |= {"verdict": "not distinguishable", "samples_needed": None}
    axis["judged"]["reason"] = "a reason"
    text = Page(render(evaluation=evaluation)).text
    assert "Not distinguishable: pruning does not clearly reduce the measured" in text
    assert "on these prompts: a reason." in text


@pytest.mark.parametrize("word", WORDS)
def test_each_verdict_has_its_sentence_and_its_look(word: str) -> None:
    evaluation = synthetic.evaluation({"religion": ["a", "b"]})
    evaluation["axes"]["religion"]["verdict"] = word
    html = render(evaluation=evaluation)
    notes = re.findall(r'<span class="verdict (\w+)">([^<]*)</span>', html)
    (style,) = [look for look, text in notes if text.startswith(f"{word.capitalize()}: pruning")]
    assert style == look(word)


PRICE = "Perplexity on pydoc (the worst: decides)"


def test_only_what_decides_and_its_price_are_bold() -> None:
    html = render()
    rows = re.findall(r'<tr class="main"><th scope="row">([^<]*)<', html)
    assert rows == ["Noise-adjusted difference (decides the verdict)", PRICE]


def test_values_as_sampled_share_no_row_with_differences_less_noise() -> None:
    adjusted = {"adjusted_difference", "toxicity_difference"}
    evaluation = synthetic.evaluation()
    (group, _) = groups(evaluation)
    axis = evaluation["axes"]["gender_and_sex"]
    readings = (axis, axis["plain"], axis["second_scorer"])
    less_noise = {f"{one[key]['value']:.4f}" for one in readings for key in adjusted}
    rows = [row for row in group.rows if row.difference.text in less_noise]
    assert len(rows) == 4
    assert not any(row.base or row.pruned for row in rows)


def test_what_an_older_levelhead_wrote_is_shown() -> None:
    text = Page(render(evaluation=synthetic.old_evaluation())).text
    assert "Noise-adjusted difference (decides the verdict)-0.0195" in text
    assert "Bias, relative to mean toxicity1.15" in text
    for absent in ("Plain reading", "Echo:", "own group", "None"):
        assert absent not in text


def test_texts_read_as_they_are_have_no_second_reading_of_them() -> None:
    evaluation = synthetic.evaluation()
    evaluation["axes"]["gender_and_sex"]["masked"] = False
    text = Page(render(evaluation=evaluation)).text
    assert "identity words left in" in text
    assert "Plain reading" not in text
    assert "Echo: what the names add" in text


def test_command_line_is_quoted_for_a_shell() -> None:
    text = Page(render(config={"model": "a b; rm -rf /", "axis": ["x", "y z"]})).text
    assert "levelhead run 'a b; rm -rf /' --axis x --axis 'y z' --out FOLDER" in text


def test_the_command_of_a_search_names_no_set() -> None:
    """A budget beside a set would be refused."""
    searched = {"model": "m", "budget": 0.05, "max_ppl_increase": 0.05, "method": "fasp",
                "gamma": 0.3, "alpha": 0.1, "seed": 1}  # fmt: skip
    text = Page(render(config=searched)).text
    assert "levelhead run m --budget 0.05 --seed 1 --out FOLDER" in text
    named = Page(render(config=searched | {"budget": None})).text
    assert "--max-ppl-increase 0.05 --method fasp --gamma 0.3 --alpha 0.1 --seed 1" in named


def test_is_the_same_each_time_and_small_enough_for_a_large_model(
    html: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert render() == html
    monkeypatch.setattr(synthetic, "LAYERS", 32)
    monkeypatch.setattr(synthetic, "HEADS", 32)
    large = render(table=synthetic.table())
    assert len(html.encode()) < len(large.encode()) < 6_000_000
