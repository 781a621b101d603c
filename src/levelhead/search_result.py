"""What a search under a limit found, as selection.json has it (`search`); whatever may be missing.

Written by `stages.searching`. It knows nothing of how sets are found or judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

Json = Mapping[str, Any]


def rule(selection: Json) -> str:
    """By which rule a set was chosen: "fasp, gamma 0.3, alpha 0.1", as far as it is known."""
    given = {name: selection.get(name) for name in ("gamma", "alpha")}
    shares = [f"{name} {value:.3g}" for name, value in given.items() if _finite(value)]
    return ", ".join([str(selection.get("method") or ""), *shares])


def limit_of(selection: Json | None, config: Json) -> float | None:
    """The share by which perplexity may rise: of the search that chose the set, or the run's.

    Args:
        selection: selection.json, or the details of a selection.
        config: config.json.
    """
    for found in (_search(selection).get("budget"), config.get("max_ppl_increase")):
        if _finite(found):
            return float(found)
    return None


def best_tried(selection: Json | None) -> Json | None:
    """The set that was taken or came nearest to it; None: no set was read with the model."""
    search = _search(selection)
    judged, chosen = search.get("judged"), search.get("chosen")
    if not isinstance(judged, list) or not isinstance(chosen, int) or isinstance(chosen, bool):
        return None
    found = judged[chosen] if 0 <= chosen < len(judged) else None
    return found if isinstance(found, Mapping) else None


def nothing_found(selection: Json | None) -> str:
    """That no set keeps the limit, or none reduces the gap measurably; empty where one was taken.

    A sentence without a full stop.
    """
    search, row = _search(selection), best_tried(selection)
    if search.get("measurable", True) or row is None:
        return ""
    what = "averaging over groups" if row.get("method") == "average" else "set of heads"
    if search.get("kept") is False:
        return _over_limit(search, row, what)
    try:
        found, budget = row["expected_difference"], float(search["budget"])
        value, (low, high) = float(found["value"]), map(float, found["ci95"])
        among = int(search["candidates"])
    except (KeyError, TypeError, ValueError):
        return f"no {what} within the limit reduces the measured gap beyond its interval"
    return (
        f"no {what} that raises perplexity by at most {budget:.1%} reduces the measured gap of "
        f"validation prompts beyond its interval: the best of {among:,} changes it by "
        f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"
    )


def _over_limit(search: Json, row: Json, what: str) -> str:
    """That every set which was read is too dear, and what the cheapest costs."""
    try:
        budget, most = float(search["budget"]), float(row["at_most"])
        return (
            f"no {what} that was read keeps perplexity within {budget:.1%} on every text: "
            f"the cheapest raises it by up to {most:.1%}"
        )
    except (KeyError, TypeError, ValueError):
        return f"no {what} that was read keeps the limit of perplexity"


def _finite(value: Any) -> TypeGuard[float]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _search(selection: Json | None) -> Json:
    found = selection.get("search") if selection is not None else None
    return found if isinstance(found, Mapping) else {}
