"""The price of a pruned model: by how much perplexity rose on each text, and which is the worst.

One text must not stand for "perplexity": what costs nothing on documentation may cost a lot on
prose. Whatever a price is held against (`--max-ppl-increase`, a budget) is held against the worst.
It reads evaluation.json's `price`, whatever may be missing there, and knows nothing of how it was
measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from levelhead.errors import ConfigError

LIMIT = 0.05
"""Share by which perplexity may rise, where nobody says otherwise."""
MOST_LIMIT = 1.0
"""Of a limit to search under: perplexity may double. A larger one was meant as a percentage."""
OWN_TEXT = "own-text"
"""In `price`, what the base model itself wrote."""
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The text on which perplexity rose most."""

    text: str
    """As people call it; empty where it is not known."""
    rise: float
    """By what share perplexity rose; below 0: it fell."""
    interval: tuple[float, float] | None
    """Of `rise`, 95%, of this text by itself: the worst of several looks a little worse than it is,
    since noise has its part in which it is."""
    base: float
    pruned: float
    """Perplexities."""
    of: int
    """How many texts there are."""

    @property
    def where(self) -> str:
        """ " on literature, the worst of 4 texts"; empty where there is no other."""
        return f" on {self.text}, the worst of {self.of} texts" if self.of > 1 else ""


def check_budget(budget: float) -> None:
    """Raise ConfigError for a budget that no set of heads could keep, or that is no share."""
    if not 0 < budget <= MOST_LIMIT:  # also false for NaN
        raise ConfigError(
            f"--max-ppl-increase {budget:g} is no share by which perplexity may rise: give one "
            f"above 0 (every set of heads costs something) and at most {MOST_LIMIT:g}, such as "
            "0.05 for 5%; or name the set yourself, with --gamma and --alpha"
        )


def prices(evaluation: Json) -> list[Json]:
    """The entries of `price`, the run's `--text` first; an older evaluation has that one alone."""
    found = evaluation.get("price")
    entries = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    if entries:
        return entries
    alone = evaluation.get("perplexity")
    return [alone] if isinstance(alone, Mapping) else []


def worst_price(evaluation: Json) -> Worst | None:
    """The text on which perplexity rose most; None where it was not measured."""
    entries = prices(evaluation)
    found = [worst for one in entries if (worst := _price(one, len(entries))) is not None]
    return max(found, key=lambda one: one.rise, default=None)


def kept_budget(evaluation: Json, limit: float) -> dict[str, Any] | None:
    """evaluation.json's `budget`: the worst text's price against the limit; None: not measured."""
    found = [(price.rise, one) for one in prices(evaluation) if (price := _price(one, 1))]
    if not found:
        return None
    rise, worst = max(found, key=lambda pair: pair[0])
    shown = {key: worst.get(key) for key in ("text", "increase")}
    return {"limit": limit, **shown, "kept": rise <= limit}


def title(entry: Json) -> str:
    """A text as people call it: of a file the name, of the base model's own texts what they are."""
    name = short_title(entry)
    return "the base model's own texts" if name == OWN_TEXT else name


def short_title(entry: Json) -> str:
    """The same where there is little room: "own-text", or a file's name."""
    return PurePath(str(entry.get("text") or "")).name


def _price(entry: Json, of: int) -> Worst | None:
    base, pruned = _finite(entry.get("base")), _finite(entry.get("pruned"))
    if not base or pruned is None:
        return None
    increase = entry.get("increase")
    ends = increase.get("ci95") if isinstance(increase, Mapping) else None
    pair = [_finite(end) for end in ends] if isinstance(ends, list | tuple) else []
    low, high = pair if len(pair) == 2 else (None, None)
    return Worst(
        text=title(entry),
        rise=pruned / base - 1,
        interval=None if low is None or high is None else (low, high),
        base=base,
        pruned=pruned,
        of=of,
    )


def _finite(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None
