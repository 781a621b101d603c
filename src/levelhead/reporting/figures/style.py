"""What the figures have in common: layout, axes, colours that stay apart with any colour vision."""

from __future__ import annotations

from typing import Any

from levelhead.reporting import head_view as marks
from levelhead.reporting.content import Figure

# Diverging scales (ColorBrewer PuOr and PRGn).
BIAS_SCALE = ["#3f3a86", "#8f8ac0", "#d2d0e6", "#f5f5f3", "#fbd09b", "#df8b2c", "#9a4d07"]
PPL_SCALE = ["#6a2a7a", "#a781ba", "#dccbe3", "#f5f5f3", "#c5e4c0", "#6fb573", "#1e6f3a"]
ERROR_SCALE = ["#f5f5f3", "#c9d8e3", "#8fb0c9", "#4f83a8", "#1d5580"]
COLOURS = {marks.PRUNED: "#d55e00", marks.PROTECTED: "#2f86c1", marks.OTHER: "#8a9099"}
SYMBOLS = {marks.PRUNED: "x", marks.PROTECTED: "circle", marks.OTHER: "circle-open"}
# Okabe and Ito's, without those too pale for a line on white, and a symbol and dash to each.
SERIES = [
    ("#d55e00", "circle", "solid"),
    ("#2f86c1", "square", "dash"),
    ("#009e73", "diamond", "dot"),
    ("#b3568c", "triangle-up", "dashdot"),
    ("#b8860b", "triangle-down", "longdash"),
    ("#8a9099", "x", "longdashdot"),
    ("#56a0d3", "star", "solid"),
    ("#7a6a4f", "pentagon", "dash"),
]
LABEL_LENGTH = 24


def colour_scale(scale: list[str]) -> list[list[Any]]:
    """plotly's form of evenly spaced colours."""
    return [[i / (len(scale) - 1), colour] for i, colour in enumerate(scale)]


def colour_bar() -> Figure:
    return {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}}


def shorten(name: str) -> str:
    """A label's length of a name."""
    return name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…"


def axis(title: str, *, fixed: bool = True, **settings: Any) -> Figure:
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12}},
        "automargin": True,
        "fixedrange": fixed,
        **settings,
    }


def named_axis(labels: list[str], **settings: Any) -> Figure:
    """An axis whose places 0, 1, ... have names (labels that plotly may read)."""
    return axis("", showgrid=False, zeroline=False) | {
        "tickmode": "array",
        "tickvals": list(range(len(labels))),
        "ticktext": labels,
        **settings,
    }


def ticks(number: int, all_up_to: int) -> Figure:
    """Ticks and no lines: every index where there is room for it, else every fourth or so."""
    step = 1 if number <= all_up_to else 4 if number <= 4 * all_up_to else 16
    return {"tick0": 0, "dtick": step, "tickangle": 0, "showgrid": False, "zeroline": False}


def layout(*, height: int, legend: bool = False, **settings: Any) -> Figure:
    """`legend`: plotly's own, below the plot, for lines that have no mark in the page's."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 30, "b": 8},  # above: the buttons
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "hoverlabel": {"align": "left"},
        "dragmode": False,
        "modebar": {"bgcolor": "rgba(0,0,0,0)"},
        "showlegend": legend,
        **({"legend": {"orientation": "h", "y": -0.2, "yanchor": "top"}} if legend else {}),
        **settings,
    }
