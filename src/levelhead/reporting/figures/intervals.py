"""Values with their intervals side by side, a line per name: gaps, sums against joint effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from levelhead.reporting import head_view as marks
from levelhead.reporting import numbers
from levelhead.reporting.content import Figure
from levelhead.reporting.escape import plot_text
from levelhead.reporting.estimates import Estimate, error_bars
from levelhead.reporting.figures import style

FIRST = (style.COLOURS[marks.OTHER], "circle")
SECOND = (style.COLOURS[marks.PRUNED], "diamond")


@dataclass(frozen=True, slots=True)
class Side:
    """The values of one kind by name, and how they are drawn: (colour, symbol)."""

    label: str
    values: Mapping[str, Estimate]
    look: tuple[str, str]


def side_by_side(sides: Sequence[Side], title: str, *, percent: bool = False) -> Figure | None:
    """A line per name, a mark with an interval per side; None without any value."""
    names = list(dict.fromkeys(name for side in sides for name in side.values))
    if not names:
        return None
    data: list[Figure] = []
    for number, side in enumerate(sides):
        offset = 0.28 * (number - (len(sides) - 1) / 2)
        found = [(place, side.values[n]) for place, n in enumerate(names) if n in side.values]
        if not found:
            continue
        colour, symbol = side.look
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plot_text(side.label),
                "x": [one.value for _, one in found],
                "y": [place + offset for place, _ in found],
                "text": [_hover(names[place], side.label, one, percent) for place, one in found],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"color": colour, "symbol": symbol, "size": 9},
                "error_x": error_bars([one for _, one in found], colour),
            }
        )
    yaxis = style.named_axis(
        [plot_text(style.shorten(name)) for name in names], range=[len(names) - 0.5, -0.5]
    )
    xaxis = style.axis(title) | {"zeroline": True, "zerolinewidth": 1.5, "nticks": 5}
    if percent:
        xaxis["tickformat"] = "+.0%"
    height = min(40 * len(names) + 130, 1400)
    return {"data": data, "layout": style.layout(height=height, xaxis=xaxis, yaxis=yaxis)}


def _hover(name: str, label: str, one: Estimate, percent: bool) -> str:
    if percent:
        text = numbers.percent(one.value, signed=True)
        text += f" {numbers.percent_interval(one.ends)}"
    else:
        decimals = numbers.decimals_for([one.value])
        text = f"{numbers.decimal(one.value, decimals)} {numbers.interval(one.ends, decimals)}"
    return f"{plot_text(name)}<br>{plot_text(label)} {text}".rstrip()
