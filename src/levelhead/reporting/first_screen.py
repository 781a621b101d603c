"""What the first screen of the page holds: a banner, three tiles, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from levelhead.price import short_title, worst_price
from levelhead.reporting import numbers
from levelhead.reporting.findings import Findings
from levelhead.reporting.next_steps import NextStep, steps_of
from levelhead.reporting.readiness import Judgement, judged_ready
from levelhead.reporting.recommendation import recommended
from levelhead.reporting.summary import mapping, people, word
from levelhead.search_result import best_tried, limit_of, nothing_found
from levelhead.verdict_words import Look

Json = Mapping[str, Any]
WIDTH = 200.0
"""Of an interval bar, in its own units."""
LOOKS: Mapping[str, Look] = {"ready": "lower", "not ready": "higher"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """An interval as a bar: where it begins and ends, its estimate and 0, from 0 to `WIDTH`."""

    low: float
    high: float
    value: float
    zero: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One quantity: before, after, and the change with its 95% interval."""

    key: str
    label: str
    before: str
    after: str
    change: str
    interval: str
    look: Look = "undecided"
    bar: Bar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstScreen:
    """All of it."""

    judgement: Judgement
    look: Look
    tiles: tuple[Tile, ...]
    facts: tuple[tuple[str, str], ...]
    """(what, which)"""
    next: tuple[NextStep, ...] = ()
    """What to do next."""


def first_screen(findings: Findings) -> FirstScreen | None:
    """None where nothing was measured, or searched for, on the axis heads were selected for."""
    evaluation, config = findings.evaluation, findings.config
    axes = mapping(evaluation, "axes")
    axis = word((findings.selection.details or {}).get("axis")) or next(iter(axes), "")
    limit = limit_of(findings.selection.details or {}, config)
    judgement = judged_ready(evaluation, axis, limit)
    if judgement is None:
        return _nothing_found(findings, axis, limit)
    one = mapping(evaluation, "axes", axis)
    tiles = (_gap(one, axis), _toxicity(one), _price(evaluation, limit))
    return FirstScreen(
        judgement=judgement,
        look=LOOKS.get(judgement.word, "undecided"),
        tiles=tuple(tile for tile in tiles if tile is not None),
        facts=tuple(_facts(findings, one, config)),
        next=steps_of(findings),
    )


def _nothing_found(findings: Findings, axis: str, limit: float | None) -> FirstScreen | None:
    """Of a search that took no set: what was expected of the best, and what it would cost."""
    details, config = findings.selection.details or {}, findings.config
    why, best = nothing_found(details), best_tried(details)
    if not why or best is None:
        return None
    other = (recommended(findings.attempts) or {}) if findings.attempts else {}
    instead = (word(other.get("why")),) if other.get("attempt") else ()
    scored = mapping(findings.details, "axes", axis)
    tiles = (_expected(best, scored, axis), _cost(best, limit))
    return FirstScreen(
        judgement=Judgement(word="not ready", reasons=(why, *(instead or ("no model is saved",)))),
        look=LOOKS["not ready"],
        tiles=tuple(tile for tile in tiles if tile is not None),
        facts=tuple(_facts(findings, {"masked": config.get("unmasked") is False}, config)),
        next=steps_of(findings),
    )


def _expected(best: Json, scored: Json, axis: str) -> Tile | None:
    """The gap of validation prompts, before and as the best set is expected to leave it."""
    found = mapping(best, "expected_difference")
    value, ends = numbers.finite(found.get("value")), numbers.pair(found.get("ci95"))
    gap = numbers.finite(scored.get("bias"))
    if value is None or ends is None or gap is None:
        return None
    clear = "" if scored.get("measurable") is not False else ", not clear of 0,"
    return Tile(
        key="gap",
        label=f"Expected gap ({people(axis)})",
        before=f"{numbers.decimal(gap, 3)}{clear}",
        after="on validation prompts; this is what the best set would change",
        change=f"{value:+.3f}",
        interval=f"{ends[0]:+.3f} to {ends[1]:+.3f}",
        bar=_bar(value, *ends),
    )


def _cost(best: Json, limit: float | None) -> Tile | None:
    found = mapping(best, "perplexity_increase")
    rise, ends = numbers.finite(found.get("value")), numbers.pair(found.get("ci95"))
    if rise is None or ends is None:
        return None
    return Tile(
        key="price",
        label=_price_label(limit),
        before="As it was",
        after=f"on {short_title(best)}, where the best set would cost most",
        change=f"{rise:+.1%}",
        interval=f"{ends[0]:+.1%} to {ends[1]:+.1%}",
        bar=_bar(rise, *ends),
    )


def _price_label(limit: float | None) -> str:
    return "Price: perplexity" + ("" if limit is None else f" (limit {limit:+.0%})")


def _gap(one: Json, axis: str) -> Tile | None:
    tile = _toxic(one, "adjusted_difference", "bias_corrected")
    if tile is None:
        return None
    label = f"Measured gap ({people(axis)})"
    return replace(tile, key="gap", label=label, after=f"{tile.after}, corrected for noise")


def _toxicity(one: Json) -> Tile | None:
    tile = _toxic(one, "toxicity_difference", "mean_toxicity")
    # Less toxic text is no aim of pruning: a fall is neither good nor bad.
    return replace(tile, look="undecided") if tile is not None and tile.look == "lower" else tile


def _toxic(one: Json, difference: str, base: str) -> Tile | None:
    """A quantity in units of toxicity: the base model's, and that with its change added."""
    data, before = mapping(one, difference), numbers.finite(mapping(one, "base").get(base))
    value, ends = numbers.finite(data.get("value")), numbers.pair(data.get("ci95"))
    if value is None or ends is None or before is None:
        return None
    low, high = ends
    return Tile(
        key="toxicity",
        label="Mean toxicity",
        before=numbers.decimal(before, 3),
        after=f"{numbers.decimal(before + value, 3)} after",
        change=f"{value:+.3f}",
        interval=f"{low:+.3f} to {high:+.3f}",
        look="lower" if high < 0 else "higher" if low > 0 else "undecided",
        bar=_bar(value, low, high),
    )


def _price(evaluation: Json, limit: float | None) -> Tile | None:
    price = worst_price(evaluation)
    if price is None:
        return None
    rise, interval = price.rise, price.interval
    low, high = interval if interval is not None else (rise, rise)
    dear = limit is not None and rise > limit
    return Tile(
        key="price",
        label=_price_label(limit),
        before=numbers.decimal(price.base, 2),
        after=f"{numbers.decimal(price.pruned, 2)} after{price.where}",
        change=f"{rise:+.1%}",
        interval=f"{low:+.1%} to {high:+.1%}" if interval is not None else "",
        look="higher" if dear else "lower",
        bar=_bar(rise, low, high) if interval is not None else None,
    )


def _bar(value: float, low: float, high: float) -> Bar:
    """Drawn from a little below to a little above what it shows, 0 always in it."""
    least, most = min(0.0, low), max(0.0, high)
    span = (most - least) or 1.0
    start, scale = least - 0.08 * span, WIDTH / (1.16 * span)
    at = [round((x - start) * scale, 1) for x in (low, high, value, 0.0)]
    return Bar(low=at[0], high=at[1], value=at[2], zero=at[3])


def _facts(findings: Findings, one: Json, config: Json) -> list[tuple[str, str]]:
    prompts, samples = numbers.finite(one.get("prompts")), numbers.finite(one.get("samples"))
    second = word(mapping(one, "second_scorer").get("name")).removeprefix("masked:")
    scorer = word(config.get("toxicity"))
    if one.get("masked") is True:
        scorer += ", names masked"
    found = [
        ("Scorer", scorer),
        ("Second scorer", second),
        ("Test prompts", "" if prompts is None else numbers.count(prompts)),
        ("Texts of each model", "" if samples is None else numbers.count(samples)),
        (
            "Heads" if findings.selection.average is None else "Changed",
            findings.selection.described,
        ),
        ("Measured on", findings.date),
        ("Base model", word(mapping(findings.evaluation, "of").get("model"))[:12]),
    ]
    return [(name, value) for name, value in found if value]
