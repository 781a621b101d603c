"""The plots of the page as plotly figures: plain data and layout, drawn by the page's script.

Plain dictionaries rather than plotly's classes: these take a second to import. The tests check
the dictionaries against plotly's schema. Text and line colours that must follow light and dark
mode are set by the page's style sheet, the colours here are legible on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from levelhead.reporting import heads as marks
from levelhead.reporting import numbers
from levelhead.reporting.escape import plot_text
from levelhead.reporting.heads import Effect, HeadView
from levelhead.reporting.summary import mapping

Figure = dict[str, Any]

# Diverging scales that stay apart with any colour vision (ColorBrewer PuOr and PRGn).
BIAS_SCALE = ["#3f3a86", "#8f8ac0", "#d2d0e6", "#f5f5f3", "#fbd09b", "#df8b2c", "#9a4d07"]
PPL_SCALE = ["#6a2a7a", "#a781ba", "#dccbe3", "#f5f5f3", "#c5e4c0", "#6fb573", "#1e6f3a"]
COLOURS = {marks.PRUNED: "#d55e00", marks.PROTECTED: "#2f86c1", marks.OTHER: "#8a9099"}
SYMBOLS = {marks.PRUNED: "x", marks.PROTECTED: "circle", marks.OTHER: "circle-open"}
LABEL_LENGTH = 24
MAX_ERROR_BARS = 400


def heatmap(view: HeadView, effect: Effect, name: str, scale: list[str]) -> Figure:
    """Layers x heads, colours centred at 0; pruned heads crossed, protected ones dotted."""
    values = effect.values
    limit = colour_limit(effect)
    data: list[Figure] = [
        {
            "type": "heatmap",
            "z": values.tolist(),
            "text": [
                [_hover(view, (layer, head), {name: effect}) for head in range(view.num_heads)]
                for layer in range(view.num_layers)
            ],
            "hovertemplate": "%{text}<extra></extra>",
            "colorscale": [[i / (len(scale) - 1), colour] for i, colour in enumerate(scale)],
            "zmin": -limit,
            "zmid": 0,
            "zmax": limit,
            "xgap": 1,
            "ygap": 1,
            "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}},
        }
    ]
    small = 5 if view.num_heads > 16 else 7
    for status in (marks.PRUNED, marks.PROTECTED):
        pairs = view.with_status(status)
        if pairs:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": status,
                    "x": [head for _, head in pairs],
                    "y": [layer for layer, _ in pairs],
                    "hoverinfo": "skip",
                    "marker": {
                        "symbol": SYMBOLS[status],
                        "size": small + 1 if status == marks.PRUNED else 4,
                        "color": "#111111" if status == marks.PRUNED else "#3a3f47",
                        "line": {"color": "#ffffff", "width": 1},
                    },
                }
            )
    return {
        "data": data,
        "layout": _layout(
            height=min(max(20 * view.num_layers + 120, 300), 780),
            xaxis=_axis("head", range=[-0.5, view.num_heads - 0.5], **_ticks(view.num_heads, 16)),
            yaxis=_axis(
                "layer", range=[view.num_layers - 0.5, -0.5], **_ticks(view.num_layers, 32)
            ),
        ),
    }


def colour_limit(effect: Effect) -> float:
    """Where the colours end: beyond 98% of the heads, lest one head turn all others pale."""
    sizes = np.abs(effect.values)
    return float(np.quantile(sizes, 0.98)) or float(sizes.max()) or 1.0


def scatter(view: HeadView, ppl: Effect, bias: Effect) -> Figure:
    """z_ppl across, z_bias up, a marker per head with its standard errors."""
    data: list[Figure] = []
    for status in (marks.OTHER, marks.PROTECTED, marks.PRUNED):
        chosen = view.with_status(status)
        if not chosen:
            continue
        trace: Figure = {
            "type": "scatter",
            "mode": "markers",
            "name": status,
            "x": [ppl.of(head)[0] for head in chosen],
            "y": [bias.of(head)[0] for head in chosen],
            "text": [_hover(view, head, {"z_bias": bias, "z_ppl": ppl}) for head in chosen],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": COLOURS[status], "symbol": SYMBOLS[status], "size": 7},
        }
        for key, effect in (("error_x", ppl), ("error_y", bias)):
            if effect.stderr is not None and bias.values.size <= MAX_ERROR_BARS:
                trace[key] = {
                    "type": "data",
                    "array": [max(effect.of(head)[1] or 0.0, 0.0) for head in chosen],
                    "color": COLOURS[status] + ("ff" if status == marks.PRUNED else "55"),
                    "thickness": 1,
                    "width": 0,
                }
        data.append(trace)
    window = scatter_window(view, ppl)
    return {
        "data": data,
        "layout": _layout(
            height=460,
            dragmode="zoom",
            xaxis=_axis("z_ppl", fixed=False) | ({"range": window} if window else {}),
            yaxis=_axis("z_bias", fixed=False),
        ),
    }


def scatter_window(view: HeadView, ppl: Effect) -> list[float] | None:
    """The z_ppl shown at first, where a few heads lie so far out that the rest would be a line.

    All pruned heads are inside. None: all heads are shown.
    """
    low, high = (float(q) for q in np.quantile(ppl.values, (0.03, 0.97)))
    if float(np.ptp(ppl.values)) <= 4 * (high - low):
        return None
    pruned = [ppl.of(head)[0] for head in view.pruned]
    low, high = min([low, *pruned]), max([high, *pruned])
    margin = 0.15 * (high - low) or 1.0
    return [low - margin, high + margin]


def gap_plot(base: Mapping[str, Any], pruned: Mapping[str, Any]) -> Figure | None:
    """Signed gap of each subgroup, base above pruned, with 95% intervals; None without gaps.

    `base` and `pruned`: {subgroup: {"value", "ci95"}}.
    """
    names = list(dict.fromkeys([*base, *pruned]))
    data: list[Figure] = []
    for label, gaps, offset, colour, symbol in (
        ("base", base, -0.14, COLOURS[marks.OTHER], "circle"),
        ("pruned", pruned, 0.14, COLOURS[marks.PRUNED], "diamond"),
    ):
        rows = []
        for place, name in enumerate(names):
            value = numbers.finite(mapping(gaps, name).get("value"))
            if value is None:
                continue
            low, high = numbers.pair(mapping(gaps, name).get("ci95")) or (value, value)
            decimals = numbers.decimals_for([value])
            text = f"{numbers.decimal(value, decimals)} {numbers.interval([low, high], decimals)}"
            hover = f"{plot_text(str(name))}<br>{label} {text}"
            rows.append((place + offset, value, max(high - value, 0), max(value - low, 0), hover))
        if rows:
            y, x, above, below, hovers = (list(column) for column in zip(*rows, strict=True))
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": label,
                    "x": x,
                    "y": y,
                    "text": hovers,
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {"color": colour, "symbol": symbol, "size": 9},
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": above,
                        "arrayminus": below,
                        "color": colour,
                        "thickness": 1.5,
                        "width": 3,
                    },
                }
            )
    if not data:
        return None
    yaxis = _axis("", range=[len(names) - 0.5, -0.5], showgrid=False, zeroline=False)
    yaxis |= {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [plot_text(_short(str(name))) for name in names],
    }
    xaxis = _axis("gap")
    xaxis |= {"zeroline": True, "zerolinewidth": 1.5, "nticks": 5}
    layout = _layout(height=min(40 * len(names) + 130, 1400), xaxis=xaxis, yaxis=yaxis)
    return {"data": data, "layout": layout}


def _hover(view: HeadView, head: tuple[int, int], effects: Mapping[str, Effect]) -> str:
    lines = [f"layer {head[0]}, head {head[1]}"]
    lines += [f"{name} {numbers.with_error(*effect.of(head))}" for name, effect in effects.items()]
    status = view.status(head)
    return "<br>".join(lines if status == marks.OTHER else [*lines, status])


def _short(name: str) -> str:
    return name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…"


def _axis(title: str, *, fixed: bool = True, **settings: Any) -> Figure:
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12}},
        "automargin": True,
        "fixedrange": fixed,
        **settings,
    }


def _ticks(number: int, all_up_to: int) -> Figure:
    """Ticks and no lines: every index where there is room for it, else every fourth or so."""
    step = 1 if number <= all_up_to else 4 if number <= 4 * all_up_to else 16
    return {"tick0": 0, "dtick": step, "tickangle": 0, "showgrid": False, "zeroline": False}


def _layout(*, height: int, **settings: Any) -> Figure:
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 30, "b": 8},  # above: the buttons
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "hoverlabel": {"align": "left"},
        "dragmode": False,
        "modebar": {"bgcolor": "rgba(0,0,0,0)"},
        "showlegend": False,
        **settings,
    }
