"""Standard errors of head effects over templates and descriptors, both taken as random.

    V = V(templates) + V(descriptors) - V(cells)        (Cameron, Gelbach and Miller 2011)

each by leaving one out. Descriptors, and cells of one template and descriptor, are drawn within
their subgroup, so each moves its own subgroup's mean alone and subgroups' variances add up. Wider
than over templates alone, and far wider with few descriptors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from levelhead.scoring.problem import HeadShifts

Changes = Float[np.ndarray, "left subgroups layers heads"]
Value = Callable[[Changes], Float[np.ndarray, "left ..."]]
ToGaps = Callable[[Changes, Float[np.ndarray, " subgroups"]], Changes]


def two_way_stderr(
    value: Value,
    over_templates: Float[np.ndarray, ...],
    shifts: HeadShifts,
    weights: Float[np.ndarray, " subgroups"],
    to_gaps: ToGaps,
) -> Float[np.ndarray, ...]:
    """Standard error of `value` of the gap changes.

    Args:
        value: of gap changes [left, subgroups, layers, heads], one of each left-out set.
        over_templates: its standard error over templates alone.
        shifts: with `descriptor`, the place of each replicate's descriptor in its subgroup.
        weights: shares of the subgroups.
        to_gaps: from changes of subgroup means to changes of gaps.
    """
    cells = shifts.template * (int(shifts.descriptor.max()) + 1) + shifts.descriptor
    templates = over_templates**2
    descriptors, both = (
        _within_subgroups(value, shifts, unit, weights, to_gaps)
        for unit in (shifts.descriptor, cells)
    )
    variance = np.maximum(templates + descriptors - both, np.maximum(templates, descriptors))
    out: Float[np.ndarray, ...] = np.sqrt(variance)
    return out


def two_way_freedom(shifts: HeadShifts) -> int:
    """Degrees of freedom, on the safe side: the smaller of the two ways'."""
    templates = len(np.unique(shifts.template)) - 1
    descriptors = sum(
        len(np.unique(shifts.descriptor[present])) - 1 for present in (shifts.count > 0).T
    )
    return max(1, min(templates, descriptors))


def _within_subgroups(
    value: Value,
    shifts: HeadShifts,
    unit: Int[np.ndarray, " replicates"],
    weights: Float[np.ndarray, " subgroups"],
    to_gaps: ToGaps,
) -> Float[np.ndarray, ...]:
    """Variance by leaving out one unit of one subgroup at a time, summed over subgroups."""
    weighted = shifts.shift * shifts.count[:, :, None, None]
    total, count = weighted.sum(0), shifts.count.sum(0)
    mean = total / np.maximum(count, 1e-12)[:, None, None]
    variance: Float[np.ndarray, ...] = np.zeros(1)
    for subgroup in range(len(weights)):
        present = shifts.count[:, subgroup] > 0
        names, index = np.unique(unit[present], return_inverse=True)
        if len(names) < 2:  # nothing to leave out: its spread is not known
            continue
        sums = np.zeros((len(names), *total.shape[1:]))
        np.add.at(sums, index, weighted[present, subgroup])
        gone = np.bincount(index, weights=shifts.count[present, subgroup])
        left = np.repeat(mean[None], len(names), axis=0)
        left[:, subgroup] = (total[subgroup] - sums) / (count[subgroup] - gone)[:, None, None]
        without = value(to_gaps(left, weights))
        n = len(names)
        variance = variance + (n - 1) / n * ((without - without.mean(0)) ** 2).sum(0)
    return variance
