"""How a number with its interval stands in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def stacked(estimate: Mapping[str, Any] | None, *, bold: bool = True) -> str:
    """A value above the ends of its 95% interval, for narrow columns; empty for None."""
    if estimate is None:
        return ""
    low, high = estimate["ci95"]
    value = f"{estimate['value']:+.4f}"
    return (f"[bold]{value}[/bold]" if bold else value) + f"\n{low:+.4f}\n{high:+.4f}"
