"""Numbers as text, the same on the page and in the terminal. A number that is missing is a dash.

The values come from JSON files that may be of another version, so what is not a finite number is
treated as missing rather than trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MISSING = "\N{EN DASH}"
_UNITS = ("B", "kB", "MB", "GB", "TB")


def finite(value: Any) -> float | None:
    """The value as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def pair(value: Any) -> tuple[float, float] | None:
    """Two finite numbers, such as the ends of an interval, or None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = finite(value[0]), finite(value[1])
    return None if low is None or high is None else (low, high)


def listed(value: Any) -> list[float]:
    """A list of finite numbers; empty where any of it is not one."""
    found = [finite(one) for one in value] if isinstance(value, list | tuple) else []
    return [] if None in found else [one for one in found if one is not None]


def decimals_for(values: Iterable[Any], least: int = 4, digits: int = 3) -> int:
    """Decimals that show the largest of these to so many significant digits, at least `least`."""
    sizes = [abs(number) for number in map(finite, values) if number]
    if not sizes:
        return least
    return min(max(digits - 1 - math.floor(math.log10(max(sizes))), least), 12)


def decimal(value: Any, decimals: int = 4) -> str:
    """0.0654; never "-0.0000"."""
    number = finite(value)
    return MISSING if number is None else f"{number:z.{decimals}f}"


def interval(value: Any, decimals: int = 4) -> str:
    """[0.0312, 0.0981]; empty where there is none."""
    ends = pair(value)
    return f"[{ends[0]:z.{decimals}f}, {ends[1]:z.{decimals}f}]" if ends else ""


def with_error(value: Any, stderr: Any = None) -> str:
    """0.00123 ± 0.00021: as many decimals as the error has to two significant digits."""
    number, error = finite(value), finite(stderr)
    if number is None:
        return MISSING
    if not error or error < 0:
        return f"{number:.3g}"
    decimals = min(max(1 - math.floor(math.log10(error)), 0), 12)
    return f"{number:z.{decimals}f} ± {error:.{decimals}f}"


def percent(value: Any, decimals: int = 1, *, signed: bool = False) -> str:
    """A share as a percentage: 0.052 is 5.2%."""
    number = finite(value)
    if number is None:
        return MISSING
    return f"{100 * number:{'+' if signed else ''}z.{decimals}f}%"


def percent_interval(value: Any, decimals: int = 1) -> str:
    """[+3.1%, +7.4%]; empty where there is none."""
    ends = pair(value)
    if ends is None:
        return ""
    low, high = (percent(end, decimals, signed=True) for end in ends)
    return f"[{low}, {high}]"


def count(value: Any) -> str:
    """134,515,008."""
    number = finite(value)
    return MISSING if number is None else f"{round(number):,}"


def size(value: Any) -> str:
    """Bytes in decimal units: 538.1 MB."""
    number = finite(value)
    if number is None:
        return MISSING
    power = 0
    while abs(number) >= 999.95 and power < len(_UNITS) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.{1 if power else 0}f} {_UNITS[power]}"


def relative_change(base: Any, pruned: Any) -> str:
    """-2.3%: how much larger the second is than the first, for counts and sizes."""
    first, second = finite(base), finite(pruned)
    if not first or second is None:
        return ""
    return percent(second / first - 1, signed=True)
