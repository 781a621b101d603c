"""Tables of numbers in colours: correlations between axes or measures, cross effects, a search."""

from __future__ import annotations

from collections.abc import Sequence

from levelhead.reporting.content import Figure
from levelhead.reporting.escape import plot_text
from levelhead.reporting.figures import style


def matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]],
    hovers: Sequence[Sequence[str]],
    *,
    limit: float,
    scale: list[str] | None = None,
    across: str = "",
    down: str = "",
) -> Figure:
    """Rows downwards, columns across; the number stands in each cell, so colour is no must.

    Args:
        rows, columns: their names.
        values: by row and column; None leaves a cell empty.
        texts, hovers: what a cell says, and more on hovering (their names are escaped here).
        limit: the colours end at plus and minus this.
        scale: from the most negative to the most positive.
        across, down: titles of the axes.
    """
    named = [
        [f"{plot_text(row)} / {plot_text(column)}<br>{plot_text(hovers[i][j])}"
         for j, column in enumerate(columns)]
        for i, row in enumerate(rows)
    ]  # fmt: skip
    heat: Figure = {
        "type": "heatmap",
        "z": [list(line) for line in values],
        "text": [list(line) for line in texts],
        "texttemplate": "%{text}",
        "customdata": named,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "colorscale": style.colour_scale(scale or style.BIAS_SCALE),
        "zmin": -limit,
        "zmax": limit,
        "xgap": 2,
        "ygap": 2,
        "colorbar": style.colour_bar(),
        "showscale": not any(text for line in texts for text in line),
    }
    angle = -30 if max((len(name) for name in columns), default=0) > 6 else 0
    xaxis = style.named_axis(_labels(columns), side="bottom", tickangle=angle)
    yaxis = style.named_axis(_labels(rows), range=[len(rows) - 0.5, -0.5])
    xaxis["title"] |= {"text": across}
    yaxis["title"] |= {"text": down}
    height = min(max(44 * len(rows) + 160, 240), 760)
    return {"data": [heat], "layout": style.layout(height=height, xaxis=xaxis, yaxis=yaxis)}


def marked(figure: Figure, places: Sequence[tuple[int, int]], symbol: str, name: str) -> Figure:
    """The same figure with marks in the lower right of these cells (row, column)."""
    trace: Figure = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [column + 0.34 for _, column in places],
        "y": [row + 0.3 for row, _ in places],
        "hoverinfo": "skip",
        "marker": {
            "symbol": symbol,
            "size": 8,
            "color": "#111111",
            "line": {"color": "#ffffff", "width": 1},
        },
    }
    return {**figure, "data": [*figure["data"], trace]} if places else figure


def _labels(names: Sequence[str]) -> list[str]:
    return [plot_text(style.shorten(name)) for name in names]
