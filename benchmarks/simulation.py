"""Toxicities with a known truth: templates at random, descriptors fixed, scores skewed.

Each template shifts all its prompts (main effect) and each subgroup of it (interaction) on the
logit scale; the truth is the mean over templates, by Gauss-Hermite quadrature. Whether intervals
of measured gaps, biases and their differences hold that truth is counted over replications. Both
`coverage.py` and the tests of `metrics` use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from levelhead.metrics.bias import bias
from levelhead.metrics.bias_intervals import bias_interval
from levelhead.metrics.differences import (
    bias_difference,
    common_factor,
    harmless_floor,
)
from levelhead.metrics.intervals import gap_intervals, linear_difference_interval
from levelhead.metrics.verdicts import Evidence, main_weights, verdicts
from levelhead.records import Interval

SUBGROUPS, DESCRIPTORS = 5, 4
TEMPLATE_SD, INTERACTION_SD = 0.5, 0.4
SHIFTS = {
    "none": np.zeros(5),
    "small": np.array([0.3, 0.15, 0.0, -0.15, -0.3]),
    "one": np.array([0.6, 0.0, 0.0, 0.0, 0.0]),
    "large": np.array([1.2, 0.6, 0.0, -0.6, -1.2]),
}


KINDS = ("beta", "zero-inflated", "binary")
PAIRS = [
    ("none", "none", 0.0),
    ("none", "none", -0.8),  # no gap, but less toxic after pruning: less noise, smaller |.|
    ("small", "small", 0.0),
    ("small", "none", 0.0),
    ("none", "small", 0.0),
    ("large", "large", 0.0),
    ("large", "none", 0.0),
]
"""(gaps before pruning, after it, shift of everyone's toxicity on the logit scale)."""


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@dataclass(frozen=True)
class World:
    """What the simulated model does, and the true gaps of it."""

    gap_size: str
    kind: str
    templates: int = 25
    samples: int = 1
    shift: float = 0.0

    @property
    def logits(self) -> Float[np.ndarray, "subgroups descriptors"]:
        """Of the mean toxicity in a template without effects."""
        alternating = np.outer([1, -1, 1, -1, 1], np.linspace(-0.3, 0.3, DESCRIPTORS))
        spread = alternating if self.gap_size != "none" else 0 * alternating
        return -2.2 + self.shift + SHIFTS[self.gap_size][:, None] + spread

    @property
    def true_gaps(self) -> Float[np.ndarray, " subgroups"]:
        """T_S - T_s over all templates there could be."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        sd = np.hypot(TEMPLATE_SD, INTERACTION_SD)
        means = logistic(self.logits[..., None] + sd * nodes) @ (weights / weights.sum())
        by_subgroup = means.mean(axis=1)
        return by_subgroup.mean() - by_subgroup

    @property
    def true_bias(self) -> float:
        """Sum of |true gap|."""
        return float(np.abs(self.true_gaps).sum())

    def effects(self, rng: np.random.Generator) -> Float[np.ndarray, "templates subgroups 1 1"]:
        """Template effects, to be shared by worlds that are measured on the same prompts."""
        main = rng.normal(0, TEMPLATE_SD, (self.templates, 1, 1, 1))
        return main + rng.normal(0, INTERACTION_SD, (self.templates, SUBGROUPS, 1, 1))

    def draw(
        self, rng: np.random.Generator, effects: np.ndarray | None = None
    ) -> Float[np.ndarray, " n"]:
        """Toxicities, template-major, as `codes` numbers them."""
        effects = self.effects(rng) if effects is None else effects
        mean = logistic(self.logits[None, :, :, None] + effects) * np.ones(self.samples)
        if self.kind == "beta":
            values = rng.beta(3 * mean, 3 * (1 - mean))
        elif self.kind == "zero-inflated":
            values = (rng.random(mean.shape) < mean / 0.75) * rng.uniform(0.5, 1, mean.shape)
        else:
            values = 1.0 * (rng.random(mean.shape) < mean)
        return values.ravel()

    @property
    def codes(self) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """(subgroup, template, descriptor) codes of the entries of `draw`."""
        shape = (self.templates, SUBGROUPS, DESCRIPTORS, self.samples)
        t, s, d, _ = (axis.ravel() for axis in np.indices(shape))
        return s, t, s * DESCRIPTORS + d


DIRECTIONS = {
    "one": np.array([0.5, -0.125, -0.125, -0.125, -0.125]),
    "spread": np.array([0.25, 0.25, 0.0, -0.25, -0.25]),
}
"""Gaps of a bias of 1: one subgroup against the rest, or two against two."""


@dataclass(frozen=True, kw_only=True)
class TextWorld:
    """Where texts, not templates, are the noise, as in the demo: a gap's standard error is 0.0145.

    A harmless text scores about the floor; a toxic one adds up to 0.65 ("skewed") or exactly 0.43
    ("near-binary"). Templates differ in how often texts are toxic. `kept` thins the toxic texts of
    everybody. The control variate is noise of mean 0 that correlates with the toxicity.
    """

    bias: float
    direction: str = "one"
    kind: str = "skewed"
    samples: int = 1
    templates: int = 40
    words: int = 2
    kept: float = 1.0
    mean: float = 0.092
    floor: float = 0.036
    harmless: float = 0.0
    """How far above the floor harmless texts are on average."""
    r_squared: float = 0.42

    @property
    def means(self) -> Float[np.ndarray, " subgroups"]:
        """True mean toxicity of each subgroup."""
        start = self.floor + self.harmless
        whole = self.mean - self.bias * DIRECTIONS[self.direction]
        if not (whole >= start).all():
            raise ValueError(f"subgroups' means {whole} are not all above harmless texts: {start}")
        return start + self.kept * (whole - start)

    @property
    def true_bias(self) -> float:
        """Sum of |true gap|."""
        return self.kept * self.bias

    @property
    def codes(self) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """(subgroup, template) codes of the entries of `draw`."""
        t, s, *_ = (axis.ravel() for axis in np.indices(self._shape))
        return s, t

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.templates, SUBGROUPS, self.words, self.samples

    def effects(self, rng: np.random.Generator) -> Float[np.ndarray, "templates 1 1 1"]:
        """Factors of mean 1 of how often texts are toxic, for models with the same prompts."""
        return np.exp(rng.normal(-0.045, 0.3, (self.templates, 1, 1, 1)))

    def draw(
        self, rng: np.random.Generator, effects: np.ndarray | None = None
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """(toxicities, the same less the control variate), template-major."""
        effects = self.effects(rng) if effects is None else effects
        start = self.floor + self.harmless
        toxic = (self.means - start)[None, :, None, None] * effects * np.ones(self._shape)
        size = 0.325 if self.kind == "skewed" else 0.43
        added = (rng.random(self._shape) < toxic / size) * 1.0
        added *= rng.uniform(0, 2 * size, self._shape) if self.kind == "skewed" else size
        harmless = rng.exponential(self.harmless, self._shape) if self.harmless else 0.0
        toxicity = self.floor + harmless + added
        noise = np.sqrt(self.r_squared * (1 - self.r_squared)) * added.std()
        known = self.r_squared * (added - toxic) + noise * rng.standard_normal(self._shape)
        return toxicity.ravel(), (toxicity - known).ravel()


def coverage_by_tenth(
    world: TextWorld,
    replications: int,
    seed: int,
    *,
    draws: int = 400,
    interval: Callable[..., Interval] = bias_interval,
) -> list[float]:
    """Share of intervals of bias(S) that hold the truth, by tenth of the measured value."""
    rng = np.random.default_rng(seed)
    subgroup, template = world.codes
    measured, covered = np.zeros(replications), np.zeros(replications, dtype=bool)
    for i in range(replications):
        toxicity, _ = world.draw(rng)
        got = interval(toxicity, subgroup, template, SUBGROUPS, rng, draws=draws)
        measured[i] = bias(toxicity, subgroup, SUBGROUPS)
        covered[i] = got.low <= world.true_bias + 1e-12 and world.true_bias <= got.high
    return [float(x.mean()) for x in np.array_split(covered[np.argsort(measured)], 10)]


def judged_share(
    base: TextWorld,
    pruned: TextWorld,
    replications: int,
    seed: int,
    *,
    axes: int = 1,
    main: bool = False,
    adjusted: bool = True,
    draws: int = 500,
) -> dict[str, float]:
    """Share of runs in which each word is said of any axis; all axes are such worlds.

    Args:
        axes: judged together; with `main`, the first has most of the error.
        adjusted: the reading less the control variate leads.
    """
    rng = np.random.default_rng(seed)
    said: Counter[str] = Counter()
    names = [str(i) for i in range(axes)]
    weights = main_weights(names, "0" if main else None)
    for _ in range(replications):
        evidence = {name: text_evidence(base, pruned, rng, adjusted, draws) for name in names}
        found = verdicts(evidence, weights=weights)
        said.update({row.verdict for row in found.values()})
        if main:
            said["main: " + found["0"].verdict] += 1
    return {word: count / replications for word, count in said.items()}


def text_evidence(
    base: TextWorld,
    pruned: TextWorld,
    rng: np.random.Generator,
    adjusted: bool = True,
    draws: int = 500,
) -> Evidence:
    """What a run of both worlds on the same prompts shows."""
    subgroup, template = base.codes
    effects = base.effects(rng)
    both = [world.draw(rng, effects) for world in (base, pruned)]
    x, y = (pair[int(adjusted)] for pair in both)
    given = (x, y, subgroup, template, SUBGROUPS)
    floor = harmless_floor(base.floor, both[0][0], both[1][0])
    return Evidence(
        difference=bias_difference(*given, rng, draws=draws),
        factor=common_factor(*given, floor, rng, draws=draws),
        toxicity=linear_difference_interval(y - x, template),
    )


def gap_coverage(world: World, replications: int, seed: int) -> Float[np.ndarray, " subgroups"]:
    """Share of replications whose interval holds the true gap, per subgroup."""
    rng = np.random.default_rng(seed)
    subgroup, template, _ = world.codes
    truth, covered = world.true_gaps, np.zeros(SUBGROUPS)
    for _ in range(replications):
        got = gap_intervals(world.draw(rng), subgroup, template, SUBGROUPS)
        covered += (got.low <= truth) & (truth <= got.high)
    return covered / replications


def bias_coverage(
    world: World,
    replications: int,
    seed: int,
    *,
    draws: int = 400,
    interval: Callable[..., Any] = bias_interval,
) -> float:
    """Share of replications whose interval of bias(S) holds the true one.

    Args:
        interval: of the arguments of `bias_interval`; may return (low, high).
    """
    rng = np.random.default_rng(seed)
    subgroup, template, _ = world.codes
    truth, covered = world.true_bias, 0
    for _ in range(replications):
        got = interval(world.draw(rng), subgroup, template, SUBGROUPS, rng, draws=draws)
        low, high = (got.low, got.high) if isinstance(got, Interval) else got
        covered += low <= truth + 1e-12 and truth <= high
    return covered / replications


def paired_coverage(
    base: World, pruned: World, replications: int, seed: int, *, draws: int = 400
) -> float:
    """Share of replications whose interval of the change of bias(S) holds the true change.

    Both models answer the same prompts: they share the template effects.
    """
    rng = np.random.default_rng(seed)
    subgroup, template, _ = base.codes
    truth, covered = pruned.true_bias - base.true_bias, 0
    for _ in range(replications):
        effects = base.effects(rng)
        got = bias_difference(
            base.draw(rng, effects),
            pruned.draw(rng, effects),
            subgroup,
            template,
            SUBGROUPS,
            rng,
            draws=draws,
        ).estimate.interval
        covered += got.low <= truth <= got.high
    return covered / replications
