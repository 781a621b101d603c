"""Methods against each other: a curve per method, and bias against perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from levelhead.reporting.content import Figure
from levelhead.reporting.escape import plot_text
from levelhead.reporting.estimates import Estimate, error_bars, said, said_percent
from levelhead.reporting.figures import style

BIAS_TITLE = "change of bias"
PPL_TITLE = "change of perplexity"


@dataclass(frozen=True, slots=True)
class Mark:
    """One model of a curve: a share of heads (pruned, or protected) and what that did."""

    share: float
    y: Estimate
    hover: str = ""
    x: Estimate | None = None
    """For bias against perplexity: the change of perplexity."""


@dataclass(frozen=True, slots=True)
class Series:
    """One method's models; `place` picks its colour, symbol and dash.

    Several with one place are draws of one method: the legend names the first.
    """

    label: str
    place: int
    marks: tuple[Mark, ...]


def over_share(
    series: Sequence[Series], share: str, title: str, *, percent: bool = False
) -> Figure:
    """A line per series over a share of heads, with 95% intervals; lines side by side."""
    data: list[Figure] = []
    span = max((mark.share for one in series for mark in one.marks), default=0.0) or 1.0
    say = said_percent if percent else said
    for number, one in enumerate(series):
        colour, symbol, dash = style.SERIES[one.place % len(style.SERIES)]
        shift = 0.004 * span * (number - (len(series) - 1) / 2)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                **_named(series, number),
                "x": [mark.share + shift for mark in one.marks],
                "y": [mark.y.value for mark in one.marks],
                "text": [
                    f"{plot_text(one.label)}, {share} {mark.share:g}<br>{say(mark.y)}"
                    + (f"<br>{plot_text(mark.hover)}" if mark.hover else "")
                    for mark in one.marks
                ],
                "hovertemplate": "%{text}<extra></extra>",
                "line": {"color": colour, "dash": dash, "width": 2},
                "marker": {"color": colour, "symbol": symbol, "size": 7},
                "error_y": _bars([mark.y for mark in one.marks], colour + "88", 2),
            }
        )
    what = {"alpha": "alpha (share of heads pruned)", "gamma": "gamma (share of heads protected)"}
    yaxis = style.axis(title, fixed=False, zeroline=True, zerolinewidth=1.5)
    if percent:
        yaxis["tickformat"] = "+.0%"
    return {
        "data": data,
        "layout": style.layout(
            height=400 if len(series) > 1 else 300,
            legend=len(series) > 1,
            dragmode="zoom",
            xaxis=style.axis(what[share], fixed=False),
            yaxis=yaxis,
        ),
    }


def _named(series: Sequence[Series], number: int) -> Figure:
    one = series[number]
    first = next(i for i, other in enumerate(series) if other.place == one.place)
    name = plot_text(one.label)
    return {"name": name, "legendgroup": str(one.place), "showlegend": first == number}


def _bars(found: Sequence[Estimate], colour: str, width: int) -> Figure:
    return error_bars(found, colour, thickness=1, width=width)


def against(series: Sequence[Series]) -> Figure:
    """Change of perplexity across, of bias up, a mark per model; the front is a grey line."""
    data: list[Figure] = []
    for number, one in enumerate(series):
        colour, symbol, _ = style.SERIES[one.place % len(style.SERIES)]
        marks = [(mark, mark.x) for mark in one.marks if mark.x is not None]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                **_named(series, number),
                "x": [x.value for _, x in marks],
                "y": [mark.y.value for mark, _ in marks],
                "text": [
                    f"{plot_text(one.label)}, alpha {mark.share:g}<br>bias {said(mark.y)}"
                    f"<br>perplexity {said_percent(x)}"
                    for mark, x in marks
                ],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"color": colour, "symbol": symbol, "size": 8},
                "error_x": _bars([x for _, x in marks], colour + "55", 0),
                "error_y": _bars([mark.y for mark, _ in marks], colour + "55", 0),
            }
        )
    points = [(mark.x.value, mark.y.value) for one in series for mark in one.marks if mark.x]
    edge = front(points)
    line: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "x": [x for x, _ in edge],
        "y": [y for _, y in edge],
        "line": {"color": "#8a9099", "width": 2, "shape": "hv"},
        "hoverinfo": "skip",
    }
    return {
        "data": [line, *data],
        "layout": style.layout(
            height=460,
            legend=True,
            dragmode="zoom",
            xaxis=style.axis(PPL_TITLE, fixed=False, tickformat="+.0%", zeroline=True),
            yaxis=style.axis(BIAS_TITLE, fixed=False, zeroline=True),
        ),
    }


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those with nothing both left of and below them, from left to right (Pareto's)."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not best or y < best[-1][1]:
            best.append((x, y))
    return best
