"""What a by-seed table is worth: the diagnosis of every axis, and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from levelhead.diagnosis import words
from levelhead.diagnosis.agreement import Agreement, agreement
from levelhead.diagnosis.by_seed import SeedScores
from levelhead.diagnosis.modes import Drift, Modes, drift, in_high_mode, modes
from levelhead.diagnosis.overlap import set_overlap
from levelhead.records import Estimate
from levelhead.scores import MIN_RELIABILITY
from levelhead.selection.rules import check_shares

Verdict = Literal["more than noise", "noise", "cannot tell"]


def diagnose_axes(
    axes: Sequence[SeedScores], *, gamma: float = 0.3, alpha: float = 0.1
) -> dict[str, Any]:
    """The diagnosis of a table, as `levelhead diagnose --json` prints it.

    The `verdict` on an axis rests on the reliability of the mean over its seeds, which is the
    share of the variance of that ranking that is no noise, and on `MIN_RELIABILITY`, one half of
    it. Three reliabilities count: of the ranking by bias as it is; of what is left of it when the
    seed's own mean toxicity is taken out; and of what is left when the noise of mean toxicity is
    allowed for (`levelhead.diagnosis.repetition`).

    - `more than noise`: the 95% intervals of all three lie at or above `MIN_RELIABILITY`, and two
      seeds agree by more than pure noise does in one table of a hundred (with two dozen heads or
      fewer, noise can reach much).
    - `noise`: the interval of at least one lies below `MIN_RELIABILITY`. More than half of the
      variance of the ranking is noise, or what repeats in it is mean toxicity and not bias.
    - `cannot tell`: everything else; also where fewer than two seeds can be compared, and where a
      seed is bimodal: seeds broken in the same way agree with each other. Then the ranking within
      each mode has a verdict of its own, by the same rule.

    `verdict_with_toxicity` is the verdict by the first of the three alone. `reliable` is whether
    the verdict is `more than noise`. Drift and overlap only warn: a clean procedure can show both.

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
    agreed = agreement(usable)
    overlap = set_overlap(usable, gamma, alpha)
    two_modes = _modes(scores)
    drifts = {seed: d for seed, d in drift(scores).items() if seed not in two_modes}
    within = _within_modes(usable, two_modes)
    ranking = _ranking(agreed)
    if two_modes:
        ranking |= {"verdict": "cannot tell", "verdict_with_toxicity": "cannot tell"}
    data = ranking | {
        "reliable": ranking["verdict"] == "more than noise",
        "overlap": overlap and overlap.share,
        "overlap_range": overlap and list(overlap.range),
        "overlap_chance": overlap and overlap.chance,
        "overlap_p": overlap and overlap.p,
        "seeds": list(scores.seeds),
        "heads": len(scores.heads),
        "bimodal": bool(two_modes),
        "modes": {str(seed): _json(m) for seed, m in two_modes.items()},
        "within_modes": {
            name: {"heads": a and a.heads} | _ranking(a) for name, a in within.items()
        },
        "drift": {str(seed): _json(d) for seed, d in drifts.items()},
    }
    if agreed is None:
        warnings += words.unknown(len(scores.seeds))
    elif not two_modes:
        warnings += words.of_agreement(agreed, data["verdict_with_toxicity"])
        warnings += words.of_toxicity(agreed, data["verdict_with_toxicity"], data["verdict"])
    warnings += words.of_overlap(overlap, agreed, alpha)
    warnings += words.of_modes(two_modes)
    for name, a in within.items():
        warnings += words.within_mode(name, a, data["within_modes"][name]["verdict"])
    return data, warnings + words.of_drift(scores, drifts)


def _ranking(agreed: Agreement | None) -> dict[str, Any]:
    """Verdicts and numbers of one ranking; null where they cannot be known."""
    plain, left = _verdicts(agreed)
    out: dict[str, Any] = {"verdict": left, "verdict_with_toxicity": plain}
    estimates = {
        "seed_spearman": agreed and agreed.spearman,
        "reliability": agreed and agreed.reliability,
        "toxicity_reliability": agreed and agreed.toxicity,
        "reliability_without_toxicity": agreed and agreed.without_toxicity,
        "reliability_without_toxicity_corrected": agreed and agreed.without_toxicity_corrected,
    }
    for name, found in estimates.items():
        out[name] = found and found.value
        out[f"{name}_ci95"] = found and [found.interval.low, found.interval.high]
    out["seed_spearman_range"] = agreed and list(agreed.range)
    out["seed_spearman_chance"] = agreed and agreed.chance
    return out


def _verdicts(agreed: Agreement | None) -> tuple[Verdict, Verdict]:
    """(of the ranking as it is, of the ranking by bias): the rule of `diagnose_axes`."""
    if agreed is None:
        return "cannot tell", "cannot tell"
    chance = agreed.spearman.value > agreed.chance
    left = [agreed.without_toxicity, agreed.without_toxicity_corrected]
    return _verdict([agreed.reliability], chance), _verdict([agreed.reliability, *left], chance)


def _verdict(reliabilities: Sequence[Estimate], beyond_chance: bool) -> Verdict:
    if beyond_chance and all(found.interval.low >= MIN_RELIABILITY for found in reliabilities):
        return "more than noise"
    if any(found.interval.high < MIN_RELIABILITY for found in reliabilities):
        return "noise"
    return "cannot tell"


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


def _within_modes(scores: SeedScores, found: dict[int, Modes]) -> dict[str, Agreement | None]:
    """Agreement of the seeds on the heads that stand in the low, or high, mode of both."""
    if not found:
        return {}
    high = in_high_mode(scores, found)
    return {
        "low": agreement(scores.of_heads(~high)),
        "high": agreement(scores.of_heads(high)),
    }


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
