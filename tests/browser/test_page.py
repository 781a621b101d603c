"""The page in a real browser: hostile text does nothing, nothing is loaded, it fits and prints."""

import re
from typing import Any

import pytest
from tests.browser.conftest import Open, Opened
from tests.reporting import synthetic

from levelhead.records import HeadSelection
from levelhead.reporting.build import build
from levelhead.reporting.render import render_plot, render_report

pytestmark = pytest.mark.browser
EVIL = (
    "</script><script>window.pwned = 1; alert(1)</script>"
    '<img src="https://example.org/x" onerror="window.pwned = 2">'
    "<svg onload=alert(3)><a href='javascript:alert(4)'>x</a>${alert(5)}{{ 7*7 }}"
)
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(synthetic.everything(run="runs/first", date="2026-11-28"))


@pytest.fixture(scope="module")
def shared(open_page: Open, html: str) -> Opened:
    """Opened once; whoever changes something changes it back."""
    return open_page(html)


@pytest.fixture(scope="module")
def hostile() -> str:
    evaluation = synthetic.evaluation({EVIL: [EVIL, "men"]}, warnings=[EVIL])
    evaluation |= {"headline": EVIL, "versions": {EVIL: EVIL}}
    selection = HeadSelection.of(synthetic.PRUNED, method=EVIL, details={"axis": EVIL})
    return render_report(
        synthetic.everything(
            evaluation=evaluation,
            table=synthetic.table((EVIL,), subgroups=(EVIL, "men")),
            selection=selection,
            config=synthetic.config(EVIL) | {"prompts": EVIL, EVIL: EVIL},
            details=synthetic.details(EVIL, (EVIL, "men")),
            compare=synthetic.compare(EVIL, EVIL),
            axes=synthetic.axes(EVIL, "men"),
            agree=synthetic.agree(EVIL),
            examples=synthetic.examples(EVIL),
            glance=synthetic.glance(EVIL),
            reproduce=synthetic.reproduce() | {"differs": [EVIL]},
        )
    )


def open_all(page: Any) -> None:
    """Open all that is folded, and wait until every plot is drawn."""
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-figure]')].every(n => n.querySelector('.main-svg'))"
    )


def harmed(opened: Opened) -> bool:
    return bool(
        opened.dialogs or opened.outside or opened.page.evaluate("window.pwned !== undefined")
    )


def test_hostile_text_does_nothing(open_page: Open, hostile: str) -> None:
    opened = open_page(hostile)
    page = opened.page
    open_all(page)
    for name in ("gamma", "alpha"):
        page.locator(f"#{name}").press("ArrowRight")
    page.hover("[data-figure='bias-0'] .nsewdrag")
    page.hover("[data-figure='gaps-0'] .nsewdrag")
    page.wait_for_timeout(200)
    assert not harmed(opened)
    assert (opened.errors, opened.console) == ([], [])
    assert page.evaluate("document.querySelectorAll('img, main a[href^=java]').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 4
    shown = page.inner_text("main")
    assert shown.count("onerror=") >= 25
    assert "49" not in page.inner_text(".headline")
    assert "onerror=" in page.inner_text(".written >> nth=0")


def test_hostile_text_would_be_noticed(open_page: Open) -> None:
    opened = open_page(f"<!doctype html><body>{EVIL}")
    opened.page.wait_for_timeout(200)
    assert harmed(opened)
    assert opened.dialogs
    assert opened.outside == ["https://example.org/x"]


def test_a_plot_of_its_own_is_as_safe(open_page: Open, hostile: str) -> None:
    report = build(
        synthetic.findings(
            evaluation=synthetic.evaluation({EVIL: [EVIL, "men"]}), config=synthetic.config(EVIL)
        )
    )
    plot = next(plot for plot in report.plots if plot.key == "gaps-0")
    opened = open_page(render_plot(report, plot))
    opened.page.wait_for_selector(".main-svg")
    assert not harmed(opened)
    assert (opened.errors, opened.console) == ([], [])


@pytest.mark.parametrize("which", ["html", "hostile"])
def test_a_phone_need_not_scroll_sideways(
    open_page: Open, which: str, request: pytest.FixtureRequest
) -> None:
    page = open_page(request.getfixturevalue(which), **PHONE).page
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) == 360
    open_all(page)
    assert page.evaluate(wide) == 360
    page.evaluate("document.querySelector('h1').style.width = '500px'")
    assert page.evaluate(wide) > 360  # would be noticed


def test_paper_has_every_section_and_all_but_what_stands_behind_the_warning(
    shared: Opened,
) -> None:
    page = shared.page
    page.evaluate("document.body.classList.add('whole')")
    page.emulate_media(media="print")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-figure]')].every(n => n.querySelector('.main-svg'))"
    )
    hidden = page.evaluate(
        "[...document.querySelectorAll('h1, h2, table, figure, .main-svg, .warnings')]"
        ".filter(one => one.getBoundingClientRect().height < 5).map(one => one.outerHTML)"
    )
    assert hidden == []
    assert page.locator("#heads").is_visible()
    assert not page.locator("nav").is_visible()
    assert not page.locator(".written >> nth=0").is_visible()
    assert page.get_by_text("Texts that were not opened on the screen").is_visible()
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.main-svg')]"
        ".map(one => one.getBoundingClientRect().width))"
    )
    assert widest <= 640
    page.set_viewport_size({"width": 680, "height": 900})  # paper is narrow, and still no phone
    assert page.evaluate("document.querySelector('thead').getBoundingClientRect().height") > 5
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(media="screen")
    page.wait_for_function("document.querySelector('details:not([open])') !== null")


def pages(page: Any) -> int:
    """Of the page as a PDF in A4."""
    return len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4")))


def test_a_run_is_printed_on_one_page_and_in_whole_where_asked(open_page: Open) -> None:
    long = "two halves of the text protect few of the same heads, so that another run of it would "
    warnings = [f"{number}: {3 * long}" for number in range(5)]
    findings = synthetic.everything(
        run="runs/first", date="2026-11-28", evaluation=synthetic.evaluation(warnings=warnings)
    )
    page = open_page(render_report(findings)).page
    page.emulate_media(media="print")
    for present in ("#banner", ".tile >> nth=2", "#next", ".facts", ".warnings li >> nth=4",
                    "[data-figure='gaps-0']"):  # fmt: skip
        assert page.locator(present).is_visible(), present
    for absent in ("nav", ".headline", "#results", "#heads", "#options", "table >> nth=0",
                   "[data-figure='ppl']"):  # fmt: skip
        assert not page.locator(absent).is_visible(), absent
    page.emulate_media(media="null")  # else a PDF is what is emulated
    assert not page.get_by_text("The summary of a levelhead report").is_visible()
    assert pages(page) == 1
    page.evaluate("window.print = () => { window.printed = document.body.className; }")
    page.locator("#print-whole").click()
    assert page.evaluate("window.printed") == "whole"
    assert pages(page) > 5, "the control: all of it"
    page.wait_for_function("document.body.className === ''")
    assert pages(page) == 1, "the next time it is the summary again"


def test_a_report_without_a_result_is_printed_as_it_is(open_page: Open) -> None:
    page = open_page(
        render_report(synthetic.findings(evaluation={}, compare=synthetic.compare()))
    ).page
    assert page.locator("#print-whole").count() == 0
    page.emulate_media(media="print")
    assert page.locator("#options").is_visible()


def test_texts_wait_behind_a_warning(shared: Opened) -> None:
    page = shared.page
    assert not page.locator(".written >> nth=0").is_visible()
    page.locator(".warned > summary").focus()
    page.keyboard.press("Enter")
    assert page.inner_text(".toxicity >> nth=0") == "toxicity 0.61"
    assert page.inner_text(".written >> nth=0").strip() == "was kind.\nShe"
    page.keyboard.press("Enter")
    assert not page.locator(".written >> nth=0").is_visible()


def test_without_scripts_the_tables_stand(open_page: Open, html: str) -> None:
    page = open_page(html, java_script_enabled=False).page
    assert not page.locator("#explorer").is_visible()
    assert page.get_by_text("The plots need JavaScript").is_visible()
    assert page.locator("section[aria-labelledby=heads] td").first.is_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_stands_out_from_its_ground(shared: Opened, scheme: str) -> None:
    shared.page.emulate_media(color_scheme=scheme)
    colours = shared.page.evaluate(
        """() => {
          const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
          const rgb = colour => {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const of = (selector, ground) => [
            rgb(getComputedStyle(document.querySelector(selector)).color),
            rgb(getComputedStyle(document.querySelector(ground)).backgroundColor)];
          const label = getComputedStyle(document.querySelector(".ytick text")).fill;
          return [of(".headline", ".headline"), of(".soft", "body"), of("summary", "body"),
                  of("#prediction p", ".panel"), of("#reset", "#reset"), of("nav a", "body"),
                  [rgb(label), rgb(getComputedStyle(document.querySelector("figure"))
                    .backgroundColor)]];
        }"""
    )
    for text, ground in colours:
        assert contrast(text, ground) >= 4.5, (text, ground)
    bright = sum(colours[0][1]) > 3 * 128
    assert bright == (scheme == "light")


def test_every_plot_is_drawn_and_nothing_is_loaded(shared: Opened) -> None:
    open_all(shared.page)
    assert len(shared.requests) == 1
    assert shared.requests[0].startswith("file:")
    assert (shared.errors, shared.console) == ([], [])


def contrast(a: list[int], b: list[int]) -> float:
    """Ratio of two colours' luminances (WCAG 2.1); text needs 4.5."""

    def luminance(rgb: list[int]) -> float:
        parts = [c / 255 for c in rgb]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (768, 1024), (390, 844)])
def test_the_first_screen_holds_the_verdict_and_nothing_overlaps(
    open_page: Open, html: str, width: int, height: int
) -> None:
    page = open_page(html, viewport={"width": width, "height": height}).page
    box = {
        name: page.locator(f"#{name}").bounding_box()
        for name in ("banner", "tile-gap", "tile-toxicity", "tile-price", "next")
    }
    banner = box["banner"]
    assert banner["y"] + banner["height"] < height, "the verdict is on the first screen"
    assert page.locator("#banner strong").inner_text() in ("Ready", "Your decision", "Not ready")
    if width >= 1280:
        last = box["next"]
        assert last["y"] + last["height"] < height, "what to do is there without scrolling"
    names = list(box)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            a, b = box[one], box[other]
            beside = a["x"] + a["width"] <= b["x"] + 0.5 or b["x"] + b["width"] <= a["x"] + 0.5
            above = a["y"] + a["height"] <= b["y"] + 0.5 or b["y"] + b["height"] <= a["y"] + 0.5
            assert beside or above, f"{one} overlaps {other}"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
