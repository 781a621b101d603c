"""The report's plots as files of their own: PNG and SVG through plotly's kaleido, or pages.

kaleido (extra `plots`) draws in a Chrome or Chromium of the machine's, offline. A page needs
neither. It knows figures and where to put files, and nothing of runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from levelhead.errors import ConfigError, MissingExtraError, missing_extra
from levelhead.reporting.build import build
from levelhead.reporting.content import Figure, Plot
from levelhead.reporting.escape import plot_text
from levelhead.reporting.findings import Findings
from levelhead.reporting.head_view import head_view
from levelhead.reporting.render import render_plot
from levelhead.reporting.sections.heads import head_maps

KINDS = ("png", "svg", "html")
DRAWN = ("png", "svg")
WIDTH, ROOM_ABOVE, SCALE = 900, 50, 2
NO_BROWSER = (
    "PNG and SVG plots are drawn by Chrome or Chromium, and none was found; install one "
    "(Debian: apt install chromium), name it in the variable BROWSER_PATH, or use --plots html"
)


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ConfigError for a kind of file that there is not."""
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"plots as {kind!r}: choose from {', '.join(KINDS)}")


def plot_files(findings: Findings, kinds: Sequence[str]) -> dict[str, bytes]:
    """The content of a file for every plot and kind, by name ("ppl.svg").

    Beside the page's plots: the map of every axis, which the page draws on demand.

    Raises:
        ConfigError: an unknown kind.
        MissingExtraError: PNG or SVG without kaleido, or without a browser.
    """
    check_kinds(kinds)
    report = build(findings)
    of_heads = findings.table.unit == "head"
    maps = head_maps(head_view(findings.table, findings.selection)) if of_heads else []
    plots = {plot.key: plot for plot in (*maps, *report.plots)}
    files: dict[str, bytes] = {}
    if drawn := [kind for kind in DRAWN if kind in kinds]:
        figures = {key: printable(plot) for key, plot in plots.items()}
        files |= _draw({(k, kind): figure for kind in drawn for k, figure in figures.items()})
    if "html" in kinds:
        files |= {f"{key}.html": render_plot(report, p).encode() for key, p in plots.items()}
    return files


def printable(plot: Plot) -> Figure:
    """The figure on white with its title and a legend, which the page has beside it."""
    layout = plot.figure["layout"]
    above = {"text": _wrapped(plot.title), "x": 0, "xref": "paper", "y": 0.98, "yanchor": "top"}
    marks = [trace for trace in plot.figure["data"] if trace["type"] == "scatter"]
    return {
        "data": plot.figure["data"],
        "layout": layout
        | {
            "title": above | {"font": {"size": 16}},
            "width": WIDTH,
            "height": layout["height"] + ROOM_ABOVE,
            "margin": {"l": 60, "r": 30, "t": 30 + ROOM_ABOVE, "b": 40},
            "paper_bgcolor": "#ffffff",
            "plot_bgcolor": "#ffffff",
            "font": layout["font"] | {"color": "#1f2328"},
            "showlegend": bool(layout["showlegend"] or (plot.legend and marks)),
            "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        },
    }


def _wrapped(title: str, length: int = 90) -> str:
    lines, line = [], ""
    for word in plot_text(title).split():
        if line and len(line) + len(word) >= length:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "<br>".join([*lines, line])


def _draw(figures: Mapping[tuple[str, str], Figure]) -> dict[str, bytes]:
    """The images of figures by (name, kind), drawn by one browser.

    In a thread of its own: the caller may be in an event loop already.
    """
    try:
        from choreographer.errors import ChromeNotFoundError
        from kaleido import Kaleido
    except ImportError:
        raise missing_extra("Drawing plots as PNG or SVG", "plots") from None

    async def draw() -> dict[str, bytes]:
        images = {}
        async with Kaleido(mathjax=False) as browser:  # else it loads MathJax from the network
            for (name, kind), figure in figures.items():
                options = {"format": kind, "scale": SCALE if kind == "png" else 1}
                images[f"{name}.{kind}"] = await browser.calc_fig(figure, opts=options)
        return images

    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(asyncio.run, draw()).result()
        except ChromeNotFoundError:
            raise MissingExtraError(NO_BROWSER) from None
