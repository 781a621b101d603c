"""Do nominal 95% intervals cover the truth? On simulated data whose truth is known.

Signed gaps, bias(S), differences of bias(S) on the same prompts, and z_bias +- t of its standard
error, each over several worlds (size of the gaps, kind of toxicity scores). It says nothing about
real toxicities beyond that they may look like one of these worlds.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from benchmarks.simulation import (
    KINDS,
    PAIRS,
    SHIFTS,
    SUBGROUPS,
    World,
    bias_coverage,
    gap_coverage,
    paired_coverage,
)
from levelhead.metrics.bias import gaps
from levelhead.metrics.intervals import gap_intervals
from levelhead.scoring.effects import gap_change, jackknife_stderr, usable_gaps, z_bias
from levelhead.scoring.problem import group_shifts

REPLICATIONS = 1000
QUICK_REPLICATIONS = 50
DRAWS = 200
"""Of the noise behind an interval of bias(S); the product draws 1,000."""
LOWEST, HIGHEST = 0.92, 0.98
LAYERS, HEADS = 4, 5
HEAD_EFFECT = 0.003
"""Spread of one head's effects on a subgroup's mean toxicity: that of SmolLM2's heads."""


def measure(quick: bool) -> dict[str, Any]:
    """Coverage per world with binomial standard errors, and the range of it per quantity."""
    n = QUICK_REPLICATIONS if quick else REPLICATIONS
    start = time.process_time()
    worlds = [World(gap, kind) for kind in KINDS for gap in SHIFTS]
    found = {
        "signed_gaps": [_case(world, n, gap_coverage(world, n, seed=21)) for world in worlds],
        "bias": [
            _case(world, n, bias_coverage(world, n, seed=22, draws=DRAWS)) for world in worlds
        ],
        "paired_differences": [
            _case(World(base, kind), n, _paired(base, pruned, shift, kind, n))
            | {"gap_after": pruned, "shift": shift}
            for kind in ("beta", "binary")
            for base, pruned, shift in PAIRS
        ],
        # Without a gap there is no sign, and so no z_bias to cover.
        "z_bias": [_z_bias(world, n) for world in worlds if world.gap_size != "none"],
    }
    return {
        "replications": n,
        "nominal": 0.95,
        "cpu_seconds": time.process_time() - start,
        "range": {name: _range(cases) for name, cases in found.items()},
        "cases": found,
    }


def head_coverage(
    world: World, replications: int, seed: int
) -> tuple[Float[np.ndarray, " heads"], int]:
    """(share in which z_bias +- t stderr holds the truth, per head; replications that count).

    Each text's effect of a head is skewed and shared within its template. As in a run, which gaps
    are used follows from the toxicities of the same replication; one without a usable gap yields
    no ranking and does not count. The truth has the true gaps, of the used subgroups.
    """
    rng = np.random.default_rng(seed)
    subgroup, template, _ = world.codes
    weights = np.full(SUBGROUPS, 1 / SUBGROUPS)
    truth = HEAD_EFFECT * rng.standard_normal((SUBGROUPS, LAYERS, HEADS))
    true_change = truth.mean(axis=0) - truth
    reach = stats.t.ppf(0.975, world.templates - 1)
    covered, counted = np.zeros((LAYERS, HEADS)), 0
    for _ in range(replications):
        toxicity = world.draw(rng)
        measured = gap_intervals(toxicity, subgroup, template, SUBGROUPS)
        used, measurable = usable_gaps(measured, measured)
        if not measurable:
            continue
        shared = rng.gamma(2, 0.5, (world.templates, SUBGROUPS, LAYERS, HEADS))[template, subgroup]
        rows = truth[subgroup] * shared
        rows += 5 * HEAD_EFFECT * rng.standard_t(4, rows.shape)
        shifts = group_shifts(
            rows, subgroup, template, np.zeros_like(template), SUBGROUPS, toxicity, toxicity, {}
        )
        gap = gaps(toxicity, subgroup, SUBGROUPS)
        effect = z_bias(gap, gap_change(shifts, weights), used)
        stderr = jackknife_stderr(shifts, weights, gap, used)
        true_effect = z_bias(world.true_gaps, true_change, used)
        covered += np.abs(effect - true_effect) <= reach * stderr
        counted += 1
    return covered.ravel() / max(1, counted), counted


def _z_bias(world: World, replications: int) -> dict[str, Any]:
    coverage, counted = head_coverage(world, replications, seed=24)
    return _case(world, counted, coverage) | {"replications_with_a_usable_gap": counted}


def _paired(base: str, pruned: str, shift: float, kind: str, replications: int) -> float:
    before, after = World(base, kind), World(pruned, kind, shift=shift)
    return paired_coverage(before, after, replications, seed=23, draws=DRAWS)


def _case(world: World, replications: int, coverage: float | np.ndarray) -> dict[str, Any]:
    """Several intervals of one world (subgroups, heads) are averaged; the lowest is kept too."""
    each = np.atleast_1d(coverage)
    mean = float(each.mean())
    return {
        "gap": world.gap_size,
        "toxicity": world.kind,
        "templates": world.templates,
        "coverage": mean,
        "stderr": float(np.sqrt(mean * (1 - mean) / max(1, replications))),
        "lowest": float(each.min()),
        "highest": float(each.max()),
    }


def _range(cases: list[dict[str, Any]]) -> dict[str, Any]:
    found = [case["coverage"] for case in cases]
    return {
        "least": min(found),
        "most": max(found),
        "mean": float(np.mean(found)),
        "cases": len(found),
        "cases_from_92_to_98": sum(LOWEST <= coverage <= HIGHEST for coverage in found),
        "cases_from_92": sum(coverage >= LOWEST for coverage in found),
    }
