"""All heads at once: how their effects spread, how many are critical, what gamma does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from levelhead.reporting import numbers
from levelhead.reporting.content import Column, Plot, Section, Table, numeric
from levelhead.reporting.estimates import Estimate, cell, estimate, share_cell
from levelhead.reporting.figures import curves
from levelhead.reporting.figures.curves import Mark, Series
from levelhead.reporting.figures.heads import histogram
from levelhead.reporting.summary import mapping, records, texts, word

Json = Mapping[str, Any]


def glance(data: Json | None) -> Section | None:
    """What `experiments.glance` computed of the scores."""
    if data is None:
        return None
    gammas = records(data, "gamma")
    gammas = [one for one in gammas if numbers.finite(one.get("gamma")) is not None]
    axes = list(dict.fromkeys(word(one.get("axis")) for one in gammas))
    first = [one for one in gammas if word(one.get("axis")) == axes[0]]
    critical = mapping(data, "critical")
    plots = [*_distributions(mapping(data, "distributions")), *_gamma_plots(first)]
    tables = [*_critical(critical), *_correlations(mapping(data, "correlation"))]
    tables += _gamma_tables(gammas, axes)
    if not plots and not tables:
        return None
    return Section(
        key="glance",
        title="Heads at a glance",
        intro=(
            *_critical_sentence(critical),
            *texts(data.get("notes")),
        ),
        plots=tuple(plots),
        tables=tuple(tables),
    )


def _critical_sentence(data: Json) -> tuple[str, ...]:
    found = share_cell(data.get("share"))
    threshold = numbers.finite(data.get("threshold"))
    if not found or threshold is None:
        return ()
    paper = numbers.finite(data.get("paper"))
    interval = f" {found.interval}" if found.interval else ""
    return (
        f"Critical heads, without which perplexity rises by more than {100 * threshold:g}%: "
        f"{found.text}{interval} of all"
        + (f"; the paper says about {paper:.0%}, of other models." if paper is not None else "."),
    )


def _distributions(data: Json) -> list[Plot]:
    plots = []
    named = [(f"bias-{i}", str(a), mapping(d)) for i, (a, d) in enumerate(_first(data, "bias"))]
    named += [("ppl", "", mapping(data, "ppl"))]
    for key, axis, one in named:
        bars = mapping(one, "histogram")
        edges, counts = (numbers.listed(bars.get(part)) for part in ("edges", "counts"))
        if not counts or len(edges) != len(counts) + 1:
            continue
        bias = key != "ppl"
        title = f"bias, {axis}" if bias else "perplexity"
        outside = [numbers.finite(bars.get(side)) or 0 for side in ("below", "above")]
        plots.append(
            Plot(
                key=f"spread-{key}",
                title=f"How many heads have which effect on {title}",
                caption=("Right of 0: the head adds measured bias." if bias else "Left of 0: the "
                "head is needed.")
                + (f" Outside: {outside[0]:g} heads to the left, {outside[1]:g} to the right."
                   if any(outside) else ""),
                figure=histogram(
                    edges, counts, "z_bias" if bias else "z_ppl", "#df8b2c" if bias else "#7d4f92"
                ),
            )
        )  # fmt: skip
    return plots


def _first(data: Json, key: str) -> list[tuple[Any, Any]]:
    return list(mapping(data, key).items())[:1]


def _gamma_plots(rows: Sequence[Json]) -> list[Plot]:
    plots = []
    for key, name, title, percent in (
        ("gamma-bias", "bias_change", "bias", False),
        ("gamma-ppl", "ppl_increase", "perplexity", True),
    ):
        found = [(float(row["gamma"]), numbers.finite(row.get(name))) for row in rows]
        marks = [Mark(gamma, Estimate(value)) for gamma, value in found if value is not None]
        if len(marks) < 2:
            continue
        said_of = "Effects on the signed gaps, added up." if not percent else "Sum of z_ppl."
        plots.append(
            Plot(
                key=key,
                title=f"Predicted change of {title} at other gammas",
                caption=f"{said_of} The same share of heads is pruned throughout.",
                figure=curves.over_share(
                    [Series("FASP", 1, tuple(marks))],
                    "gamma",
                    curves.PPL_TITLE if percent else curves.BIAS_TITLE,
                    percent=percent,
                ),
            )
        )
    return plots


def _critical(data: Json) -> list[Table]:
    rows = [
        (f"{100 * threshold:g}%", share_cell(one.get("share")))
        for one in records(data, "thresholds")
        if (threshold := numbers.finite(one.get("threshold"))) is not None
        and estimate(one.get("share"))
    ]
    if not rows:
        return []
    same = numbers.finite(mapping(data, "halves").get("same"))
    note = (
        "From the heads whose own 95% interval lies wholly beyond the threshold to those whose "
        "interval reaches it."
    )
    if same is not None:
        note += (
            f" Of the heads that one half of the text calls critical, {same:.0%} are critical by "
            "the other."
        )
    columns = numeric("Perplexity rises by more than", "Share of heads")
    title = "How many heads are critical"
    return [Table.of(columns, rows, title=title, note=note, compact=True)]


def _correlations(data: Json) -> list[Table]:
    rows = []
    for axis, one in data.items():
        known = mapping(one)
        reliability = mapping(known, "reliability")
        rows.append(
            (
                str(axis),
                cell(known.get("spearman"), 2),
                cell(known.get("corrected"), 2),
                numbers.decimal(reliability.get("bias"), 2),
                numbers.decimal(reliability.get("ppl"), 2),
            )
        )
    if not rows:
        return []
    return [
        Table.of(
            (
                Column("Axis"),
                *numeric("Spearman", "Corrected for unreliability"),
                *numeric("Reliability of z_bias", "Reliability of z_ppl"),
            ),
            rows,
            title="Do heads that language modelling needs add bias?",
            note="Correlation of z_ppl with z_bias over heads. Below 0: needed heads add bias.",
        )
    ]


def _gamma_tables(rows: Sequence[Json], axes: Sequence[str]) -> list[Table]:
    if not rows:
        return []
    several = len(axes) > 1
    columns = [*([Column("Axis")] * several), *numeric("gamma", "Protected", "Pruned")]
    columns += numeric("Bias, signed gaps", "Bias, sum of z_bias", "the same, held out")
    columns += numeric("Perplexity", "Heads in common")
    cells = [
        (
            *([word(row.get("axis"))] * several),
            f"{float(row['gamma']):g}",
            numbers.count(row.get("num_protected")),
            numbers.count(row.get("num_heads")),
            numbers.decimal(row.get("bias_change")),
            numbers.decimal(row.get("bias_change_sum")),
            numbers.decimal(row.get("bias_change_held_out")),
            numbers.percent(row.get("ppl_increase"), signed=True),
            numbers.percent(row.get("overlap"), 0),
        )
        for row in rows
    ]
    note = (
        "Predicted changes, single effects added up. Held out: one half of the run chooses, the "
        "other judges. In common: of the heads that this run's gamma chooses."
    )
    return [Table.of(columns, cells, title="Other shares of protected heads", note=note,
                     fold="closed")]  # fmt: skip
