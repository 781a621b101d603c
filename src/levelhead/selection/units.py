"""A selection in the words of its unit: rows of a score table become heads, neurons or layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from levelhead.errors import ScoreTableError
from levelhead.records import HeadSelection, ranges_text
from levelhead.scores import ScoreTable


def in_units(selection: HeadSelection, table: ScoreTable) -> HeadSelection:
    """What the rules chose from a table, as heads, as neurons, or as all heads of whole layers.

    Raises:
        ScoreTableError: a table of layers that does not say how many heads they have.
    """
    if table.unit == "neuron":
        return replace(selection, unit="neuron")
    if table.unit == "head":
        return selection
    if "heads" not in table.frame.columns:
        raise ScoreTableError("a table of layers needs a column `heads`: how many each layer has")
    count = table.grid("heads")
    layers = sorted(layer for layer, _ in selection.heads)
    heads = tuple((layer, head) for layer in layers for head in range(int(count[layer, 0])))
    return replace(selection, unit="layer", heads=heads)


def in_rows(selection: HeadSelection) -> HeadSelection:
    """The selection by rows of its score table: of layers, a row each."""
    if selection.unit != "layer":
        return selection
    return replace(selection, heads=tuple((layer, 0) for layer in selection.by_layer))


def listed(chosen: Bool[np.ndarray, "layers units"], table: ScoreTable) -> Any:
    """Rows of a table as selection.json lists them.

    [layer, head] pairs, {layer: ranges} of neurons, or layers.
    """
    if table.unit == "neuron":
        rows = {str(layer): np.flatnonzero(row).tolist() for layer, row in enumerate(chosen)}
        return {layer: ranges_text(row) for layer, row in rows.items() if row}
    if table.unit == "layer":
        return np.flatnonzero(chosen[:, 0]).tolist()
    return np.argwhere(chosen).tolist()
