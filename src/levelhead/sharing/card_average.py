"""What a model card says of a model that was averaged over groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.records import HeadSelection
from levelhead.sharing.card_text import code, md

Json = Mapping[str, Any]


def averaged_summary(shown: str, revision: str | None, chosen: HeadSelection, form: str) -> str:
    """What it is, in a paragraph."""
    at = f" at revision {code(revision)}" if revision else ""
    return (
        f"Base model: {md(shown)}{at}. {chosen.described}: weights of "
        "attention's output projections were changed in closed form, without training, to "
        "reduce a measured gap in the toxicity of what it writes about social groups. No head is "
        f"removed. Format: {code(form)}."
    )


def what_changed(average: Json) -> str:
    """What averaging over groups changed."""
    rank = average["rank"]
    within = (
        "all of what each layer writes"
        if rank is None
        else f"{rank} directions of what each layer writes, those that {md(average['what'])} as "
        "the scorer reads it depends on most"
    )
    fitted = "; ".join(
        f"{md(axis)}: {one['positions']:,} positions of {one['groups']:,} matched groups"
        for axis, one in average["axes"].items()
    )
    texts = ", ".join(md(one["name"]) for one in average["texts"])
    layers = ", ".join(map(str, average["layers"]))
    return (
        "## What was changed\n\n"
        f"Output projections of attention in layers {layers} (from 0), in {within}: least squares "
        "towards what the layer wrote on average over the groups, at the same positions of the "
        f"same texts, lambda {average['lambda']:g}, and towards what it wrote before on text. "
        f"Fitted to {fitted}; text: {texts}. Ridge: {average['ridge']:.3g}."
    )
