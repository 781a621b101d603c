"""What averaging over groups changed, layer by layer (selection.json's `average`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.records import HeadSelection
from levelhead.reporting.content import Section, Table, numeric
from levelhead.reporting.numbers import count, decimal, finite, percent
from levelhead.reporting.summary import mapping, records, word


def averaged(selection: HeadSelection) -> Section | None:
    """A row per layer that changed; None of a selection of heads."""
    record = selection.average
    if record is None:
        return None
    left, moved = mapping(record, "left"), mapping(record, "moved")
    rows = [
        (str(layer), _share(left.get(str(layer))), _share(moved.get(str(layer))))
        for layer in record["layers"]
    ]
    rank, protected = record["rank"], mapping(record, "protected_heads")
    held = sum(len(heads) for heads in protected.values() if isinstance(heads, list))
    within = (
        "all of what a layer writes"
        if rank is None
        else f"the {rank} directions of what a layer writes that {word(record.get('what'))} as the "
        "scorer reads it depends on most"
    )
    contexts = "; ".join(
        f"{axis}: {_count(record, axis, 'positions')} positions of "
        f"{_count(record, axis, 'groups')} matched groups"
        for axis in mapping(record, "axes")
    )
    texts = ", ".join(word(one.get("name")) for one in records(record, "texts"))
    return Section(
        key="averaged",
        title="What was averaged over groups",
        intro=(
            "No head is removed. The weights by which attention writes are changed, in closed form "
            "and without training, so that a layer writes the same after every group's prompt, as "
            f"far as it can, and what it wrote before on text. Changed is {within}; {held} "
            f"protected heads keep their weights. lambda {decimal(float(record['lambda']), 1)}. "
            f"Fitted to {contexts}; text: {texts}.",
            "Differences left: share of the mean square of what differs between groups at these "
            "positions. Changed on text: share of the mean square of what the layer writes.",
        ),
        tables=(Table.of(numeric("layer", "differences left", "changed on text"), rows),),
    )


def _count(record: Mapping[str, Any], axis: str, key: str) -> str:
    return count(finite(mapping(record, "axes", axis).get(key)) or 0)


def _share(value: object) -> str:
    number = finite(value)
    return "" if number is None else percent(number)
