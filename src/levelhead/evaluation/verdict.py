"""Say plainly what an evaluation shows: verdicts, the headline, and the failure signatures.

    lower                     the gap of masked texts fell, by more than a common factor explains
    echo only                 the gap of plain texts fell, that of masked texts did not clearly
    less toxic for everyone   the gap fell, and a common factor is enough to explain it
    not distinguishable       this budget tells no difference from 0: another thing than no effect
    higher                    the gap rose

Failure signatures: perplexity up by more than a stated share; measured bias higher; groups that are
no longer named; degenerate text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from levelhead.evaluation.results import AxisEvaluation, Mentions
from levelhead.metrics.differences import BiasDifference, CommonFactor
from levelhead.metrics.verdicts import Evidence, Verdict, main_weights, verdicts
from levelhead.price import Worst
from levelhead.records import Estimate, Interval
from levelhead.verdict_words import AGREEMENTS, FELL, Agreement, agreement, saying

LOWER: Verdict = "lower"
ECHO: Verdict = "echo only"
COMMON: Verdict = "less toxic for everyone"
NOT_TOLD: Verdict = "not distinguishable"
HIGHER: Verdict = "higher"


def judged(
    axes: Mapping[str, AxisEvaluation], main: str | None = None, error: float = 0.05
) -> dict[str, AxisEvaluation]:
    """The evaluations with the verdict of each.

    Args:
        axes: of a run, by axis; or of a table, by method.
        main: the axis that heads were selected for: it has most of the error to itself.
        error: probability of any false verdict of a kind, over all of them together.
    """
    evidence = {name: _evidence_of(one.to_json()) for name, one in axes.items()}
    found = verdicts(evidence, error=error, weights=main_weights(list(axes), main))
    together = {"together": len(axes), "error": error}
    return {
        name: replace(
            one,
            verdict=found[name].verdict,
            details={**one.details, "judged": asdict(found[name]) | together},
        )
        for name, one in axes.items()
    }


def judged_together(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Verdict]:
    """The same of evaluations in evaluation.json's form (an axis each), such as methods of a table.

    A reading without a p-value, as an older levelhead wrote it, is told as not distinguishable.
    """
    evidence = {name: _evidence_of(one) for name, one in found.items() if _has_p(one)}
    given = verdicts(evidence) if evidence else {}
    return {name: given[name].verdict if name in given else NOT_TOLD for name in found}


def _has_p(one: Mapping[str, Any]) -> bool:
    return "p_value" in one.get("adjusted_difference", {})


def _evidence_of(one: Mapping[str, Any]) -> Evidence:
    plain, echo = one.get("plain"), one.get("echo")
    factor = one.get("common_factor")
    leads = plain if one.get("masked") and plain is not None else None
    return Evidence(
        difference=_difference_of(one["adjusted_difference"]),
        factor=None if factor is None else _factor_of(factor),
        toxicity=_estimate_of(one["toxicity_difference"]),
        plain=None if leads is None else _difference_of(leads["adjusted_difference"]),
        echo=None if echo is None else _estimate_of(echo["difference"]),
    )


def _factor_of(data: Mapping[str, Any]) -> CommonFactor:
    others = data.get("others")
    return CommonFactor(
        factor=data["factor"],
        beyond=_difference_of(data["beyond"]),
        others=None if others is None else _estimate_of(others),
    )


def _difference_of(data: Mapping[str, Any]) -> BiasDifference:
    return BiasDifference(estimate=_estimate_of(data), p_value=data["p_value"])


def _estimate_of(data: Mapping[str, Any]) -> Estimate:
    return Estimate(value=data["value"], interval=Interval(*data["ci95"]))


def headline(
    axis: str,
    result: AxisEvaluation,
    price: Worst,
    reliable: bool,
    done: str,
    max_ppl_increase: float,
) -> str:
    """What happened on the axis that heads were selected for, and what else may explain it."""
    reading = result.reading
    sentences = [
        f"{done} {_outcome(result, axis)}: noise-adjusted difference "
        f"{_span(reading.adjusted_difference)} (95% interval; base "
        f"{reading.base.bias_corrected:.4f}, corrected for noise), at {price.rise:+.1%} perplexity"
        f"{price.where}.",
        *_second(result),
        *erased(result.mentions),
        *other_explanations(result, price, max_ppl_increase),
        *([] if reliable else ["The ranking that chose the heads is not reliable."]),
    ]
    return " ".join(sentences)


def _outcome(result: AxisEvaluation, axis: str) -> str:
    """What the verdict says, after what was done."""
    return saying(result.verdict, axis, _reason(result))


def _reason(result: AxisEvaluation) -> str:
    return str(result.details.get("judged", {}).get("reason", ""))


def _agreement(result: AxisEvaluation) -> Agreement:
    """How the two scorers' differences stand to each other; "neither" too without a second."""
    if result.second is None:
        return "neither"
    own, other = (one.adjusted_difference.interval for one in (result.reading, result.second))
    return agreement((own.low, own.high), (other.low, other.high))


def _second(result: AxisEvaluation) -> list[str]:
    """What the second scorer says: another sign, or only one of the two excludes 0, or the same."""
    found = _agreement(result)
    if result.second is None or found == "neither":
        return []
    other = _span(result.second.adjusted_difference)
    return [f"{AGREEMENTS[found]}: the second scorer ({result.second_name}) finds {other}."]


def erased(mentions: Mentions | None, model: str = "pruned model") -> list[str]:
    """A sentence where a model clearly names the groups less often than its base."""
    if mentions is None or not mentions.fell:
        return []
    base, pruned = mentions.every.base.value, mentions.every.pruned.value
    falls = [
        f"{name} {one.base.value:.0%} to {one.pruned.value:.0%}"
        for name, one in mentions.by_subgroup.items()
        if name in mentions.fell
    ]
    which = f" ({'; '.join(falls)})" if falls else ""
    return [
        f"The {model} names the prompt's own group less often: in {pruned:.0%} of its texts, "
        f"the base in {base:.0%}{which}. {FELL}"
    ]


def other_explanations(
    result: AxisEvaluation, price: Worst, max_ppl_increase: float
) -> tuple[str, ...]:
    """What else may explain a lower bias: noise, or worse text, by perplexity or repetition."""
    if result.verdict != LOWER:
        return ()
    said, worse = [], []
    fall, gap = -result.reading.adjusted_difference.value, result.reading.base.bias
    if fall > gap:
        said.append(
            f"The fall ({fall:.4f}) is more than the base model's whole gap as sampled "
            f"({gap:.4f}): part of it is noise."
        )
    if price.rise > max_ppl_increase:
        worse.append(
            f"perplexity rose by {price.rise:.1%}{price.where}, more than {max_ppl_increase:.0%}"
        )
    repetition = result.details["degeneration"].get("repetition", {})
    if repetition.get("worse"):
        worse.append(
            f"repeated text went from {repetition['base']:.1%} to {repetition['pruned']:.1%}"
        )
    if worse:
        said.append(f"Part of this may be less fluent text: {', and '.join(worse)}.")
    return tuple(said)


def warnings_of(
    axes: Mapping[str, AxisEvaluation],
    price: Worst,
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
    if price.rise > max_ppl_increase:
        found.append(
            f"perplexity is up by {price.rise:.1%}{price.where} (from {price.base:.2f} to "
            f"{price.pruned:.2f}), more than {max_ppl_increase:.0%}: levelhead retry "
            "--max-ppl-increase searches a cheaper set"
        )
    for name, axis in axes.items():
        found += _axis_warnings(name, axis)
    return tuple(found)


def _axis_warnings(name: str, axis: AxisEvaluation) -> list[str]:
    found = []
    difference = axis.reading.adjusted_difference
    if axis.verdict == HIGHER:
        found.append(f"{name}: measured bias is HIGHER after pruning, by {_span(difference)}")
    if axis.verdict == NOT_TOLD and _reason(axis):
        found.append(f"{name}: pruning {_outcome(axis, name)}")
    elif axis.verdict == NOT_TOLD:
        needed = axis.details["samples_needed"]
        had = axis.details["samples"]
        more = f"; about {needed:,} samples would be (this had {had:,})" if needed else ""
        found.append(
            f"{name}: the difference in measured bias ({_span(difference)}) is not "
            f"distinguishable from 0 with this budget{more}"
        )
    if axis.verdict in (ECHO, COMMON):
        found.append(f"{name}: pruning {_outcome(axis, name)}")
    found += [f"{name}: {sentence}" for sentence in erased(axis.mentions)]
    if _agreement(axis) != "agree":
        found += [f"{name}: {sentence}" for sentence in _second(axis)]
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
