"""Before any work: which difference of bias(S) a budget can tell, and what a gate may ask of it.

From variance components (of a pilot, or stored ones) follows the standard error of a difference of
two sums of |gap|:

    s = (1 + 0.3 (1 - 2 / S)) (1 + 0.45 rho) sqrt(2 (1 - rho)) sqrt(S^2 / (S - 1))
        x standard error of one gap

sqrt(S^2 / (S - 1)): gaps of S equal subgroups, added with signs. rho: how far noise of the two
models is the same, by common random numbers; near 0 for a pruned model, near 1 for a candidate
that writes nearly as the reference does. The first two factors are what |.| costs where gaps are
not clear; they are fitted to simulation of `differences` (2 to 12 subgroups, rho 0 to 0.9: what is
planned differs from what is told in 80% of runs, or from the margin at which 80% pass, by 20% at
most where gaps are not clear, and is up to 40% too large where they are and rho is high).

A difference is told with a given power where it is (t + z) s, t the quantile of the test's level
over templates, z that of the power. A gate passes where the upper end of the interval is at most
the margin: for an unchanged candidate with that power at the same (t + z) s. These are plans: the
verdict rests on what is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from levelhead.errors import ConfigError
from levelhead.metrics.bias import subgroup_means
from levelhead.metrics.clusters import cluster_codes
from levelhead.metrics.verdicts import MAIN_WEIGHT

MOST_SAMPLES = 1024
"""Samples per prompt beyond which no plan is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponents:
    """Where the noise of a gap comes from, in units of toxicity squared."""

    text: float
    """Between texts of the same subgroup and template."""
    cell: float = 0.0
    """Of template x subgroup: what more samples of the same prompts do not shrink."""
    r_squared: float = 0.0
    """Share of `text` that the control variate takes out."""
    shared: float = 0.0
    """Correlation of the two models' noise, by common random numbers."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, most in (
            ("text", self.text, math.inf),
            ("cell", self.cell, math.inf),
            ("r_squared", self.r_squared, 1.0),
            ("shared", self.shared, 1.0),
        ):
            if not 0 <= value <= most:
                raise ConfigError(f"variance component {name} = {value} is not in [0, {most}]")


STORED = {
    "profanity-check": VarianceComponents(text=0.021, r_squared=0.33),
    "toxicityclassifier": VarianceComponents(text=0.0076, r_squared=0.43),
}
"""By scorer: SmolLM2-135M on the built-in prompts, the noisier end of several seeds; others take
`UNKNOWN`."""
UNKNOWN = VarianceComponents(text=0.021)
"""Where a scorer has no stored components: those of the demo, no control variate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How much is sampled on one axis."""

    prompts: int
    samples: int
    """Continuations per prompt."""
    subgroups: int
    templates: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value, least in (
            ("prompts", self.prompts, 2),
            ("samples", self.samples, 1),
            ("subgroups", self.subgroups, 2),
            ("templates", self.templates, 2),
        ):
            if value < least:
                raise ConfigError(f"{value} {name} are too few to plan; {least} are needed")


def gap_stderr(components: VarianceComponents, design: Design) -> float:
    """Expected standard error of one subgroup's gap, subgroups of equal size."""
    texts = design.prompts * design.samples / design.subgroups
    variance = components.text * (1 - components.r_squared) / texts
    variance += components.cell / design.templates
    return math.sqrt((1 - 1 / design.subgroups) * variance)


def difference_stderr(components: VarianceComponents, design: Design) -> float:
    """s of the module: of a difference of bias(S) between two models."""
    count = design.subgroups
    sum_of_gaps = count / math.sqrt(count - 1) * (1 + 0.3 * (1 - 2 / count))
    paired = (1 + 0.45 * components.shared) * math.sqrt(2 * (1 - components.shared))
    return sum_of_gaps * paired * gap_stderr(components, design)


def axis_error(axes: int, error: float = 0.05, *, main: bool = True) -> float:
    """The two-sided error that Holm leaves the first axis of several, at worst.

    Args:
        axes: judged together.
        error: of all of them.
        main: whether this is the axis that heads were selected for (`main_weights`).
    """
    if axes < 1:
        raise ConfigError(f"{axes} axes are too few to plan; 1 is needed")
    return error if axes == 1 else error * MAIN_WEIGHT if main else error / axes


def detectable_difference(
    components: VarianceComponents, design: Design, *, error: float = 0.05, power: float = 0.8
) -> float:
    """The smallest fall of bias(S) that is told with this power, in units of toxicity.

    Of the difference alone: where everybody's toxicity falls too, telling more takes more.

    Args:
        components: of this scorer and model.
        design: the budget.
        error: two-sided, of this axis (`axis_error`).
        power: probability that a true fall of this size is told.
    """
    return _reach(design, error, power) * difference_stderr(components, design)


def samples_for(
    difference: float,
    components: VarianceComponents,
    design: Design,
    *,
    error: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Fewest samples per prompt with which such a fall is told; `design.samples` is ignored.

    Also of a margin: the fewest with which an unchanged candidate passes.

    Returns:
        None where it takes more than `MOST_SAMPLES`, or more templates.

    Raises:
        ConfigError: a difference that is not above 0.
    """
    if not difference > 0:
        raise ConfigError(f"a difference of {difference} cannot be planned for; give one above 0")
    for samples in range(1, MOST_SAMPLES + 1):
        one = replace(design, samples=samples)
        if detectable_difference(components, one, error=error, power=power) <= difference:
            return samples
    return None


def resolved_margin(
    components: VarianceComponents, design: Design, *, level: float, power: float = 0.8
) -> float:
    """The smallest margin at which an unchanged candidate passes with this power.

    Args:
        level: of the interval of the difference (`verification.decision.interval_level`).
    """
    return detectable_difference(components, design, error=1 - level, power=power)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateChances:
    """What a gate will say of a candidate whose bias is higher by a known amount."""

    passed: float
    failed: float
    cannot_tell: float


def gate_chances(
    rise: float,
    margin: float,
    components: VarianceComponents,
    design: Design,
    *,
    level: float,
) -> GateChances:
    """Chances of each answer for a true rise of bias(S), 0 for an unchanged candidate."""
    s = difference_stderr(components, design)
    reach = float(stats.t.ppf((1 + level) / 2, design.templates - 1))
    if s == 0:
        return GateChances(passed=float(rise <= margin), failed=float(rise > margin), cannot_tell=0)
    room = (margin - rise) / s
    passed, failed = (float(stats.norm.cdf(side * room - reach)) for side in (1, -1))
    return GateChances(passed=passed, failed=failed, cannot_tell=1 - passed - failed)


def variance_components(
    toxicity: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    template: Int[np.ndarray, "n"],
    num_subgroups: int,
    *,
    adjusted: Float[np.ndarray, "n"] | None = None,
    other: Float[np.ndarray, "n"] | None = None,
) -> VarianceComponents:
    """Components of a pilot, by analysis of variance over template x subgroup.

    Args:
        toxicity: plain, of the base model.
        subgroup: codes from 0 to num_subgroups - 1.
        template: codes of the clusters.
        num_subgroups: S.
        adjusted: the same less the control variate; None: `r_squared` is 0.
        other: toxicity of another model's texts, entry by entry; None: nothing is shared.

    Raises:
        PromptError: fewer than two templates.
        ConfigError: no template has two texts of one subgroup, so texts and templates are one.
    """
    codes = cluster_codes(template)
    cell = codes * num_subgroups + subgroup
    counts = np.bincount(cell)
    freedom = len(cell) - int((counts > 0).sum())
    if freedom < 1:
        raise ConfigError(
            "a pilot with one text of each subgroup and template cannot tell texts from templates; "
            "use 2 samples per prompt or more words"
        )

    def inside(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Deviations from the mean of the cell."""
        of_cell = (np.bincount(cell, values) / np.maximum(counts, 1))[cell]
        out: Float[np.ndarray, " n"] = values - of_cell
        return out

    within = inside(toxicity)
    text = float((within**2).sum()) / freedom
    r_squared = shared = 0.0
    if adjusted is not None and text > 0:
        left = float((inside(adjusted) ** 2).sum()) / freedom
        r_squared = float(np.clip(1 - left / text, 0, 1))
    if other is not None:
        size = math.sqrt(float((within**2).sum() * (inside(other) ** 2).sum()))
        shared = float(np.clip((within @ inside(other)) / size, 0, 1)) if size > 0 else 0.0
    between = _interaction(toxicity, subgroup, codes, num_subgroups)
    each = len(cell) / max(1, int((counts > 0).sum()))
    cells = max(0.0, between - text / each)
    return VarianceComponents(text=text, cell=cells, r_squared=r_squared, shared=shared)


def _interaction(
    toxicity: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    codes: Int[np.ndarray, "n"],
    num_subgroups: int,
) -> float:
    """Variance of cell means about what subgroup and template alone would give."""
    templates = int(codes.max()) + 1
    shape = (templates, num_subgroups)
    cell = codes * num_subgroups + subgroup
    counts = np.bincount(cell, minlength=templates * num_subgroups).reshape(shape)
    total = np.bincount(cell, toxicity, templates * num_subgroups).reshape(shape)
    known = counts > 0
    means = np.where(known, total / np.maximum(counts, 1), 0.0)
    of_subgroup = np.nan_to_num(subgroup_means(toxicity, subgroup, num_subgroups))
    left = np.where(known, means - of_subgroup, 0.0)
    left -= (left.sum(axis=1) / np.maximum(known.sum(axis=1), 1))[:, None]
    present = int(known.any(axis=0).sum())
    freedom = max(1, (templates - 1) * (present - 1))
    return float((np.where(known, left, 0.0) ** 2).sum()) / freedom


def plan_of(
    components: VarianceComponents,
    design: Design,
    planned: Sequence[int],
    *,
    error: float = 0.05,
    power: float = 0.8,
) -> dict[int, float]:
    """What each number of samples per prompt can tell: {samples: detectable difference}."""
    return {
        samples: detectable_difference(
            components, replace(design, samples=samples), error=error, power=power
        )
        for samples in planned
    }


def _reach(design: Design, error: float, power: float) -> float:
    for name, value in (("error", error), ("power", power)):
        if not 0 < value < 1:
            raise ConfigError(f"{name} {value} is not between 0 and 1")
    quantile = float(stats.t.ppf(1 - error / 2, design.templates - 1))
    return quantile + float(stats.norm.ppf(power))
