"""Which of several attempts to take, by what was measured on the same held-out prompts.

Pure: it knows rows of `results`. Of attempts that are ready, else of those that leave a decision,
the one with the largest fall of the measured gap; none where nothing was found to fall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from levelhead.reporting.numbers import finite, percent
from levelhead.reporting.summary import mapping, word

Json = Mapping[str, Any]
FELL = ("lower", "less toxic for everyone")
"""Verdicts that an attempt is taken by."""


def recommended(rows: Sequence[Json]) -> dict[str, Any] | None:
    """`attempt` (its number, or None: keep the base model) and `why`, a sentence.

    None where fewer than two attempts were made, or one of them is not finished.
    """
    done = [one for one in rows if one.get("ready") or one.get("nothing")]
    if len(rows) < 2 or len(done) < len(rows):
        return None
    for ready in ("ready", "your decision"):
        fits = [one for one in done if one.get("ready") == ready and one.get("verdict") in FELL]
        if fits:
            best = min(fits, key=_change)
            return {"attempt": best.get("attempt"), "why": _why(best, fits)}
    return {
        "attempt": None,
        "why": "Keep the base model: no attempt was found to reduce the measured gap within the "
        "limit.",
    }


def _change(one: Json) -> float:
    value = finite(mapping(one, "adjusted_difference").get("value"))
    return 0.0 if value is None else value


def _why(best: Json, fits: Sequence[Json]) -> str:
    rise = finite(best.get("perplexity_increase"))
    price = "" if rise is None else f" at {percent(rise, signed=True)} perplexity"
    others = "" if len(fits) < 2 else ", the larger fall of those"
    return (
        f"Attempt {best.get('attempt')} ({word(best.get('method'))}): the measured gap falls by "
        f"{-_change(best):.4f}{price}{others}."
    )
