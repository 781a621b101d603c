"""Whether the values of options are of their kind and within their limits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from levelhead.config.choices import AVERAGE, NO_TEXT, PRICE_TEXTS
from levelhead.errors import ConfigError
from levelhead.price import LIMIT, check_budget

KINDS = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}


def check_type(flag: str, value: Any, kind: str) -> None:
    """Raise ConfigError for a value of the wrong kind, as a file may hold it."""
    if kind.startswith("tuple"):
        fits = isinstance(value, tuple | list) and all(isinstance(one, str) for one in value)
    elif value is None:
        fits = kind.endswith("None")
    elif isinstance(value, bool):
        fits = kind == "bool"
    else:
        kinds = {"str": str, "int": int, "float": int | float, "bool": bool}
        fits = isinstance(value, kinds[kind.removesuffix(" | None")])
        fits = fits and "\0" not in str(value)  # which no path may hold
    if not fits:
        wanted = KINDS.get(kind.removesuffix(" | None"), "a list of texts")
        raise ConfigError(f"{flag} {value!r:.80} is of the wrong kind: expected {wanted}")


def check_value(flag: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raise ConfigError for a value that is no choice, or out of its limits."""
    choices, low, high = metadata["choices"], metadata["minimum"], metadata["maximum"]
    if choices and value not in choices:
        raise ConfigError(f"{flag} {value!r} is unknown; choose from {', '.join(choices)}")
    if value is None or (low is None and high is None):
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{flag} {value!r} is not a number")
    below = low is not None and not value >= low  # `not >=` also catches NaN
    above = high is not None and not value <= high
    if below or above:
        limit = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ConfigError(f"{flag} {value:g} is out of range; it must be {limit}")


def price_texts(named: tuple[str, ...], text: str | None) -> tuple[str, ...]:
    """The further texts of `--price-text`: those named, or the default ones; none is `text`.

    Raises:
        ConfigError: a text named twice, without a name, or `none` beside another.
    """
    if named == (NO_TEXT,):
        return ()
    for place, name in enumerate(named):
        if not name.strip() or name in named[:place] or name == NO_TEXT:
            raise ConfigError(
                f"--price-text {name!r} cannot stand beside {', '.join(named)}: name each text "
                f"once, or {NO_TEXT} alone"
            )
    return tuple(name for name in named or PRICE_TEXTS if name != text)


POINT = ("method", "gamma", "alpha")
"""Options that name one set of heads; without them a set is searched for under the limit."""


def limited(options: Mapping[str, Any], searches: bool) -> dict[str, Any]:
    """Options with one limit for the price: `budget` (None: no search) and `max_ppl_increase`.

    Args:
        options: as given.
        searches: whether a set is searched for where neither it nor a budget is named.

    Raises:
        ConfigError: a budget and a set of heads, two limits that differ, or one that no set keeps.
    """
    averages = options.get("method") == AVERAGE
    if averages and "alpha" in options:
        raise ConfigError(
            f"--alpha is how many heads are pruned, and --method {AVERAGE} prunes none; leave it "
            "out (--gamma says how many heads it leaves alone)"
        )
    named = [] if averages else [name for name in POINT if name in options]
    budget, limit = options.get("budget"), options.get("max_ppl_increase")
    if budget is not None and named:
        raise ConfigError(
            f"--budget searches for a set of heads and --{named[0]} names one; give one of the two"
        )
    if budget is not None and limit is not None and budget != limit:
        raise ConfigError(
            f"--budget {budget:g} and --max-ppl-increase {limit:g} are one limit; give one of them"
        )
    if named or ("budget" in options and budget is None and not averages):
        return {**options, "budget": None}
    if budget is None and not searches and not averages:
        return dict(options)
    most = next(one for one in (budget, limit, LIMIT) if one is not None)
    check_type("--max-ppl-increase", most, "float")
    check_budget(most)
    return {**options, "budget": most, "max_ppl_increase": most}


def planned_looks(looks: str | None, samples: int | None, default: int) -> tuple[int, ...]:
    """The looks that `--looks` plans; else a single one, at `samples` or the default.

    Raises:
        ConfigError: no ascending list of whole numbers from 1, or one without `samples`.
    """
    if looks is None:
        return (samples or default,)
    parts = [part.strip() for part in looks.split(",")]
    found = tuple(int(part) for part in parts if part.isdecimal() and len(part) < 6)
    if len(found) < len(parts) or not all(a < b for a, b in itertools.pairwise((0, *found))):
        raise ConfigError(f"--looks {looks!r} is no ascending list such as 4,8,16")
    if samples is not None and samples not in found:
        raise ConfigError(f"--samples {samples} is none of the planned looks {looks}; take one")
    return found
