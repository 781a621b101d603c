"""The words of a verdict for people, and how it looks: one place for every surface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from levelhead.reporting import numbers


@dataclass(frozen=True, slots=True)
class Words:
    """A verdict in a sentence, and the kind of look it has: lower, higher or undecided."""

    kind: str
    sentence: str


VERDICTS: Mapping[str, Words] = {
    "lower": Words("lower", "The measured bias is lower after pruning, on these prompts."),
    "echo only": Words(
        "undecided",
        "Only the echo is smaller: texts name the groups less often, and the bias of texts without "
        "names does not clearly change.",
    ),
    "less toxic for everyone": Words(
        "undecided",
        "Everybody's texts are less toxic, which is enough to explain the smaller measured bias.",
    ),
    "not distinguishable": Words(
        "undecided", "Not distinguishable from no change with this budget"
    ),
    "higher": Words("higher", "The measured bias is HIGHER after pruning, on these prompts."),
}


def verdict_words(data: Mapping[str, Any]) -> Words:
    """Of an axis of evaluation.json; a verdict that is not known stands as it is."""
    verdict = data.get("verdict")
    found = VERDICTS.get(str(verdict))
    if found is None:
        return Words("undecided", str(verdict) if verdict else "")
    if verdict != "not distinguishable":
        return found
    more = ""
    if numbers.finite(data.get("samples_needed")) is not None:
        more = f"; about {numbers.count(data['samples_needed'])} samples would be"
    return Words(found.kind, f"{found.sentence}{more}.")
