"""What to do next with a run: the two or three commands that would improve this very result."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from levelhead.price import LIMIT, worst_price
from levelhead.reporting import numbers
from levelhead.reporting.findings import Findings
from levelhead.reporting.summary import mapping, people, started_by, texts, word
from levelhead.search_result import limit_of, nothing_found
from levelhead.verdict_words import FELL

MOST = 3
OTHER_AXES = ("sexual_orientation", "religion")
"""Of the built-in prompts, to try where a first axis has no clear gap."""
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NextStep:
    """A command to copy, and why."""

    why: str
    command: str


def next_steps(
    run: str, evaluation: Json, details: Json, selection: Json, config: Json
) -> tuple[NextStep, ...]:
    """At most three commands, the one that matters most first.

    Args:
        run: the run folder, as the user would type it.
        evaluation: evaluation.json.
        details: details.json.
        selection: selection.json.
        config: config.json.
    """
    axis = word(selection.get("axis")) or next(iter(mapping(evaluation, "axes")), "")
    one = mapping(evaluation, "axes", axis)
    if nothing_found(selection) and not one:
        return tuple(_nothing_found(run, details, selection, config))
    if not one:
        steps = [
            NextStep("Nothing was measured of this selection yet.", f"levelhead prune {_at(run)}"),
            NextStep("Then measure it.", f"levelhead evaluate {_at(run)}"),
        ]
        return tuple(steps)
    given = (run, one, evaluation, details, selection, config)
    return tuple(_steps(*given))[:MOST]


def steps_of(findings: Findings) -> tuple[NextStep, ...]:
    """Those of a report's run; none where it names no folder."""
    measured = findings.evaluation or nothing_found(findings.selection.details)
    if not findings.run or not measured:
        return ()
    return next_steps(
        findings.run,
        findings.evaluation,
        findings.details,
        findings.selection.to_json(),
        findings.config,
    )


def _steps(
    run: str, one: Json, evaluation: Json, details: Json, selection: Json, config: Json
) -> Iterator[NextStep]:
    axis, at = word(selection.get("axis")), _at(run)
    limit = limit_of(selection, config) or LIMIT
    price = worst_price(evaluation)
    rise, where = (0.0, "") if price is None else (price.rise, price.where)
    verdict = word(one.get("verdict"))
    if rise > limit:
        yield NextStep(
            f"Perplexity rose by {rise:.0%}{where}. Search for a cheaper set, by the same scores:",
            f"levelhead retry {at} --max-ppl-increase {limit:g}",
        )
    if verdict == "not distinguishable":
        yield from _more_power(run, one, config)
    if selection.get("reliable") is False:
        samples = numbers.finite(mapping(details, "axes", axis).get("samples")) or 1
        yield NextStep(
            "Another seed may choose other heads. Score with more continuations, in a new folder:",
            f"{_again(config)} --samples {2 * math.ceil(samples)} --out {_at(run + '-more')}",
        )
    if texts(mapping(one, "own_group_mentions").get("fell")):
        yield NextStep(f"{FELL} Read what both models write:", f"levelhead examples {at}")
    if _one_subgroup(details, axis):
        yield NextStep(
            "One subgroup carries most of the ranking. Keep only heads that resamples agree on:",
            f"levelhead retry {at} --core 0.8",
        )
    if verdict in ("lower", "less toxic for everyone"):
        yield NextStep(
            "See it on prompts and scorers that chose nothing:", f"levelhead transfer {at}"
        )
        if verdict == "lower" and rise <= limit:
            yield NextStep(
                "Put the pruned model through the gate, on fresh samples of every axis:",
                f"levelhead verify {_at(run + '/model')}",
            )
    if verdict in ("echo only", "higher"):
        yield NextStep(
            "See whether other methods or shares do better, on the same prompts:",
            f"levelhead compare {at}",
        )


def _nothing_found(run: str, details: Json, selection: Json, config: Json) -> Iterator[NextStep]:
    """After a search that took no set: is there a gap, and would a larger price help?"""
    axis = word(selection.get("axis"))
    limit = limit_of(selection, config) or LIMIT
    clear = mapping(details, "axes", axis).get("measurable")
    if clear is False and config.get("prompts") == "builtin":
        other = next(name for name in OTHER_AXES if name != axis)
        yield NextStep(
            f"No gap of {people(axis)} is clear of 0 on validation prompts. See whether "
            "another axis has one:",
            f"{_again(config)} --axis {other} --out {_at(run + '-' + other)}",
        )
    yield NextStep(
        "Allow a larger price, by the same scores:",
        f"levelhead retry {_at(run)} --max-ppl-increase {2 * limit:g}",
    )
    yield NextStep(
        "Or name a set yourself, and have it measured:",
        f"levelhead retry {_at(run)} --gamma 0.3 --alpha 0.02",
    )


def _more_power(run: str, one: Json, config: Json) -> Iterator[NextStep]:
    """More samples where there may be a gap to see; another axis where there is hardly one."""
    detectable = numbers.finite(mapping(one, "power").get("detectable"))
    gap = numbers.finite(mapping(one, "base").get("bias_corrected"))
    had, needed = (numbers.finite(one.get(key)) for key in ("samples", "samples_needed"))
    if detectable is not None and gap is not None and gap < detectable:
        yield NextStep(
            f"The base model's gap ({gap:.3f}, corrected for noise) is smaller than what this "
            f"evaluation can tell ({detectable:.3f}). See which axes have a larger one:",
            f"levelhead evaluate {_at(run)} --all-axes",
        )
    elif had and needed and needed > had:
        times = math.ceil(needed / had)
        yield NextStep(
            f"About {needed:,.0f} samples would tell it from 0, {times} times as many as this had:",
            f"{_again(config)} --samples {4 * times} --out {_at(run + '-more')}",
        )


def _one_subgroup(details: Json, axis: str) -> bool:
    share = mapping(details, "axes", axis, "largest_share", "subgroup").get("share")
    return (numbers.finite(share) or 0) > 0.5


def _again(config: Json) -> str:
    return shlex.join(started_by(config))


def _at(run: str) -> str:
    return shlex.quote(run)
