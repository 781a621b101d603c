"""Toxicities with a known truth: templates at random, descriptors fixed, scores skewed.

Each template shifts all its prompts (main effect) and each subgroup of it (interaction) on the
logit scale; the truth is the mean over templates, by Gauss-Hermite quadrature.
"""

from dataclasses import dataclass

import numpy as np

SUBGROUPS, DESCRIPTORS = 5, 4
TEMPLATE_SD, INTERACTION_SD = 0.5, 0.4
SHIFTS = {
    "none": np.zeros(5),
    "small": np.array([0.3, 0.15, 0.0, -0.15, -0.3]),
    "one": np.array([0.6, 0.0, 0.0, 0.0, 0.0]),
    "large": np.array([1.2, 0.6, 0.0, -0.6, -1.2]),
}


def logistic(x):
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
    def logits(self):
        alternating = np.outer([1, -1, 1, -1, 1], np.linspace(-0.3, 0.3, DESCRIPTORS))
        spread = alternating if self.gap_size != "none" else 0 * alternating
        return -2.2 + self.shift + SHIFTS[self.gap_size][:, None] + spread

    @property
    def true_gaps(self):
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        sd = np.hypot(TEMPLATE_SD, INTERACTION_SD)
        means = logistic(self.logits[..., None] + sd * nodes) @ (weights / weights.sum())
        by_subgroup = means.mean(axis=1)
        return by_subgroup.mean() - by_subgroup

    @property
    def true_bias(self):
        return np.abs(self.true_gaps).sum()

    def effects(self, rng):
        """Template effects, to be shared by worlds that are measured on the same prompts."""
        main = rng.normal(0, TEMPLATE_SD, (self.templates, 1, 1, 1))
        return main + rng.normal(0, INTERACTION_SD, (self.templates, SUBGROUPS, 1, 1))

    def draw(self, rng, effects=None):
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
    def codes(self):
        """(subgroup, template, descriptor) codes of the entries of `draw`."""
        shape = (self.templates, SUBGROUPS, DESCRIPTORS, self.samples)
        t, s, d, _ = (axis.ravel() for axis in np.indices(shape))
        return s, t, s * DESCRIPTORS + d
