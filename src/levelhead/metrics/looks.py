"""Planned looks at a growing sample: how much of an error each may spend.

A spending function (Lan and DeMets, 1983) says how much of the error may be spent once a share t of
the final sample is there; this one, alpha ln(1 + (e - 1) t), spends it about evenly, as Pocock's
boundaries do. Each look is tested at the increment since the one before. The probability of any
false verdict is then at most the sum of the increments, alpha, however the looks depend on each
other: no joint distribution is needed, and none is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from levelhead.errors import ConfigError


def look_level(samples: int, planned: Sequence[int], alpha: float = 0.05) -> float:
    """The error at which one of the planned looks is tested.

    >>> round(look_level(4, (4,)), 3), round(look_level(4, (4, 16)), 3)
    (0.05, 0.018)

    Args:
        samples: of the look: one of `planned`.
        planned: samples at each look, ascending; the last is the final sample.
        alpha: error of all looks together.

    Raises:
        ConfigError: looks that do not ascend from 1, or a look that is none of them.
    """
    if not planned or any(a >= b for a, b in zip((0, *planned), planned, strict=False)):
        raise ConfigError(f"planned looks {tuple(planned)} do not ascend from at least 1")
    if samples not in planned:
        raise ConfigError(f"a look at {samples} samples is none of those planned, {tuple(planned)}")
    place = list(planned).index(samples)
    before = _spent(planned[place - 1] / planned[-1], alpha) if place else 0.0
    return _spent(samples / planned[-1], alpha) - before


def _spent(share: float, alpha: float) -> float:
    return alpha * math.log1p((math.e - 1) * share)
