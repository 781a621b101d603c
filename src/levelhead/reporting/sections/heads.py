"""Which heads were pruned and by which numbers, and how far those can be relied on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.records import Head, HeadSelection
from levelhead.reporting import numbers
from levelhead.reporting.content import Column, Plot, Section, Table, numeric
from levelhead.reporting.figures import heads as figures
from levelhead.reporting.figures.style import BIAS_SCALE, PPL_SCALE
from levelhead.reporting.head_view import OTHER, PROTECTED, PRUNED, Effect, HeadView
from levelhead.reporting.summary import mapping, texts

MOST_ROWS_OPEN = 40


def head_map(view: HeadView, explorer: Any) -> Section | None:
    """The maps of z_bias and z_ppl; `explorer`: what the page needs to draw other choices."""
    maps = head_maps(view)
    if not maps:
        return None
    first = tuple(plot for plot in maps if plot.key in ("bias-0", "ppl"))
    rest = tuple(plot for plot in maps if plot.key not in ("bias-0", "ppl"))
    return Section(
        key="head-map",
        title="Head map",
        intro=("A square per head: layers downwards, heads across, both counted from 0.",),
        plots=first,
        more_plots=() if explorer else rest,  # the explorer has them all
        more_title="Effects on the other axes",
        explorer=explorer,
    )


def head_maps(view: HeadView) -> list[Plot]:
    """Heat maps of z_bias (one per axis) and z_ppl, z_ppl in second place."""
    counts = [(status, view.count(status)) for status in (PRUNED, PROTECTED)]
    legend = tuple((f"on-map {name}", f"{name} ({number})") for name, number in counts if number)
    plots = []
    for place, (axis, effect) in enumerate(view.bias.items()):
        plots.append(
            Plot(
                key=f"bias-{place}",
                title=f"Effect of each head on bias (z_bias), {axis}",
                caption=bias_caption(effect),
                legend=legend,
                figure=figures.heatmap(view, effect, "z_bias", BIAS_SCALE),
            )
        )
    if view.ppl is not None:
        plot = Plot(
            key="ppl",
            title="Effect of each head on perplexity (z_ppl)",
            caption=ppl_caption(view.ppl),
            legend=legend,
            figure=figures.heatmap(view, view.ppl, "z_ppl", PPL_SCALE),
        )
        plots.insert(1 if view.bias else 0, plot)
    return plots


def bias_caption(effect: Effect) -> str:
    """What the colours of a map of z_bias mean."""
    return (
        "Orange: the head adds measured bias; violet: it lowers it. "
        f"Colours end at ±{numbers.with_error(figures.colour_limit(effect))}."
    )


def ppl_caption(effect: Effect) -> str:
    """What the colours of the map of z_ppl mean."""
    return (
        "Purple: perplexity rises without the head, it is needed; green: it falls. "
        f"Colours end at ±{numbers.with_error(figures.colour_limit(effect))}."
    )


def pruned_heads(selection: HeadSelection, view: HeadView, details: Mapping[str, Any]) -> Section:
    """The heads that were pruned, bias against perplexity, and the reliability of the scores."""
    tables = [*_reliability(details, selection), *_head_table(view, selection)]
    return Section(
        key="heads",
        title="Pruned heads",
        intro=(_how_chosen(selection, view),),
        plots=_scatter(view),
        tables=tuple(tables),
    )


def _how_chosen(selection: HeadSelection, view: HeadView) -> str:
    if not selection.heads:
        return "The heads are scored, and nothing was chosen by their scores yet."
    axis = (selection.details or {}).get("axis")
    gamma, alpha = numbers.finite(selection.gamma), numbers.finite(selection.alpha)
    total = view.num_layers * view.num_heads
    return (
        f"{len(selection.heads)} of {total} heads, chosen by {selection.method}"
        + (f" for {axis}" if axis else "")
        + (f", gamma {gamma} (share of heads protected)" if gamma is not None else "")
        + (f", alpha {alpha} (share of heads pruned)" if alpha is not None else "")
        + ". Layers and heads count from 0."
    )


def _scatter(view: HeadView) -> tuple[Plot, ...]:
    if view.ppl is None or not view.bias:
        return ()
    named = [(status, view.count(status)) for status in (PRUNED, PROTECTED, OTHER)]
    axis, effect = next(iter(view.bias.items()))
    cut = " Some heads lie outside the window: zoom out, or double-click, to see all of them."
    return (
        Plot(
            key="scatter",
            title=f"Bias against perplexity, a mark per head, {axis}",
            caption="Up: the head adds measured bias. Left: it is needed for language "
            "modelling. Lines: one standard error."
            + (cut if figures.scatter_window(view, view.ppl) else ""),
            legend=tuple((status, f"{status} ({number})") for status, number in named if number),
            figure=figures.scatter(view, view.ppl, effect),
            wide=True,
        ),
    )


def _head_table(view: HeadView, selection: HeadSelection) -> list[Table]:
    pruned = view.with_status(PRUNED)
    if not pruned:
        return []
    effects = [(f"z_bias ({axis})", effect) for axis, effect in list(view.bias.items())[:1]]
    effects += [("z_ppl", view.ppl)] if view.ppl is not None else []
    often = _inclusion(selection)
    rows = [
        (
            *map(str, head),
            *(numbers.with_error(*e.of(head)) for _, e in effects),
            *([numbers.percent(often.get(head), 0)] if often else []),
        )
        for head in pruned
    ]
    names = [name for name, _ in effects] + ["Selected in resamples"] * bool(often)
    title = "Each of them" + (", its effects ± one standard error" * bool(effects))
    return [
        Table.of(
            numeric("Layer", "Head", *names),
            rows,
            title=title,
            note=_OFTEN if often else "",
            fold="open" if len(rows) <= MOST_ROWS_OPEN else "closed",
            compact=True,
        )
    ]


_OFTEN = (
    "Selected in resamples: in what share of redrawn sets of templates, words and text the "
    "method selects the head. They scatter around this run, its noise included, so another run may "
    "well select fewer of them."
)


def _inclusion(selection: HeadSelection) -> dict[Head, float]:
    """How often resamples select each head, in the order selection.json lists them."""
    shares = numbers.listed((selection.details or {}).get("inclusion"))
    if selection.unit != "head" or len(shares) != len(selection.heads):
        return {}
    return dict(zip(selection.heads, shares, strict=True))


def _reliability(details: Mapping[str, Any], selection: HeadSelection) -> list[Table]:
    """A row per axis; overlaps are of the method that chose, on its axis, elsewhere of fasp."""
    rows = []
    chosen = selection.details or {}
    own = mapping(chosen, "agreement")
    for axis, data in mapping(details, "axes").items():
        known = mapping(data)
        subgroups, used = texts(known.get("subgroups")), texts(known.get("used"))
        measurable = known.get("measurable") is not False
        names = ", ".join(used) or numbers.MISSING
        share = f" ({len(used)} of {len(subgroups)})" if subgroups else ""
        scored = mapping(details, "agreement", str(axis))
        agreement = own if own and axis == chosen.get("axis") else scored
        rows.append(
            (
                str(axis),
                numbers.decimal(known.get("reliability"), 2),
                _overlap(agreement, "overlap", "overlap_chance"),
                _overlap(agreement, "protected_overlap", "protected_chance"),
                numbers.decimal(known.get("token_toxicity_r2"), 2),
                numbers.decimal(known.get("beta"), 2),
                names + share if measurable else "none",
            )
        )
    if not rows:
        return []
    columns = (
        Column("Axis"),
        *numeric("Reliability", "Pruned in common", "Protected in common"),
        *numeric("Token toxicity R²", "Scale (beta)"),
        Column("Subgroup gaps used"),
    )
    return [
        Table.of(
            columns,
            rows,
            title="How far the scores can be relied on",
            note="Reliability: correlation of head rankings between halves of the run, stepped up "
            "to the whole; 1 is a ranking that another run repeats, 0 is noise. In common: heads "
            "that each half of the data alone picks (as the run did), or protects. Only gaps that "
            "can be told from 0 are used.",
        )
    ]


def _overlap(agreement: Mapping[str, Any], name: str, chance: str) -> str:
    """63% (chance 14%)."""
    share, by_chance = numbers.finite(agreement.get(name)), numbers.finite(agreement.get(chance))
    if share is None:
        return numbers.MISSING
    return f"{share:.0%}" + ("" if by_chance is None else f" (chance {by_chance:.0%})")
