"""What a budget can tell, said before it is spent; and how much a policy's margins take.

A candidate whose gap has not changed passes where the upper ends of all intervals are at most
their margins. Planned for is the worst kind of it: one that writes other texts than the base
throughout (a pruned or retrained model). Near-identical models share random numbers and write
nearly the same texts, so that their difference is known far better; `shared_noise` says how far.

A margin that the budget does not resolve is refused: an unchanged candidate would mostly end in
"cannot tell", and people would learn to ignore the gate. Plans rest on variance components
(`metrics.power`); verdicts rest on what is measured, whatever was planned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from levelhead.errors import ConfigError
from levelhead.metrics.power import (
    MOST_SAMPLES,
    STORED,
    UNKNOWN,
    Design,
    VarianceComponents,
    gate_chances,
    resolved_margin,
)
from levelhead.verification.decision import GAP, TOXICITY, Errors, look_errors
from levelhead.verification.policy import Policy

POWER = 0.8
"""Chance that an unchanged candidate passes all checks, below which a margin is not resolved."""
LEAST_SAMPLES, MOST_PLANNED = 4, 32
"""Continuations per prompt that are planned where the policy gives none."""
EXAMPLE_GAP = 0.09
"""A gap that is supposed to double: that of the embedded model in a reading that shows one."""
NEAR = 0.9
"""Shared noise of a near-identical candidate, such as another number format."""

Designs = Mapping[str, Design]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePower:
    """What will be said of models whose change is known, by the plan."""

    samples: int
    """Continuations per prompt, at the last look."""
    components: VarianceComponents
    unchanged: float
    """Chance that a candidate with the base's gaps, but other texts, passes all checks."""
    near_identical: float
    """The same of one that writes nearly what the base writes."""
    doubled: float
    """Chance to refuse (failed or cannot tell) a gap of `example_gap` that doubled on an axis."""
    smallest_margin: float
    """Of gaps: the smallest that this budget resolves."""
    example_gap: float = EXAMPLE_GAP

    def to_json(self) -> dict[str, Any]:
        """The form of the audit."""
        return {
            "samples": self.samples,
            "unchanged_passes": self.unchanged,
            "near_identical_passes": self.near_identical,
            "example_gap": self.example_gap,
            "doubled_is_refused": self.doubled,
            "smallest_max_gap_increase": self.smallest_margin,
            "components": components_json(self.components),
        }


def components_json(components: VarianceComponents) -> dict[str, float]:
    """Variance components in the words of the policy file."""
    return {
        "text_variance": components.text * (1 - components.r_squared),
        "cell_variance": components.cell,
        "shared_noise": components.shared,
    }


def components_of(rules: Policy, scorer: str) -> VarianceComponents:
    """Those that the policy states (from an earlier audit), else those stored of the scorer."""
    known = STORED.get(scorer.rpartition("masked:")[2], UNKNOWN)
    if rules.text_variance is not None:
        known = VarianceComponents(text=rules.text_variance)
    return replace(known, shared=rules.shared_noise)


def planned_power(
    rules: Policy, designs: Designs, components: VarianceComponents, checks: int
) -> GatePower:
    """The power of a policy; where it leaves the samples open, the fewest that resolve its margins.

    Args:
        rules: with the margins.
        designs: by axis; their `samples` is ignored.
        components: of what will be measured.
        checks: how many there are, those that no sampling decides among them.

    Raises:
        ConfigError: a margin that the budget does not resolve, with what would.
    """
    plan = _Plan(rules=rules, designs=designs, components=components, checks=checks)
    given = rules.most_samples
    needed = plan.fewest()
    samples = given or max(LEAST_SAMPLES, min(needed or MOST_PLANNED, MOST_PLANNED))
    if plan.chance(samples) < POWER:
        raise ConfigError(_refusal(plan, samples, needed))
    return GatePower(
        samples=samples,
        components=components,
        unchanged=plan.chance(samples),
        near_identical=plan.shared(NEAR).chance(samples),
        doubled=plan.refusal(samples, EXAMPLE_GAP),
        smallest_margin=plan.smallest(samples)[GAP],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    rules: Policy
    designs: Designs
    components: VarianceComponents
    checks: int

    def shared(self, shared: float) -> _Plan:
        """At least so much noise is shared."""
        most = max(shared, self.components.shared)
        return replace(self, components=replace(self.components, shared=most))

    def errors(self, samples: int) -> Errors:
        """Of the last look."""
        return look_errors(
            self.rules.confidence, self.checks, samples, self.rules.looks_at(samples)
        )

    def chance(self, samples: int) -> float:
        """That an unchanged candidate passes every check that rests on samples."""
        found = 1.0
        for axis in self.designs:
            found *= self._gap(axis, samples, 0.0) * self._toxicity(axis, samples)
        return found

    def refusal(self, samples: int, rise: float) -> float:
        """Of a candidate whose gap rose by so much on the axis that is measured worst."""
        return 1 - max(self._gap(axis, samples, rise) for axis in self.designs)

    def fewest(self) -> int | None:
        """Samples per prompt that resolve the margins; None: more than `MOST_SAMPLES`."""
        return _fewest(lambda samples: self.chance(samples) >= POWER, MOST_SAMPLES)

    def smallest(self, samples: int) -> dict[str, float]:
        """The smallest margin of each kind that so many samples resolve."""
        limited = [self.rules.max_gap_increase, self.rules.max_mean_toxicity_increase]
        each = POWER ** (1 / (len(self.designs) * sum(limit is not None for limit in limited)))
        level = self.errors(samples).passing_level
        gaps = [
            resolved_margin(
                self.components, replace(design, samples=samples), level=level, power=each
            )
            for design in self.designs.values()
        ]
        means = []
        for axis in self.designs:
            stderr, reach = self._mean(axis, samples)
            means.append((reach + float(stats.norm.ppf(each))) * stderr)
        return {GAP: max(gaps), TOXICITY: max(means)}

    def _gap(self, axis: str, samples: int, rise: float) -> float:
        return gate_chances(
            rise,
            self.rules.max_gap_increase,
            self.components,
            replace(self.designs[axis], samples=samples),
            level=self.errors(samples).passing_level,
        ).passed

    def _toxicity(self, axis: str, samples: int) -> float:
        margin = self.rules.max_mean_toxicity_increase
        if margin is None:
            return 1.0
        stderr, reach = self._mean(axis, samples)
        return float(stats.norm.cdf(margin / stderr - reach)) if stderr > 0 else 1.0

    def _mean(self, axis: str, samples: int) -> tuple[float, float]:
        """(standard error of a difference of mean toxicity, quantile of the passing level)."""
        design, one = self.designs[axis], self.components
        texts = design.prompts * samples
        variance = one.text * (1 - one.r_squared) / texts
        variance += one.cell / (design.templates * design.subgroups)
        level = self.errors(samples).passing_level
        reach = float(stats.t.ppf((1 + level) / 2, design.templates - 1))
        return math.sqrt(2 * (1 - one.shared) * variance), reach


def _fewest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest whole number from 1 to `most` that is enough; more is enough, too."""
    if not enough(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _refusal(plan: _Plan, samples: int, needed: int | None) -> str:
    rules = plan.rules
    smallest = plan.smallest(samples)
    given = {GAP: rules.max_gap_increase, TOXICITY: rules.max_mean_toxicity_increase}
    keys = {GAP: "max_gap_increase", TOXICITY: "max_mean_toxicity_increase"}
    short = {
        keys[kind]: (margin, smallest[kind])
        for kind, margin in given.items()
        if margin is not None and margin < smallest[kind]
    }
    named = " and ".join(f"{key} = {margin:g}" for key, (margin, _) in short.items())
    margins = " and ".join(f"{key} = {_up(least):g}" for key, (_, least) in short.items())
    prompts = [one.prompts for one in plan.designs.values()]
    axes = "1 axis" if len(prompts) == 1 else f"{len(prompts)} axes"
    budget = f"{axes}, {min(prompts)} prompts each or more"
    more = "no number of samples is enough"
    if needed is not None:
        more = f"give samples = {needed}"
        if rules.looks is not None:
            more += " as the last of looks"
    return (
        f"policy: samples = {samples} cannot resolve {named}: a candidate that has not changed "
        f"would pass in {plan.chance(samples):.0%} of runs, and {POWER:.0%} are needed "
        f"({budget}); {more}, or margins of at least {margins}, or more prompts (max_prompts), or "
        "fewer axes; for a scorer or model with less noise, or a candidate that writes nearly what "
        "the base writes, give text_variance and shared_noise as an earlier audit measured them"
    )


def _up(value: float) -> float:
    """Rounded up to two digits, so that it is enough."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.3g}")
