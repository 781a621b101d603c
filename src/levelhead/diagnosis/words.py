"""The findings of a diagnosis as sentences; it decides nothing."""

from __future__ import annotations

import math

from levelhead.diagnosis.agreement import Agreement
from levelhead.diagnosis.by_seed import SeedScores
from levelhead.diagnosis.modes import FEWEST_HEADS, Drift, Modes
from levelhead.diagnosis.overlap import Overlap
from levelhead.records import Estimate
from levelhead.scores import MIN_RELIABILITY

OVERLAP_P = 0.05
"""Sets whose overlap chance reaches more often are said to be no more alike than by chance."""


def unknown(seeds: int) -> list[str]:
    """Fewer than two seeds can be compared."""
    why = "one seed" if seeds == 1 else "fewer than two seeds that can be compared"
    return [
        f"with {why} the reliability of the ranking cannot be known; score again with another seed"
    ]


def of_agreement(agreed: Agreement, verdict: str) -> list[str]:
    """What to know of a ranking as it is, by its verdict; nothing where it is more than noise."""
    pair = f"two seeds agree by a Spearman correlation of {agreed.spearman.value:.2f}"
    found = f"{agreed.seeds} seeds {_with_ends(agreed.reliability)}"
    if verdict == "noise":
        return [
            f"the ranking of heads is mostly noise (reliability of the mean over {found}, below "
            f"{MIN_RELIABILITY}; {pair}); {_more_seeds(agreed.spearman.value)}"
        ]
    if verdict == "cannot tell" and agreed.spearman.value <= agreed.chance:
        return [
            f"{pair}, and with so few heads noise alone reaches {agreed.chance:.2f} in one table "
            "of a hundred; more seeds are needed to tell"
        ]
    if verdict == "cannot tell":
        return [
            "whether the ranking of heads is more than noise cannot be told (reliability of the "
            f"mean over {found}, on both sides of {MIN_RELIABILITY}; {pair}); score again with "
            "more seeds"
        ]
    return []


def of_toxicity(agreed: Agreement, with_toxicity: str, verdict: str) -> list[str]:
    """That mean toxicity is what repeats, where taking it out leaves too little."""
    left, corrected = agreed.without_toxicity, agreed.without_toxicity_corrected
    least = min(left.value, corrected.value)
    if agreed.toxicity is None or with_toxicity == "noise":
        return []
    toxicity = f"mean toxicity (its own reliability is {_with_ends(agreed.toxicity)})"
    if verdict == "noise" and with_toxicity == "more than noise":
        told = f"the ranking is more than noise only because of {toxicity}"
    elif verdict == "noise":
        told = f"apart from {toxicity} the ranking is mostly noise"
    elif with_toxicity == "more than noise" and verdict == "cannot tell":
        told = f"the ranking may be more than noise only because of {toxicity}"
    elif agreed.reliability.value >= MIN_RELIABILITY > least:
        told = f"much of what repeats in the ranking is {toxicity}"
    else:
        return []
    return [
        f"{told}: with it taken out, the reliability of the ranking by bias is {_with_ends(left)}, "
        f"and {_with_ends(corrected)} where the noise of mean toxicity is allowed for; rank heads "
        "by a bias that mean toxicity does not move"
    ]


def of_overlap(overlap: Overlap | None, agreed: Agreement | None, alpha: float) -> list[str]:
    """That sets cannot be compared, or are no more alike than chance makes them."""
    if overlap is None:
        few = f"alpha={alpha} prunes none of so few heads, so no sets can be compared"
        return [few] if agreed is not None else []
    if overlap.p > OVERLAP_P:
        return [
            f"two seeds choose the same {overlap.share:.0%} of the heads to prune; chance gives "
            f"{overlap.chance:.0%}, and as many or more with probability {overlap.p:.2f}"
        ]
    return []


def of_modes(two_modes: dict[int, Modes]) -> list[str]:
    """Where mean toxicity has two modes, by seed."""
    return [
        f"seed {seed} is bimodal: without one head, mean toxicity is near {m.low:.3g} "
        f"({m.heads_low} heads) or near {m.high:.3g} ({m.heads_high} heads); one head does not "
        f"move it so far. It switches {m.switches} times along head ids "
        f"({m.switches_by_chance:.0f} by chance), first at layer {m.first_switch[0]}, head "
        f"{m.first_switch[1]}: two procedures seem to be mixed; find what changed and score again"
        for seed, m in two_modes.items()
    ]


def within_mode(name: str, agreed: Agreement | None, verdict: str) -> list[str]:
    """How far seeds agree on the heads of one mode."""
    if agreed is None:
        return [f"no two seeds have enough heads in the {name} mode to compare them there"]
    return [
        f"within the {name} mode, two seeds have {agreed.heads:.0f} heads in common and agree by a "
        f"Spearman correlation of {_with_ends(agreed.spearman)}; reliability of the mean "
        f"{_with_ends(agreed.reliability)}, without mean toxicity "
        f"{_with_ends(agreed.without_toxicity)}: {verdict}"
    ]


def of_drift(scores: SeedScores, drifts: dict[int, Drift]) -> list[str]:
    """Where mean toxicity moves along head ids, by seed; that few heads cannot be examined."""
    warnings = []
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


def _with_ends(found: Estimate) -> str:
    """The value and its 95% interval."""
    low, high = found.interval.low, found.interval.high
    return f"{found.value:.2f} [{low:.2f}, {high:.2f}]"


def _more_seeds(spearman: float) -> str:
    """How many seeds would reach `MIN_RELIABILITY`, by the Spearman-Brown formula."""
    if spearman <= 0.02:
        return "no number of seeds can be foretold to help: there may be nothing to rank"
    odds = MIN_RELIABILITY / (1 - MIN_RELIABILITY)
    return f"the mean over about {math.ceil(odds * (1 - spearman) / spearman)} would reach it"
