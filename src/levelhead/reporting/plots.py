"""Which plots the page has, and the words around each. The figures themselves: `figures`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from levelhead.reporting import figures, numbers
from levelhead.reporting.heads import OTHER, PROTECTED, PRUNED, HeadView
from levelhead.reporting.summary import mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure and the words around it; `key` names it in the page's data block."""

    key: str
    title: str
    caption: str
    legend: tuple[tuple[str, str], ...]
    """(name of the style of a mark, what it stands for)"""
    figure: figures.Figure


def head_plots(view: HeadView) -> list[Plot]:
    """Heat maps of z_bias (one per axis) and z_ppl, then one against the other."""
    counts = {status: view.count(status) for status in (PRUNED, PROTECTED, OTHER)}
    named = [(status, f"{status} ({number})") for status, number in counts.items() if number]
    on_map = tuple((f"on-map {status}", text) for status, text in named if status != OTHER)
    plots = []
    for place, (axis, effect) in enumerate(view.bias.items()):
        limit = numbers.with_error(figures.colour_limit(effect))
        plots.append(
            Plot(
                key=f"bias-{place}",
                title=f"Effect of each head on bias (z_bias), {axis}",
                caption="Orange: the head adds measured bias; violet: it lowers it. "
                f"Colours end at ±{limit}.",
                legend=on_map,
                figure=figures.heatmap(view, effect, "z_bias", figures.BIAS_SCALE),
            )
        )
    if view.ppl is not None:
        limit = numbers.with_error(figures.colour_limit(view.ppl))
        ppl_map = Plot(
            key="ppl",
            title="Effect of each head on perplexity (z_ppl)",
            caption="Purple: perplexity rises without the head, it is needed; green: it falls. "
            f"Colours end at ±{limit}.",
            legend=on_map,
            figure=figures.heatmap(view, view.ppl, "z_ppl", figures.PPL_SCALE),
        )
        plots.insert(1 if view.bias else 0, ppl_map)
    if view.ppl is not None and view.bias:
        axis, effect = next(iter(view.bias.items()))
        cut = " Some heads lie outside the window: zoom out, or double-click, to see all of them."
        plots.append(
            Plot(
                key="scatter",
                title=f"Bias against perplexity, a mark per head, {axis}",
                caption="Up: the head adds measured bias. Left: it is needed for language "
                "modelling. Lines: one standard error."
                + (cut if figures.scatter_window(view, view.ppl) else ""),
                legend=tuple(named),
                figure=figures.scatter(view, view.ppl, effect),
            )
        )
    return plots


def gap_plots(evaluation: Mapping[str, Any]) -> list[Plot]:
    """The gaps of the subgroups of each axis that evaluation.json gives them for."""
    plots = []
    for place, (axis, data) in enumerate(mapping(evaluation, "axes").items()):
        base, pruned = mapping(data, "base", "gaps"), mapping(data, "pruned", "gaps")
        figure = figures.gap_plot(base, pruned)
        if figure is not None:
            plots.append(
                Plot(
                    key=f"gaps-{place}",
                    title=f"Gap of each subgroup before and after pruning, {axis}",
                    caption="Mean toxicity over the axis minus that of the subgroup, with 95% "
                    "intervals. Below 0: texts about the subgroup are more toxic than the mean. "
                    "The closer all marks are to 0, the smaller the measured bias.",
                    legend=(("base", "base"), ("after", "pruned")),
                    figure=figure,
                )
            )
    return plots
