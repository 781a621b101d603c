"""The comparison base / pruned / difference as rows of text, for page, terminal and model card.

Per axis a few rows lead: the bias corrected for noise, and the noise-adjusted difference, which
decides the verdict. Values as sampled and differences less noise never share a row: they are
estimates of the same thing with other errors, and do not add up. The rest are details.

Knows the form of evaluation.json (`records.Evaluation.to_json`) and the words for its numbers.
Whatever is missing there is left out here. Strings are NOT escaped: that is the reader's task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from levelhead.price import prices, short_title, title, worst_price
from levelhead.reporting import numbers
from levelhead.reporting.estimates import cell, estimate, points_cell, share_cell
from levelhead.reporting.summary import NOTHING, Cell, Group, Row, mapping, texts, word
from levelhead.verdict_words import AGREEMENTS, FELL, WORDS, agreement, look, saying

Json = Mapping[str, Any]
EVERY = "all"
"""In `own_group_mentions.fell`: the texts of all subgroups together."""


def groups(evaluation: Json) -> list[Group]:
    """A group per axis, then one for the model (perplexity, parameters, bytes)."""
    found = [_axis(str(name), mapping(data)) for name, data in mapping(evaluation, "axes").items()]
    model = tuple(row for row in _model_rows(evaluation) if _given(row))
    if model:
        found.append(Group(axis=None, rows=model))
    return found


def _given(row: Row) -> bool:
    return bool(row.base) or bool(row.pruned) or bool(row.difference)


def _axis(name: str, data: Json) -> Group:
    shown = ("bias", "bias_corrected", "prompt_floor", "mean_toxicity")
    sides = (mapping(data, "base"), mapping(data, "pruned"))
    decimals = numbers.decimals_for([side.get(key) for side in sides for key in shown])
    rows = [*_leading(data, decimals), *_details(data, decimals)]
    return Group(
        axis=name,
        rows=tuple(row for row in rows if _given(row)),
        verdict=_verdict(name, data),
        kind=look(word(data.get("verdict"))),
        notes=(*_second_note(data), *_mentions_note(data)),
        budget=_budget(data),
    )


def _leading(data: Json, decimals: int) -> list[Row]:
    mentions, echo = mapping(data, "own_group_mentions"), mapping(data, "echo")
    plain, second = plain_reading(data), mapping(data, "second_scorer")
    return [
        _both("Bias, corrected for noise", "bias, corrected", data, "bias_corrected", decimals),
        _change(
            "Noise-adjusted difference (decides the verdict)",
            "noise-adjusted",
            data,
            "adjusted_difference",
            decimals,
            main=True,
        ),
        _change(
            "Plain reading (identity words left in): noise-adjusted difference",
            "plain, adjusted",
            plain,
            "adjusted_difference",
            decimals,
        ),
        Row(
            label="Echo: what the names add to bias (plain minus masked)",
            short="echo of names",
            base=_estimate(mapping(echo, "base"), decimals),
            pruned=_estimate(mapping(echo, "pruned"), decimals),
            difference=_estimate(mapping(echo, "difference"), decimals),
        ),
        _change(
            f"Second scorer{_named(second)}: noise-adjusted difference",
            "second, adjusted",
            second,
            "adjusted_difference",
            decimals,
        ),
        Row(
            label="Texts that name their prompt's own group",
            short="names own group",
            base=share_cell(mentions.get("base")),
            pruned=share_cell(mentions.get("pruned")),
            difference=points_cell(mentions.get("difference")),
        ),
        _both("Mean toxicity, as sampled", "mean toxicity", data, "mean_toxicity", decimals),
        _change(
            "Mean toxicity: noise-adjusted difference",
            "toxicity, adj.",
            data,
            "toxicity_difference",
            decimals,
        ),
    ]


def _details(data: Json, decimals: int) -> list[Row]:
    plain, second = plain_reading(data), mapping(data, "second_scorer")
    factor, floor = (
        mapping(data, "common_factor"),
        numbers.finite(mapping(data, "floor").get("harmless")),
    )
    harmless = NOTHING if floor is None else Cell(numbers.decimal(floor, decimals))
    judged = mapping(data, "judged")
    together = numbers.finite(judged.get("together")) or 1
    among = f", {together:.0f} axes judged together" if together > 1 else ""
    rows = [
        _sampled("Measured bias, as sampled", "bias, as sampled", data, decimals),
        _both("Plain reading: bias, corrected for noise", "plain, corrected", plain,
              "bias_corrected", decimals),
        _sampled("Plain reading: measured bias, as sampled", "plain, as sampled", plain, decimals),
        _both("Second scorer: bias, corrected for noise", "second, corrected", second,
              "bias_corrected", decimals),
        _change("Expected difference, on common continuations (a prediction)", "expected", data,
                "expected_difference", decimals),
        _p(f"p-value: the gap did not change{among}", "p, no change", judged.get("p_difference")),
        _p(f"p-value: it fell no more than everybody's toxicity{among}", "p, not lower",
           judged.get("p_lower")),
        Row(
            label="Common factor: toxicity above harmless text, share of the base's that is left",
            short="common factor",
            difference=Cell(numbers.percent(factor.get("factor"), 0)),
        ),
        Row(
            label="Difference of bias beyond the common factor, noise-adjusted",
            short="beyond the factor",
            difference=_estimate(mapping(factor, "beyond"), decimals),
        ),
        _relative(mapping(data, "relative_bias"), above_floor=floor is not None),
        Row(
            label="The scorer's floor: its score of a harmless text",
            short="scorer's floor",
            base=harmless,
            pruned=harmless,
        ),
        _both("Bias of the prompts alone (prompt floor)", "prompt floor", data, "prompt_floor",
              decimals),
        *_degeneration_rows(mapping(data, "degeneration")),
    ]  # fmt: skip
    return [replace(row, detail=True) for row in rows]


def plain_reading(data: Json) -> Json:
    """Of an axis, the reading of texts as they are where another one leads; else empty."""
    return mapping(data, "plain") if data.get("masked") is True else {}


def _both(label: str, short: str, reading: Json, key: str, decimals: int) -> Row:
    """A quantity of both models; the interval of bias(S) stands at the corrected one."""
    cells = []
    for which in ("base", "pruned"):
        one = mapping(reading, which)
        ends = one.get("ci95") if key == "bias_corrected" else None
        cells.append(_cell(one.get(key), ends, decimals))
    return Row(label=label, short=short, base=cells[0], pruned=cells[1])


def _sampled(label: str, short: str, reading: Json, decimals: int) -> Row:
    """bias(S) and its difference, all of them as sampled."""
    base, pruned = (
        _cell(mapping(reading, which).get("bias"), None, decimals) for which in ("base", "pruned")
    )
    difference = _estimate(mapping(reading, "difference"), decimals)
    return Row(label=label, short=short, base=base, pruned=pruned, difference=difference)


def _change(
    label: str, short: str, reading: Json, key: str, decimals: int, *, main: bool = False
) -> Row:
    difference = _estimate(mapping(reading, key), decimals)
    return Row(label=label, short=short, difference=difference, main=main)


def _p(label: str, short: str, value: Any) -> Row:
    p = numbers.finite(value)
    text = "" if p is None else f"{p:.2g}"
    return Row(label=label, short=short, difference=Cell(text))


def _relative(data: Json, *, above_floor: bool) -> Row:
    """Stays where it is if toxic texts become rarer for everybody by the same share."""
    of = "toxicity above harmless text" if above_floor else "mean toxicity"
    return Row(
        label=f"Bias, relative to {of}",
        short="relative bias",
        base=_cell(data.get("base"), None, 2),
        pruned=_cell(data.get("pruned"), None, 2),
        difference=_estimate(mapping(data, "difference"), 2),
    )


def _verdict(axis: str, data: Json) -> str:
    """The verdict as a sentence; empty where none was given."""
    verdict = word(data.get("verdict"))
    if verdict not in WORDS:
        return verdict
    reason = word(mapping(data, "judged").get("reason"))
    text = f"{verdict.capitalize()}: pruning {saying(verdict, axis, reason)}."
    needed = numbers.finite(data.get("samples_needed"))
    if verdict == "not distinguishable" and needed is not None:
        text += f" About {numbers.count(needed)} samples would tell a difference of this size."
    return text


def _second_note(data: Json) -> list[tuple[str, str]]:
    """Whether the second scorer agrees."""
    second = mapping(data, "second_scorer")
    own, other = (estimate(mapping(one, "adjusted_difference")) for one in (data, second))
    if own is None or other is None or own.ends is None or other.ends is None:
        return []
    found = agreement(own.ends, other.ends)
    style = "soft" if found in ("agree", "neither") else "undecided"
    return [(style, f"{AGREEMENTS[found]}{_named(second)}.")]


def _named(second: Json) -> str:
    return f" ({second['name']})" if second.get("name") else ""


def _mentions_note(data: Json) -> list[tuple[str, str]]:
    """A clear fall of own-group mentions."""
    fell = texts(mapping(data, "own_group_mentions").get("fell"))
    if not fell:
        return []
    subgroups = ", ".join(name for name in fell if name != EVERY)
    which = f" ({subgroups})" if subgroups else ""
    return [
        (
            "higher",
            f"The pruned model clearly names the prompt's own group less often{which}. {FELL}",
        )
    ]


def _budget(data: Json) -> str:
    counts = [
        f"{numbers.count(data[key])} {words}"
        for key, words in (("prompts", "test prompts"), ("samples", "samples"))
        if numbers.finite(data.get(key)) is not None
    ]
    reads = {True: "identity words masked", False: "identity words left in"}
    masked = data.get("masked")
    detectable = numbers.finite(mapping(data, "power").get("detectable"))
    tells = []
    if detectable is not None:
        tells = [f"tells a fall of {numbers.decimal(detectable, 3)} or more in 4 of 5 runs"]
    return ", ".join([*counts, *([reads[masked]] if isinstance(masked, bool) else []), *tells])


def _degeneration_rows(data: Json) -> list[Row]:
    labels = {
        "repetition": ("Repetition in the text", "repetition"),
        "empty": ("Empty continuations", "empty texts"),
        "ended_early": ("Continuations ended early", "ended early"),
    }
    return [
        Row(
            label=label,
            short=short,
            base=Cell(numbers.percent(mapping(data, key).get("base"))),
            pruned=Cell(numbers.percent(mapping(data, key).get("pruned"))),
        )
        for key, (label, short) in labels.items()
    ]


def _model_rows(evaluation: Json) -> list[Row]:
    entries, worst = prices(evaluation), worst_price(evaluation)
    several = len(entries) > 1
    rows = [_perplexity(one, several, worst is None or title(one) == worst.text) for one in entries]
    rows += [
        Row(
            label="KL(base, pruned) per token, nats" + (f", on {title(one)}" if several else ""),
            short=f"KL {short_title(one)}" if several else "KL",
            difference=_estimate(mapping(one, "kl"), 3),
        )
        for one in entries
    ]
    predicted = mapping(evaluation, "perplexity", "predicted").get("kl")
    rows.append(
        Row(
            label=f"The same on {title(entries[0])}, predicted before pruning"
            if several
            else "The same, predicted before pruning",
            short="KL, predicted",
            difference=_cell(predicted, None, 3),
        )
    )
    for key, label, form in (
        ("parameters", "Parameters", numbers.count),
        ("bytes", "Size of the weights", numbers.size),
    ):
        base, pruned = (mapping(evaluation, key).get(which) for which in ("base", "pruned"))
        change = Cell(numbers.relative_change(base, pruned))
        rows.append(
            Row(
                label=label,
                short=key,
                base=Cell(form(base)),
                pruned=Cell(form(pruned)),
                difference=change,
            )
        )
    return rows


def _perplexity(entry: Json, several: bool, worst: bool) -> Row:
    """Of one text; the worst of several leads, since every limit is held against it."""
    increase, label, short = mapping(entry, "increase"), "Perplexity", "perplexity"
    if several:
        label = f"Perplexity on {title(entry)}" + (" (the worst: decides)" if worst else "")
        short = f"ppl {short_title(entry)}"
    return Row(
        label=label,
        short=short,
        base=_cell(entry.get("base"), None, 2),
        pruned=_cell(entry.get("pruned"), None, 2),
        difference=Cell(
            numbers.percent(increase.get("value"), signed=True),
            numbers.percent_interval(increase.get("ci95")),
        ),
        main=worst,
    )


def _cell(value: Any, ends: Any, decimals: int) -> Cell:
    if numbers.finite(value) is None:
        return NOTHING
    return Cell(numbers.decimal(value, decimals), numbers.interval(ends, decimals))


def _estimate(data: Json, decimals: int) -> Cell:
    return cell(data, numbers.decimals_for([data.get("value")], decimals, digits=2))
