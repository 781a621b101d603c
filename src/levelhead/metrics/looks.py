"""Planned looks at a growing sample: which level each look may have, so that all hold together.

A verdict at K_1 samples a prompt and again at K_2 > K_1 has two chances to be wrong: two looks at
5% (K = 1, then 4) are wrong 9% of the time. So the looks are planned, and the error is spent along
the way (Lan and DeMets 1983): by a share t of the final sample, alpha(t) has been spent; a look's
own level is what is spent since the look before. The sum over looks is alpha, so that it holds
whatever the dependence of the looks, and no joint distribution is needed; with nested samples it
is conservative.

With the function like O'Brien and Fleming's (the default) little is spent early, and the last look
keeps nearly all: K = 1, 4 of 5% has levels 0.009% and 4.99%. Pocock's spends evenly: 1.8% and 3.2%.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from scipy import stats

from levelhead.errors import ConfigError

Spending = Literal["obrien-fleming", "pocock"]


def look_levels(
    planned: Sequence[int], alpha: float = 0.05, spending: Spending = "obrien-fleming"
) -> tuple[float, ...]:
    """The two-sided error of each planned look; they add up to `alpha`.

    Args:
        planned: samples per prompt at each look, ascending.
        alpha: error of all looks together.
        spending: early looks get little ("obrien-fleming") or about as much as late ones.

    Raises:
        ConfigError: looks that do not ascend from 1, or alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha {alpha} is not between 0 and 1; 0.05 is usual")
    if not planned or planned[0] < 1 or any(b <= a for a, b in pairwise(planned)):
        raise ConfigError(
            f"planned looks {list(planned)} do not ascend from 1 or more; give the samples per "
            "prompt of each look, such as 1, 4"
        )
    spent = [_spent(k / planned[-1], alpha, spending) for k in planned]
    return tuple(now - before for now, before in zip(spent, [0.0, *spent], strict=False))


def look_level(
    samples: int,
    planned: Sequence[int],
    alpha: float = 0.05,
    spending: Spending = "obrien-fleming",
) -> float:
    """The two-sided error of the look at `samples` per prompt.

    Raises:
        ConfigError: as `look_levels`, or this look is not planned: there is no error left for it.
    """
    levels = look_levels(planned, alpha, spending)
    if samples not in planned:
        raise ConfigError(
            f"a look at {samples} samples per prompt is not among the planned ones "
            f"({', '.join(map(str, planned))}): it would be a further chance to be wrong; take a "
            "planned number, or begin anew with another seed"
        )
    return levels[list(planned).index(samples)]


def _spent(share: float, alpha: float, spending: Spending) -> float:
    if spending == "pocock":
        return alpha * math.log(1 + (math.e - 1) * share)
    quantile = float(stats.norm.isf(alpha / 2))
    return 2 * float(stats.norm.sf(quantile / math.sqrt(share)))
