"""What a by-seed table is worth: the diagnosis of every axis, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from levelhead.diagnosis.agreement import Agreement, Overlap, agreement, set_overlap
from levelhead.diagnosis.by_seed import SeedScores
from levelhead.diagnosis.modes import FEWEST_HEADS, Drift, Modes, drift, modes
from levelhead.scores import MIN_RELIABILITY
from levelhead.selection.rules import check_shares


def diagnose_axes(
    axes: Sequence[SeedScores], *, gamma: float = 0.3, alpha: float = 0.1
) -> dict[str, Any]:
    """The diagnosis of a table, as `levelhead diagnose --json` prints it.

    An axis is `reliable` where all of this holds, else the ranking should not be acted on:

    - the reliability of the mean over its seeds is at least `MIN_RELIABILITY`: below it, another
      such set of seeds would share less than a quarter of the variance of its ranks;
    - two seeds agree by more than pure noise does in one table of a hundred. With the many heads
      of real models that follows from the first; with 20 heads, noise can reach 0.5;
    - no seed is bimodal. Seeds broken in the same way agree with each other, so the reliability
      of a broken run means nothing.

    Drift and uneven overlap only warn: a clean procedure can show both.

    Args:
        axes: what `read_by_seed` returns.
        gamma: share of heads protected, for the overlap.
        alpha: share of heads pruned, for the overlap.

    Raises:
        SelectionError: gamma and alpha that cannot be satisfied together.
    """
    check_shares("fasp", gamma, alpha)
    found = {scores.axis: _diagnose_axis(scores, gamma, alpha) for scores in axes}
    return {
        "axes": {axis: data for axis, (data, _) in found.items()},
        "bimodal": any(data["bimodal"] for data, _ in found.values()),
        "warnings": [f"{axis}: {line}" for axis, (_, lines) in found.items() for line in lines],
    }


def _diagnose_axis(
    scores: SeedScores, gamma: float, alpha: float
) -> tuple[dict[str, Any], list[str]]:
    kept, warnings = _replicates(scores)
    usable = scores.of_seeds(kept)
    agreed = agreement(usable, np.random.default_rng(0))  # a table has one diagnosis
    overlap = set_overlap(usable, gamma, alpha)
    two_modes = _modes(scores)
    drifts = {seed: d for seed, d in drift(scores).items() if seed not in two_modes}
    beyond_chance = agreed is not None and agreed.spearman > agreed.chance
    reliable = (
        agreed is not None
        and agreed.reliability >= MIN_RELIABILITY
        and beyond_chance
        and not two_modes
    )
    data = {
        "seed_spearman": agreed and agreed.spearman,
        "seed_spearman_ci95": agreed and [agreed.interval.low, agreed.interval.high],
        "seed_spearman_range": agreed and list(agreed.range),
        "seed_spearman_chance": agreed and agreed.chance,
        "reliability": agreed and agreed.reliability,
        "overlap": overlap and overlap.share,
        "overlap_range": overlap and list(overlap.range),
        "overlap_chance": overlap and overlap.chance,
        "reliable": reliable,
        "seeds": list(scores.seeds),
        "heads": len(scores.heads),
        "bimodal": bool(two_modes),
        "modes": {str(seed): _json(m) for seed, m in two_modes.items()},
        "drift": {str(seed): _json(d) for seed, d in drifts.items()},
    }
    warnings += _agreement_warnings(agreed, len(scores.seeds))
    warnings += _overlap_warnings(overlap, agreed, alpha)
    warnings += _mode_warnings(scores, two_modes, drifts)
    return data, warnings


def _json(found: Modes | Drift) -> dict[str, Any]:
    """Its fields, with heads as lists, as they come back from JSON."""
    fields = asdict(found).items()
    return {name: list(v) if isinstance(v, tuple) else v for name, v in fields}


def _modes(scores: SeedScores) -> dict[int, Modes]:
    found = {}
    for seed, values in zip(scores.seeds, scores.mean_toxicity, strict=True):
        there = np.flatnonzero(np.isfinite(values))
        seen = modes(values[there], [scores.heads[i] for i in there])
        if seen is not None:
            found[seed] = seen
    return found


def _replicates(scores: SeedScores) -> tuple[list[int], list[str]]:
    """Positions of the seeds that say something about each other, and why others do not."""
    kept: list[int] = []
    warnings = []
    present = np.isfinite(scores.bias)
    for i, seed in enumerate(scores.seeds):
        absent = int((~present[i]).sum())
        if absent:
            warnings.append(
                f"seed {seed} lacks {absent} of {len(scores.heads)} heads; pairs of seeds are "
                "compared on the heads that both have"
            )
        if np.ptp(scores.bias[i][present[i]]) == 0:
            warnings.append(f"seed {seed} has the same bias for every head; it ranks nothing")
            continue
        copied = [scores.seeds[j] for j in kept if _same(scores, i, j)]
        if copied:
            warnings.append(
                f"seed {seed} has the very numbers of seed {copied[0]}: a copy, not a replicate; "
                "it is left out"
            )
            continue
        kept.append(i)
    return kept, warnings


def _same(scores: SeedScores, i: int, j: int) -> bool:
    """Whether two seeds agree to the last digit in bias and mean toxicity of every head."""
    return all(
        np.array_equal(grid[i], grid[j], equal_nan=True)
        for grid in (scores.bias, scores.mean_toxicity)
    )


def _agreement_warnings(agreed: Agreement | None, seeds: int) -> list[str]:
    if agreed is None:
        why = "one seed" if seeds == 1 else "fewer than two seeds that can be compared"
        return [
            f"with {why} the reliability of the ranking cannot be known; score again with another "
            "seed"
        ]
    pair = f"two seeds agree by a Spearman correlation of {agreed.spearman:.2f}"
    if agreed.reliability < MIN_RELIABILITY:
        return [
            f"the ranking of heads is mostly noise (reliability of the mean over {agreed.seeds} "
            f"seeds {agreed.reliability:.2f}, below {MIN_RELIABILITY}; {pair}); "
            f"{_more_seeds(agreed.spearman)}"
        ]
    if agreed.spearman <= agreed.chance:
        return [
            f"{pair}, and with so few heads noise alone reaches {agreed.chance:.2f} in one table "
            "of a hundred; more seeds are needed to tell"
        ]
    return []


def _more_seeds(spearman: float) -> str:
    """How many seeds would reach `MIN_RELIABILITY`, by the Spearman-Brown formula."""
    if spearman <= 0.02:
        return "no number of seeds can be foretold to help: there may be nothing to rank"
    odds = MIN_RELIABILITY / (1 - MIN_RELIABILITY)
    return f"the mean over about {math.ceil(odds * (1 - spearman) / spearman)} would reach it"


def _overlap_warnings(overlap: Overlap | None, agreed: Agreement | None, alpha: float) -> list[str]:
    if overlap is None:
        few = f"alpha={alpha} prunes none of so few heads, so no sets can be compared"
        return [few] if agreed is not None else []
    if overlap.share <= overlap.chance:
        return [
            f"two seeds choose the same {overlap.share:.0%} of the heads to prune; chance gives "
            f"{overlap.chance:.0%}"
        ]
    return []


def _mode_warnings(
    scores: SeedScores, two_modes: dict[int, Modes], drifts: dict[int, Drift]
) -> list[str]:
    warnings = [
        f"seed {seed} is bimodal: without one head, mean toxicity is near {m.low:.3g} "
        f"({m.heads_low} heads) or near {m.high:.3g} ({m.heads_high} heads); one head does not "
        f"move it so far. It switches {m.switches} times along head ids "
        f"({m.switches_by_chance:.0f} by chance), first at layer {m.first_switch[0]}, head "
        f"{m.first_switch[1]}: two procedures seem to be mixed; find what changed and score again"
        for seed, m in two_modes.items()
    ]
    for seed, d in drifts.items():
        known = "" if len(scores.seeds) > 1 else "; it may also be a difference between layers"
        warnings.append(
            f"seed {seed} drifts: its mean toxicity moves with the head id (neighbours correlate "
            f"by {d.correlation:.2f}), most at layer {d.change[0]}, head {d.change[1]}, from "
            f"{d.before:.3g} to {d.after:.3g}{known}"
        )
    if len(scores.heads) < FEWEST_HEADS:
        warnings.append(
            f"{len(scores.heads)} heads are too few to look for two modes or drift "
            f"({FEWEST_HEADS} are needed)"
        )
    return warnings
