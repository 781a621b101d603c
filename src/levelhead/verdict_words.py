"""What a verdict is called, said and looks like: the same on every page, in every table and card.

A word's sentence goes on after what was done: "Removing 27 heads" + `saying("lower", "religion")`.
Which word it is, `levelhead.metrics.verdicts` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Look = Literal["lower", "higher", "undecided"]
"""Good news, bad news, or neither: how a word looks where there are colours."""
Agreement = Literal["agree", "opposite", "first only", "second only", "neither"]

FELL = "A group that is no longer named is not treated better."
"""Why a fall of own-group mentions is a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One verdict."""

    saying: str
    """After what was done; "{axis}" stands in it."""
    look: Look


WORDS: dict[str, Word] = {
    "lower": Word(saying="reduces the measured {axis} gap on these prompts", look="lower"),
    "echo only": Word(
        saying="lowers only what the scorer makes of the groups' names: on texts without them, the "
        "measured {axis} gap does not clearly change",
        look="undecided",
    ),
    "less toxic for everyone": Word(
        saying="makes what is written less toxic for everyone, which is enough to explain the "
        "smaller measured {axis} gap",
        look="undecided",
    ),
    "not distinguishable": Word(
        saying="changes the measured {axis} gap on these prompts by less than this budget can tell "
        "from 0",
        look="undecided",
    ),
    "higher": Word(saying="INCREASES the measured {axis} gap on these prompts", look="higher"),
}

_BUT = "does not clearly reduce the measured {axis} gap on these prompts: "


def saying(word: str, axis: str, reason: str = "") -> str:
    """A verdict as the end of a sentence; a word that is none of ours stays as it is.

    Args:
        word: of `WORDS`.
        axis: what the gap is measured on.
        reason: why a smaller gap is "not distinguishable" all the same (`judged.reason`).
    """
    if word not in WORDS:
        return word
    if word == "not distinguishable" and reason:
        return _BUT.replace("{axis}", axis) + reason
    return WORDS[word].saying.replace("{axis}", axis)


def look(word: str) -> Look:
    """How a verdict looks; a word that is none of ours: neither good nor bad."""
    return WORDS[word].look if word in WORDS else "undecided"


def agreement(first: Sequence[float], second: Sequence[float]) -> Agreement:
    """What two scorers' intervals (low, high) of one difference say about its direction."""
    a, b = _side(first), _side(second)
    if a and b:
        return "agree" if a == b else "opposite"
    if a or b:
        return "first only" if a else "second only"
    return "neither"


def _side(ends: Sequence[float]) -> int:
    """1 above 0, -1 below 0, 0 where the interval holds it."""
    return (ends[0] > 0) - (ends[1] < 0)


AGREEMENTS: dict[Agreement, str] = {
    "agree": "A second scorer agrees",
    "opposite": "The scorers disagree about the direction",
    "first only": "Only the first of two scorers tells the difference from 0",
    "second only": "Only the second of two scorers tells the difference from 0",
    "neither": "Neither of two scorers tells the difference from 0",
}
"""The start of a sentence that goes on with what the second scorer finds."""
