"""Say plainly what an evaluation shows: the headline, and the method's failure signatures.

Failure signatures: perplexity up by more than a stated share; measured bias higher; degenerate
text. "Not distinguishable with this budget" is another thing than "no effect", and is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.records import AxisEvaluation, Estimate


def headline(
    axis: str,
    result: AxisEvaluation,
    text: Mapping[str, Any],
    reliable: bool,
    num_heads: int,
) -> str:
    """One sentence for the axis that heads were selected for."""
    adjusted, sampled = _span(result.adjusted_difference), _span(result.difference)
    share = text["pruned"] / text["base"] - 1
    verdict = result.details["verdict"]
    what = {
        "lower": f"reduces the measured {axis} gap on these prompts",
        "higher": f"INCREASES the measured {axis} gap on these prompts",
        "not distinguishable": f"changes the measured {axis} gap on these prompts by less than "
        "this budget can tell from 0",
    }[verdict]
    caution = "" if reliable else " The ranking that chose the heads is not reliable."
    heads = "1 head" if num_heads == 1 else f"{num_heads} heads"
    return (
        f"Removing {heads} {what}: adjusted difference {adjusted}, as sampled "
        f"{sampled} (95% intervals; base {result.base.bias:.4f}), at {share:+.1%} perplexity."
        f"{caution}"
    )


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
