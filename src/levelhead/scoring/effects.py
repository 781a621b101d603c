"""From shifts of subgroup toxicity to z_bias of every head, with errors and reliability.

    z_bias(S, h) = bias(T) - bias(T + dT(h))      over the subgroup gaps that can be told from 0

The same for every estimator. A gap d_s = T_S - T_s within a few standard errors of 0 has an
unknown sign, and with the wrong sign z_bias reverses; such subgroups get weight 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from levelhead.metrics.bias import gaps, gaps_of_means
from levelhead.metrics.intervals import GapEstimates, gap_intervals
from levelhead.metrics.reliability import spearman_brown
from levelhead.sampling import derived_seed
from levelhead.scoring.problem import BiasProblem, HeadShifts, SampledTexts
from levelhead.scoring.two_way import two_way_freedom, two_way_stderr

MIN_GAP_Z = 3.0
"""A gap is used when it is at least this many of its standard errors from 0."""
MAX_CONTRADICTION_Z = 1.0
"""...and the unbiased estimate lies no further on the other side of 0, in its standard errors."""
MIN_HALF_GAP_Z = MIN_GAP_Z / math.sqrt(2)
"""As `MIN_GAP_Z` for half of the data: a gap that just reaches it has this many there."""
SPLITS = 20
"""Random halvings behind a split-half reliability."""

Grid = Float[np.ndarray, "layers heads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GapHalves:
    """Gaps of the base model and their changes by every head, from random halves of a run."""

    gap: Float[np.ndarray, "splits 2 subgroups"]
    change: Float[np.ndarray, "splits 2 subgroups layers heads"]
    """When the head is ablated."""
    used: Bool[np.ndarray, "splits 2 subgroups"]
    """Gaps whose sign the half knows from its own data; its clearest where it knows none."""

    def z_bias(self) -> Float[np.ndarray, "splits 2 layers heads"]:
        """z_bias of each half over the gaps that it uses."""
        return z_bias(self.gap, self.change, self.used)


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisEffects:
    """Effects of every head on one axis; each is with the head minus without it."""

    axis: str
    subgroups: tuple[str, ...]
    gap: Float[np.ndarray, " subgroups"]
    """d_s = T_S - T_s of the base model."""
    gap_stderr: Float[np.ndarray, " subgroups"]
    used: Bool[np.ndarray, " subgroups"]
    measurable: bool
    """False: no gap could be told from 0; the clearest one was used all the same."""
    gap_z: Float[np.ndarray, " subgroups"]
    """Standard errors between 0 and each gap as the estimator measures it; negative: below 0."""
    against: Float[np.ndarray, " subgroups"]
    """Standard errors by which the unbiased estimate lies on the other side of 0; negative: on the
    same side."""
    bias: float
    """Sum of |d_s| over the used subgroups: what z_bias is a change of."""
    gap_effect: Float[np.ndarray, "subgroups layers heads"]
    gap_effect_stderr: Float[np.ndarray, "subgroups layers heads"]
    effect: Grid
    """z_bias: positive where the head adds bias, so that removing it helps."""
    stderr: Grid
    clusters: int
    """Behind the standard errors: t intervals have one degree of freedom less."""
    reliability: float | None
    """Split-half Spearman correlation of z_bias, Spearman-Brown corrected; None: no halves."""
    halves: Float[np.ndarray, "splits 2 layers heads"] | None
    """z_bias from random halves of the run."""
    gap_halves: GapHalves | None
    """What they are made of."""
    diagnostics: dict[str, Any]


def axis_effects(problem: BiasProblem, base: SampledTexts, shifts: HeadShifts) -> AxisEffects:
    """z_bias of every head, its standard error over templates, and its reliability."""
    subgroup, template = problem.subgroup[base.prompt], problem.template[base.prompt]
    count = len(problem.subgroups)
    rng = np.random.default_rng(derived_seed(problem.seed, problem.axis, "effects"))
    measured = gap_intervals(shifts.toxicity, subgroup, template, count)
    gap, stderr = base_gaps(problem, base, shifts), measured.stderr
    gap_z, against = clearness(measured, gap_intervals(shifts.unbiased, subgroup, template, count))
    used, known = clear_gaps(gap_z, against)
    change = gap_change(shifts, problem.weights)
    gap_halves = half_gaps(problem, base, shifts, rng)
    halves = None if gap_halves is None else gap_halves.z_bias()
    without = delete_one(shifts, problem.weights)
    fall = partial(z_bias, gap, used=used)
    gap_error, error = jackknife(without), jackknife(fall(without))
    clusters = len(without)
    if problem.two_way:
        both = (shifts, problem.weights, _to_gaps)
        gap_error = two_way_stderr(lambda change: change, gap_error, *both)
        error = two_way_stderr(fall, error, *both)
        clusters = two_way_freedom(shifts) + 1
    return AxisEffects(
        axis=problem.axis,
        subgroups=problem.subgroups,
        gap=gap,
        gap_stderr=stderr,
        used=used,
        measurable=bool(known),
        gap_z=gap_z,
        against=against,
        bias=float(np.abs(gap[used]).sum()),
        gap_effect=-change,
        effect=z_bias(gap, change, used),
        gap_effect_stderr=gap_error,
        stderr=error,
        clusters=clusters,
        reliability=None if halves is None else split_half_reliability(halves),
        halves=halves,
        gap_halves=gap_halves,
        diagnostics=shifts.diagnostics,
    )


def base_gaps(
    problem: BiasProblem,
    base: SampledTexts,
    shifts: HeadShifts,
    chosen: Bool[np.ndarray, " n"] | slice = slice(None),
) -> Float[np.ndarray, " subgroups"]:
    """d_s of the base model, from the chosen continuations (all).

    The sign is that of the estimator's own toxicity, the size the larger of the two estimates: it
    matters only to heads that would close a gap, where a first-order effect goes too far.
    """
    subgroup, count = problem.subgroup[base.prompt][chosen], len(problem.subgroups)
    own = gaps(shifts.toxicity[chosen], subgroup, count)
    unbiased = gaps(shifts.unbiased[chosen], subgroup, count)
    out: Float[np.ndarray, " subgroups"] = np.sign(own) * np.maximum(np.abs(own), np.abs(unbiased))
    return out


def usable_gaps(
    measured: GapEstimates, unbiased: GapEstimates
) -> tuple[Bool[np.ndarray, " subgroups"], bool]:
    """(subgroups whose gap's sign is known, whether there is any).

    A gap is used where it is `MIN_GAP_Z` standard errors from 0 and the unbiased estimate does not
    contradict it: on the other side of 0 by more than `MAX_CONTRADICTION_Z` standard errors.
    Where there is none, the clearest gap is used, so that a ranking exists; it is to be flagged.
    """
    used, known = clear_gaps(*clearness(measured, unbiased))
    return used, bool(known)


def clearness(
    measured: GapEstimates, unbiased: GapEstimates
) -> tuple[Float[np.ndarray, " subgroups"], Float[np.ndarray, " subgroups"]]:
    """(standard errors between 0 and each gap, those by which the unbiased one is against it).

    Both 0 for a subgroup without data.
    """
    z = measured.gap / np.maximum(measured.stderr, 1e-12)
    against = -np.sign(measured.gap) * unbiased.gap / np.maximum(unbiased.stderr, 1e-12)
    return np.nan_to_num(z), np.nan_to_num(against)


def clear_gaps(
    z: Float[np.ndarray, "*more subgroups"],
    against: Float[np.ndarray, "*more subgroups"],
    least: float = MIN_GAP_Z,
) -> tuple[Bool[np.ndarray, "*more subgroups"], Bool[np.ndarray, " *more"]]:
    """(gaps whose sign is known, whether there is any); where there is none, the clearest gap."""
    used = (np.abs(z) >= least) & (against <= MAX_CONTRADICTION_Z)
    known = used.any(axis=-1)
    clearest = np.arange(z.shape[-1]) == np.argmax(np.abs(z), axis=-1)[..., None]
    return np.where(known[..., None], used, clearest), known


def z_bias(
    gap: Float[np.ndarray, "*#more subgroups"],
    change: Float[np.ndarray, "*more subgroups layers heads"],
    used: Bool[np.ndarray, "*#more subgroups"],
) -> Float[np.ndarray, "*more layers heads"]:
    """bias(T) - bias(T + dT) over the used subgroups, for a change of the gaps."""
    base = gap[..., None, None]
    fall = np.abs(base) - np.abs(base + change)
    out: Float[np.ndarray, "*more layers heads"] = np.where(used[..., None, None], fall, 0).sum(-3)
    return out


def gap_change(
    shifts: HeadShifts,
    weights: Float[np.ndarray, " subgroups"],
    chosen: Bool[np.ndarray, " replicates"] | slice = slice(None),
) -> Float[np.ndarray, "subgroups layers heads"]:
    """Change of every gap when a head is ablated, from the chosen replicates (all)."""
    count = shifts.count[chosen][:, :, None, None]
    mean = (shifts.shift[chosen] * count).sum(0) / np.maximum(count.sum(0), 1e-12)
    return _to_gaps(mean, weights)


def _to_gaps(
    mean: Float[np.ndarray, "*more subgroups layers heads"],
    weights: Float[np.ndarray, " subgroups"],
) -> Float[np.ndarray, "*more subgroups layers heads"]:
    moved = gaps_of_means(np.moveaxis(mean, -3, -1), weights)
    return np.moveaxis(moved, -1, -3)


def jackknife_stderr(
    shifts: HeadShifts,
    weights: Float[np.ndarray, " subgroups"],
    gap: Float[np.ndarray, " subgroups"],
    used: Bool[np.ndarray, " subgroups"],
) -> Grid:
    """Standard error of z_bias: delete one template, at the base model's measured gaps."""
    return jackknife(z_bias(gap, delete_one(shifts, weights), used))


def delete_one(
    shifts: HeadShifts, weights: Float[np.ndarray, " subgroups"]
) -> Float[np.ndarray, "templates subgroups layers heads"]:
    """`gap_change` without each template in turn, all samples of it."""
    names, index = np.unique(shifts.template, return_inverse=True)
    weighted = shifts.shift * shifts.count[:, :, None, None]
    by_template = np.zeros((len(names), *weighted.shape[1:]))
    count = np.zeros((len(names), shifts.count.shape[1]))
    np.add.at(by_template, index, weighted)
    np.add.at(count, index, shifts.count)
    left = np.maximum(count.sum(0) - count, 1e-12)[:, :, None, None]
    return _to_gaps((by_template.sum(0) - by_template) / left, weights)


def jackknife(without: Float[np.ndarray, "templates ..."]) -> Float[np.ndarray, " *more"]:
    """Standard error from values that each leave one template out."""
    n = len(without)
    spread = ((without - without.mean(0)) ** 2).sum(0)
    out: Float[np.ndarray, " *more"] = np.sqrt((n - 1) / n * spread)
    return out


def half_gaps(
    problem: BiasProblem, base: SampledTexts, shifts: HeadShifts, rng: np.random.Generator
) -> GapHalves | None:
    """Gaps and effects on them from random halves; each takes its gaps from its own base sample.

    So does the choice of the gaps that it uses: `MIN_HALF_GAP_Z` standard errors from 0 in its own
    data, or else the clearest. A choice made by the whole run would tell both halves which gap to
    rank by, and with which sign: where there is no gap, two reruns do not agree on that.

    Halves of the templates: they differ in what was sampled AND in what it was asked after, so a
    ranking that holds only for these very prompts (as shuffled subgroup labels give) does not
    pass. With a single template, halves of the samples. None: neither can be halved.
    """
    template = problem.template[base.prompt]
    by_template = len(np.unique(template)) >= 2
    unit, base_unit = (shifts.template, template) if by_template else (shifts.sample, base.sample)
    names = np.unique(unit)
    if len(names) < 2:
        return None
    gap, change, used = [], [], []
    for _ in range(SPLITS):
        first = rng.permutation(names)[: len(names) // 2]
        for inside in (True, False):
            own = np.isin(base_unit, first) == inside
            gap.append(base_gaps(problem, base, shifts, own))
            change.append(gap_change(shifts, problem.weights, np.isin(unit, first) == inside))
            used.append(_own_usable(problem, base, shifts, own))
    shape = (SPLITS, 2, -1, *shifts.shift.shape[2:])
    return GapHalves(
        gap=np.reshape(gap, shape[:3]),
        change=np.reshape(change, shape),
        used=np.reshape(used, shape[:3]),
    )


def _own_usable(
    problem: BiasProblem, base: SampledTexts, shifts: HeadShifts, own: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " subgroups"]:
    """Gaps that these continuations alone can tell from 0; else the clearest.

    The largest, where they are of a single template: nothing shows how clear a gap is.
    """
    subgroup, template = problem.subgroup[base.prompt][own], problem.template[base.prompt][own]
    count = len(problem.subgroups)
    if len(np.unique(template)) < 2:
        size = np.nan_to_num(gaps(shifts.toxicity[own], subgroup, count))
        return clear_gaps(size, np.zeros(count), math.inf)[0]
    of = (
        gap_intervals(values[own], subgroup, template, count)
        for values in (shifts.toxicity, shifts.unbiased)
    )
    return clear_gaps(*clearness(*of), MIN_HALF_GAP_Z)[0]


def split_half_reliability(halves: Float[np.ndarray, "splits 2 layers heads"]) -> float:
    """Spearman correlation of the halves' rankings, averaged and stepped up to the whole.

    The formula is Spearman and Brown's; 0 where a half ranks nothing.
    """
    found = []
    for first, second in halves.reshape(len(halves), 2, -1):
        constant = not (np.ptp(first) and np.ptp(second))
        found.append(0.0 if constant else float(stats.spearmanr(first, second).statistic))
    return spearman_brown(float(np.mean(found)), 2)
