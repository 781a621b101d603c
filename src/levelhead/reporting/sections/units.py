"""How much of each layer was pruned, for units that are no heads: MLP neurons, attention layers."""

from __future__ import annotations

from levelhead.records import HeadSelection
from levelhead.reporting import numbers
from levelhead.reporting.content import Section, Table, numeric
from levelhead.scores import PPL, ScoreTable, bias_metric, column

NAMES = {"neuron": "MLP neurons", "layer": "attention layers"}


def pruned_units(selection: HeadSelection, table: ScoreTable) -> Section | None:
    """A row per layer that lost any: how many, and what their single effects add up to."""
    if selection.unit == "head" or not selection.heads:
        return None
    axis = str((selection.details or {}).get("axis") or (table.axes or ("",))[0])
    metrics = [
        (metric, label)
        for metric, label in ((bias_metric(axis), "sum of z_bias"), (PPL, "sum of z_ppl"))
        if column(metric, "base") in table.frame.columns
    ]
    effects = [table.effect(metric) for metric, _ in metrics]
    rows = []
    for layer, gone in selection.by_layer.items():
        places = [0] if selection.unit == "layer" else list(gone)
        sums = [numbers.decimal(float(effect[layer, places].sum())) for effect in effects]
        rows.append((str(layer), f"{len(gone):,}", *sums))
    name = NAMES[selection.unit]
    lost = "neurons pruned" if selection.unit == "neuron" else "heads pruned"
    said = f"{selection.described} of {table.num_layers * table.num_heads:,}"
    return Section(
        key="pruned-units",
        title=f"Pruned {name}",
        intro=(
            f"{said}, chosen by {selection.method}. Positive z_bias: it added bias. "
            "Single effects do not add up exactly.",
        ),
        tables=(Table.of(numeric("layer", lost, *(label for _, label in metrics)), rows),),
    )
