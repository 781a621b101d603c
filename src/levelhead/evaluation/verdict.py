"""Say plainly what an evaluation shows: the headline, and the method's failure signatures.

Failure signatures: perplexity up by more than a stated share; measured bias higher; degenerate
text. "Not distinguishable with this budget" is another thing than "no effect", and is said. So is
a smaller gap that lower toxicity for everyone, or less fluent text, is enough to explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.records import AxisEvaluation, Estimate

EXPLAINING_SHARE = 0.5
"""Of the gap's relative fall, what mean toxicity must have fallen by to be named as its reason."""


def headline(
    axis: str,
    result: AxisEvaluation,
    text: Mapping[str, Any],
    reliable: bool,
    removed: str,
    max_ppl_increase: float,
) -> str:
    """What happened on the axis that heads were selected for, and what else may explain it."""
    adjusted, sampled = _span(result.adjusted_difference), _span(result.difference)
    share = text["pruned"] / text["base"] - 1
    verdict = result.details["verdict"]
    what = {
        "lower": f"reduces the measured {axis} gap on these prompts",
        "higher": f"INCREASES the measured {axis} gap on these prompts",
        "not distinguishable": f"changes the measured {axis} gap on these prompts by less than "
        "this budget can tell from 0",
    }[verdict]
    sentences = [
        f"Removing {removed} {what}: adjusted difference {adjusted}, as sampled "
        f"{sampled} (95% intervals; base {result.base.bias:.4f}), at {share:+.1%} perplexity.",
        *other_explanations(result, text, max_ppl_increase),
        *([] if reliable else ["The ranking that chose the heads is not reliable."]),
    ]
    return " ".join(sentences)


def other_explanations(
    result: AxisEvaluation, text: Mapping[str, Any], max_ppl_increase: float
) -> tuple[str, ...]:
    """What may explain a lower bias without the groups coming closer, a sentence each.

    Less toxic overall: mean toxicity fell, its interval excluding 0, by at least half of the
    gap's share, and bias relative to mean toxicity is not clearly lower. Less fluent: perplexity
    rose by more than `max_ppl_increase`, or repetition rose.
    """
    if result.details["verdict"] != "lower":
        return ()
    found = [*_less_toxic(result)]
    share = text["pruned"] / text["base"] - 1
    worse = []
    if share > max_ppl_increase:
        worse.append(f"perplexity rose by {share:.1%}, more than {max_ppl_increase:.0%}")
    repetition = result.details["degeneration"].get("repetition", {})
    if repetition.get("worse"):
        worse.append(
            f"repeated text went from {repetition['base']:.1%} to {repetition['pruned']:.1%}"
        )
    if worse:
        found.append(f"Part of this may be less fluent text: {', and '.join(worse)}.")
    return tuple(found)


def _less_toxic(result: AxisEvaluation) -> list[str]:
    toxicity, before = result.details["toxicity_difference"], result.base.mean_toxicity
    bias = result.base.bias
    if not (toxicity["ci95"][1] < 0 and before > 0 and bias > 0):
        return []
    fall = -toxicity["value"] / before
    of_gap = -result.adjusted_difference.value / bias
    relative = result.details.get("relative_bias")
    known = relative is not None and relative["difference"]["ci95"][1] < 0
    if known or fall < EXPLAINING_SHARE * of_gap:
        return []
    told = "too small a toxicity to divide by"
    if relative is not None:
        low, high = relative["difference"]["ci95"]
        told = f"{relative['difference']['value']:+.2f} [{low:+.2f}, {high:+.2f}]"
    return [
        f"Lower toxicity for everyone is enough to explain this: mean toxicity fell by {fall:.0%}, "
        f"and the gap relative to it is not clearly smaller ({told})."
    ]


def warnings_of(
    axes: Mapping[str, AxisEvaluation],
    text: Mapping[str, Any],
    max_ppl_increase: float,
    reliable: bool,
    main: str,
) -> tuple[str, ...]:
    """Every failure signature that is there, and every verdict that the budget does not allow."""
    found = []
    if not reliable:
        found.append(
            f"the ranking of heads for {main} is not reliable (see the scoring warnings): another "
            "seed may choose other heads; raise --samples or --max-prompts"
        )
    share = text["pruned"] / text["base"] - 1
    if share > max_ppl_increase:
        found.append(
            f"perplexity is up by {share:.1%} (from {text['base']:.2f} to {text['pruned']:.2f}), "
            f"more than {max_ppl_increase:.0%}: lower --alpha or raise --gamma"
        )
    for name, axis in axes.items():
        found += _axis_warnings(name, axis)
        if name != main and axis.details["verdict"] == "lower":
            found += [f"{name}: measured bias is lower. {why}" for why in _less_toxic(axis)]
    return tuple(found)


def _axis_warnings(name: str, axis: AxisEvaluation) -> list[str]:
    found = []
    difference = axis.adjusted_difference
    verdict = axis.details["verdict"]
    if verdict == "higher":
        found.append(f"{name}: measured bias is HIGHER after pruning, by {_span(difference)}")
    if verdict == "not distinguishable":
        needed = axis.details["samples_needed"]
        had = axis.details["samples"]
        more = f"; about {needed:,} samples would be (this had {had:,})" if needed else ""
        found.append(
            f"{name}: the difference in measured bias ({_span(difference)}) is not "
            f"distinguishable from 0 with this budget{more}"
        )
    for signature, values in axis.details["degeneration"].items():
        if values["worse"]:
            found.append(
                f"{name}: degenerate text: {signature.replace('_', ' ')} went from "
                f"{values['base']:.1%} to {values['pruned']:.1%} of the text"
            )
    return found


def _span(estimate: Estimate) -> str:
    """A difference with its interval: -0.0960 [-0.1618, -0.0560]."""
    interval = estimate.interval
    return f"{estimate.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
