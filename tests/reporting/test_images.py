"""Plots as files: pages without a browser, PNG and SVG with one, errors that say what to do."""

import sys
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import pytest
import synthetic

from levelhead.errors import ConfigError, MissingExtraError
from levelhead.reporting import images
from levelhead.reporting.build import build


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Findings with two plots only."""
    build_all: Callable[..., Any] = images.build

    def two(findings: Any) -> Any:
        report = build_all(findings)
        kept = [s for s in report.sections if s.key == "results"]
        return type(report)(
            **{f: getattr(report, f) for f in report.__slots__} | {"sections": tuple(kept)}
        )

    monkeypatch.setattr(images, "build", two)
    monkeypatch.setattr(images, "head_maps", lambda view: [])
    evaluation = synthetic.evaluation({"gender_and_sex": ["women", "men"], "x": ["<b>", "men"]})
    return synthetic.findings(evaluation=evaluation)


def test_a_page_per_plot_and_the_map_of_every_axis() -> None:
    table = synthetic.table(("gender_and_sex", "religion"))
    files = images.plot_files(synthetic.findings(table=table), ["html"])
    assert sorted(files) == sorted(
        f"{key}.html" for key in ("bias-0", "bias-1", "ppl", "scatter", "gaps-0")
    )
    page = files["bias-1.html"].decode()
    assert "religion" in page
    assert "default-src &#39;none&#39;" in page


def test_a_printed_figure_has_title_legend_and_ground_and_is_one_that_plotly_knows() -> None:
    for plot in build(synthetic.everything()).plots:
        figure = images.printable(plot)
        go.Figure(figure)
        layout = figure["layout"]
        assert layout["paper_bgcolor"] == "#ffffff"
        assert plot.title.split(",")[0][:30] in layout["title"]["text"].replace("<br>", " ")
        assert layout["height"] > plot.figure["layout"]["height"]
    gaps = next(p for p in build(synthetic.findings()).plots if p.key == "gaps-0")
    assert not gaps.figure["layout"]["showlegend"]
    assert images.printable(gaps)["layout"]["showlegend"]


@pytest.mark.browser
def test_png_and_svg_are_drawn(few: Any) -> None:
    pytest.importorskip("kaleido")
    from choreographer.browsers.chromium import Chromium

    if Chromium.find_browser(skip_local=False) is None:
        pytest.skip("no Chromium found (Debian: apt install chromium)")
    files = images.plot_files(few, ["png", "svg"])
    assert sorted(files) == ["gaps-0.png", "gaps-0.svg", "gaps-1.png", "gaps-1.svg"]
    assert files["gaps-0.png"].startswith(b"\x89PNG")
    svg = files["gaps-1.svg"].decode()
    assert svg.startswith("<svg")
    assert "&#60;b&#62;" in svg
    assert "<b>" not in svg


def test_without_kaleido_the_install_line_is_said(
    monkeypatch: pytest.MonkeyPatch, few: Any
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'levelhead\[plots\]'"):
        images.plot_files(few, ["svg"])
    assert images.plot_files(few, ["html"])


def test_without_a_browser_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, few: Any
) -> None:
    pytest.importorskip("kaleido")
    from choreographer.browsers.chromium import Chromium

    monkeypatch.setattr(Chromium, "find_browser", lambda **_: None)
    with pytest.raises(MissingExtraError, match=r"apt install chromium.*--plots html"):
        images.plot_files(few, ["png"])


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="'pdf': choose from png, svg, html"):
        images.plot_files(synthetic.findings(), ["pdf"])
