"""Values with intervals out of the JSON files of a run, whatever may be missing in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from levelhead.reporting import numbers
from levelhead.reporting.summary import Cell


@dataclass(frozen=True, slots=True)
class Estimate:
    """A finite value and the ends of its 95% interval, where it has one."""

    value: float
    ends: tuple[float, float] | None = None

    @property
    def above(self) -> float:
        """From the value to the interval's upper end; 0 without one."""
        return max(self.ends[1] - self.value, 0.0) if self.ends else 0.0

    @property
    def below(self) -> float:
        """From the interval's lower end to the value; 0 without one."""
        return max(self.value - self.ends[0], 0.0) if self.ends else 0.0

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and 0 is not in it."""
        return self.ends is not None and (self.ends[0] > 0 or self.ends[1] < 0)


def estimate(data: Any) -> Estimate | None:
    """{"value", "ci95"} or a plain number; None for anything else."""
    if not isinstance(data, Mapping):
        value = numbers.finite(data)
        return None if value is None else Estimate(value)
    value = numbers.finite(data.get("value"))
    return None if value is None else Estimate(value, numbers.pair(data.get("ci95")))


def cell(data: Any, decimals: int = 4) -> Cell:
    """The estimate as text, its interval below it; empty where there is none."""
    found = estimate(data)
    if found is None:
        return Cell()
    return Cell(numbers.decimal(found.value, decimals), numbers.interval(found.ends, decimals))


def percent_cell(data: Any) -> Cell:
    """A share as a signed percentage with its interval."""
    found = estimate(data)
    if found is None:
        return Cell()
    text = numbers.percent(found.value, signed=True)
    return Cell(text, numbers.percent_interval(found.ends))


def share_cell(data: Any) -> Cell:
    """A share as a whole percentage with its interval: 33% [22%, 45%]."""
    found = estimate(data)
    if found is None:
        return Cell()
    ends = [numbers.percent(end, 0) for end in found.ends or ()]
    return Cell(numbers.percent(found.value, 0), f"[{', '.join(ends)}]" if ends else "")


def points_cell(data: Any) -> Cell:
    """A difference of shares in percentage points with its interval: -13 points [-20, -6]."""
    found = estimate(data)
    if found is None:
        return Cell()
    ends = [f"{100 * end:+z.0f}" for end in found.ends or ()]
    text = f"{100 * found.value:+z.0f} points"
    return Cell(text, f"[{', '.join(ends)}]" if ends else "")


def said(found: Estimate | None, decimals: int = 4) -> str:
    """-0.0211 [-0.0316, -0.0106], for a sentence or a hover."""
    if found is None:
        return numbers.MISSING
    text = numbers.decimal(found.value, decimals)
    return f"{text} {numbers.interval(found.ends, decimals)}".rstrip()


def said_percent(found: Estimate | None) -> str:
    """+6.9% [+5.8%, +8.0%]."""
    if found is None:
        return numbers.MISSING
    text = numbers.percent(found.value, signed=True)
    return f"{text} {numbers.percent_interval(found.ends)}".rstrip()


def error_bars(found: Sequence[Estimate], colour: str, **settings: Any) -> dict[str, Any]:
    """plotly's `error_x` or `error_y` for these."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [one.above for one in found],
        "arrayminus": [one.below for one in found],
        "color": colour,
        "thickness": 1.5,
        "width": 3,
        **settings,
    }
