"""Every head: layers x heads in colours, bias against perplexity, how the effects spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from levelhead.reporting import head_view as marks
from levelhead.reporting import numbers
from levelhead.reporting.content import Figure
from levelhead.reporting.figures import style
from levelhead.reporting.head_view import Effect, HeadView

MAX_ERROR_BARS = 400


def heatmap(view: HeadView, effect: Effect, name: str, scale: list[str]) -> Figure:
    """Layers x heads, colours centred at 0; pruned heads crossed, protected ones dotted.

    The page's script draws other choices of heads into the same three traces.
    """
    limit = colour_limit(effect)
    data: list[Figure] = [
        {
            "type": "heatmap",
            "z": effect.values.tolist(),
            "text": [
                [_hover(view, (layer, head), {name: effect}) for head in range(view.num_heads)]
                for layer in range(view.num_layers)
            ],
            "hovertemplate": "%{text}<extra></extra>",
            "colorscale": style.colour_scale(scale),
            "zmin": -limit,
            "zmax": limit,
            "xgap": 1,
            "ygap": 1,
            "colorbar": style.colour_bar(),
        }
    ]
    small = 5 if view.num_heads > 16 else 7
    for status in (marks.PRUNED, marks.PROTECTED):
        pairs = view.with_status(status)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": status,
                "x": [head for _, head in pairs],
                "y": [layer for layer, _ in pairs],
                "hoverinfo": "skip",
                "marker": {
                    "symbol": style.SYMBOLS[status],
                    "size": small + 1 if status == marks.PRUNED else 4,
                    "color": "#111111" if status == marks.PRUNED else "#3a3f47",
                    "line": {"color": "#ffffff", "width": 1},
                },
            }
        )
    across, down = view.num_heads, view.num_layers
    return {
        "data": data,
        "layout": style.layout(
            height=min(max(20 * down + 120, 300), 780),
            xaxis=style.axis("head", range=[-0.5, across - 0.5], **style.ticks(across, 16)),
            yaxis=style.axis("layer", range=[down - 0.5, -0.5], **style.ticks(down, 32)),
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
        colour = style.COLOURS[status]
        trace: Figure = {
            "type": "scatter",
            "mode": "markers",
            "name": status,
            "x": [ppl.of(head)[0] for head in chosen],
            "y": [bias.of(head)[0] for head in chosen],
            "text": [_hover(view, head, {"z_bias": bias, "z_ppl": ppl}) for head in chosen],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": colour, "symbol": style.SYMBOLS[status], "size": 7},
        }
        for key, effect in (("error_x", ppl), ("error_y", bias)):
            if effect.stderr is not None and bias.values.size <= MAX_ERROR_BARS:
                trace[key] = {
                    "type": "data",
                    "array": [max(effect.of(head)[1] or 0.0, 0.0) for head in chosen],
                    "color": colour + ("ff" if status == marks.PRUNED else "55"),
                    "thickness": 1,
                    "width": 0,
                }
        data.append(trace)
    window = scatter_window(view, ppl)
    return {
        "data": data,
        "layout": style.layout(
            height=460,
            dragmode="zoom",
            xaxis=style.axis("z_ppl", fixed=False) | ({"range": window} if window else {}),
            yaxis=style.axis("z_bias", fixed=False),
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


def histogram(edges: Sequence[float], counts: Sequence[float], title: str, colour: str) -> Figure:
    """How many heads have an effect between which two edges."""
    between = list(zip(edges[:-1], edges[1:], counts, strict=True))
    return {
        "data": [
            {
                "type": "bar",
                "x": [(low + high) / 2 for low, high, _ in between],
                "y": [number for _, _, number in between],
                "width": [0.94 * (high - low) for low, high, _ in between],
                "marker": {"color": colour},
                "text": [f"{low:.3g} to {high:.3g}: {n:g} heads" for low, high, n in between],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
            }
        ],
        "layout": style.layout(
            height=300,
            xaxis=style.axis(title, zeroline=True, zerolinewidth=1.5),
            yaxis=style.axis("heads"),
        ),
    }


def _hover(view: HeadView, head: tuple[int, int], effects: Mapping[str, Effect]) -> str:
    lines = [f"layer {head[0]}, head {head[1]}"]
    lines += [f"{name} {numbers.with_error(*effect.of(head))}" for name, effect in effects.items()]
    status = view.status(head)
    return "<br>".join(lines if status == marks.OTHER else [*lines, status])
