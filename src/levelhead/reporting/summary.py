"""The rows of the comparison base / pruned / difference, as text, for the page and the terminal.

Knows the form of evaluation.json (`records.Evaluation.to_json`) and the words for its numbers.
Whatever is missing there is left out here. Strings are NOT escaped: that is the reader's task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from levelhead.reporting import numbers
from levelhead.reporting.verdicts import verdict_words

UNRELIABLE = (
    "The head scores were not reliable with this budget: another seed may well rank, and prune, "
    "other heads. More samples or more prompts help."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A number and, below or beside it, its 95% interval (empty: none)."""

    text: str = ""
    interval: str = ""

    def __bool__(self) -> bool:
        return self.text not in ("", numbers.MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity of both models; `difference` is pruned minus base."""

    label: str
    short: str
    """The label where there is little room."""
    base: Cell = Cell()
    pruned: Cell = Cell()
    difference: Cell = Cell()
    main: bool = False
    """The row to look at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rows of one axis, or (axis None) of the model as a whole."""

    axis: str | None
    rows: tuple[Row, ...]
    verdict: str = ""
    kind: str = ""
    """lower, higher or undecided: only for how it looks."""
    budget: str = ""


def mapping(data: Any, *keys: str) -> Mapping[str, Any]:
    """The mapping at a path of keys, or an empty one where any of it is missing."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def texts(data: Any) -> list[str]:
    """A list of strings, or an empty one for anything else."""
    return [str(item) for item in data] if isinstance(data, list | tuple) else []


def word(value: Any) -> str:
    """A name as text; empty where there is none."""
    return "" if value is None else str(value)


def records(data: Any, key: str) -> list[Mapping[str, Any]]:
    """The mappings in a list at a key; what else is there is left out."""
    found = mapping(data).get(key)
    listed = found if isinstance(found, list | tuple) else ()
    return [one for one in listed if isinstance(one, Mapping)]


def groups(evaluation: Mapping[str, Any]) -> list[Group]:
    """A group per axis, then one for the model (perplexity, parameters, bytes)."""
    found = [_axis(str(name), mapping(data)) for name, data in mapping(evaluation, "axes").items()]
    model = tuple(row for row in _model_rows(evaluation) if _said(row))
    if model:
        found.append(Group(axis=None, rows=model))
    return found


def warnings(*sources: Mapping[str, Any], reliable: Any = None) -> list[str]:
    """The "warnings" of all sources, each once; first of all that scores were unreliable."""
    found = [UNRELIABLE] if reliable is False else []
    for source in sources:
        found += texts(source.get("warnings"))
    return list(dict.fromkeys(found))


def _said(row: Row) -> bool:
    return bool(row.base) or bool(row.pruned) or bool(row.difference)


def _axis(name: str, data: Mapping[str, Any]) -> Group:
    base, pruned = mapping(data, "base"), mapping(data, "pruned")
    shown = ("bias", "bias_corrected", "prompt_floor", "mean_toxicity")
    decimals = numbers.decimals_for([model.get(k) for model in (base, pruned) for k in shown])

    def row(label: str, short: str, key: str, difference: str = "", *, main: bool = False) -> Row:
        own = "ci95" if key == "bias" else ""
        return Row(
            label=label,
            short=short,
            base=_cell(base.get(key), base.get(own), decimals),
            pruned=_cell(pruned.get(key), pruned.get(own), decimals),
            difference=_estimate(mapping(data, difference), decimals),
            main=main,
        )

    reading = ", names masked" if data.get("masked") else ""
    rows = [
        row(f"Bias, corrected for noise{reading}", "bias, corrected", "bias_corrected"),
        row("Its change, noise-adjusted: decides the verdict", "its change, adjusted", "",
            "adjusted_difference", main=True),
        row("Mean toxicity", "mean toxicity", "mean_toxicity", "toxicity_difference"),
        _factor(mapping(data, "common_factor")),
        _relative(mapping(data, "relative_bias")),
        *_beside_rows(data),
        row("Bias as sampled", "as sampled", "bias", "difference"),
        row("Predicted on the same continuations", "predicted", "", "expected_difference"),
        row("Bias of the prompts alone (floor)", "prompt floor", "prompt_floor"),
        *_degeneration_rows(mapping(data, "degeneration")),
    ]  # fmt: skip
    words = verdict_words(data)
    return Group(
        axis=name,
        rows=tuple(r for r in rows if _said(r)),
        verdict=words.sentence,
        kind=words.kind,
        budget=", ".join(
            f"{numbers.count(data[key])} {words}"
            for key, words in (("prompts", "test prompts"), ("samples", "samples"))
            if numbers.finite(data.get(key)) is not None
        ),
    )


def _factor(data: Mapping[str, Any]) -> Row:
    """What is left of the change of bias once everybody's toxicity fell by one factor."""
    factor = numbers.finite(data.get("factor"))
    share = "" if factor is None else f" (everybody's toxicity x {factor:.2f})"
    beyond = _estimate(mapping(data, "beyond"), 4)
    return Row(
        label=f"Change beyond a common factor{share}", short="beyond factor", difference=beyond
    )


def _beside_rows(data: Mapping[str, Any]) -> list[Row]:
    """The plain reading, the echo, the second scorer, and mentions of the own group."""
    plain, second = mapping(data, "plain"), mapping(data, "second_scorer")
    rows = []
    for label, short, found in (
        ("The plain reading: bias, corrected", "plain reading", plain),
        (f"By {word(second.get('name'))}: bias, corrected", "second scorer", second),
    ):
        base, pruned = mapping(found, "base"), mapping(found, "pruned")
        rows.append(
            Row(
                label=label,
                short=short,
                base=_cell(base.get("bias_corrected"), None, 4),
                pruned=_cell(pruned.get("bias_corrected"), None, 4),
                difference=_estimate(mapping(found, "adjusted_difference"), 4),
            )
        )
    echo, mentions = mapping(data, "echo"), mapping(data, "own_group_mentions")
    sides = ("base", "pruned", "difference")
    rows.insert(
        1,
        _three(
            "Echo: plain less masked bias",
            "echo",
            [_estimate(mapping(echo, s), 4) for s in sides],
        ),
    )
    rows.append(
        _three(
            "Texts that name their own group",
            "own group named",
            [_share(mapping(mentions, s), signed=s == "difference") for s in sides],
        )
    )
    return rows


def _three(label: str, short: str, cells: Sequence[Cell]) -> Row:
    base, pruned, difference = cells
    return Row(label=label, short=short, base=base, pruned=pruned, difference=difference)


def _share(data: Mapping[str, Any], *, signed: bool) -> Cell:
    if numbers.finite(data.get("value")) is None:
        return Cell()
    text = numbers.percent(data["value"], signed=signed)
    return Cell(text, numbers.percent_interval(data.get("ci95")))


def _relative(data: Mapping[str, Any]) -> Row:
    """Bias over mean toxicity's excess: stays where everything becomes less toxic alike."""
    return Row(
        label="Bias, relative to the mean toxicity above that of harmless text",
        short="relative bias",
        base=_cell(data.get("base"), None, 2),
        pruned=_cell(data.get("pruned"), None, 2),
        difference=_estimate(mapping(data, "difference"), 2),
    )


def _degeneration_rows(data: Mapping[str, Any]) -> list[Row]:
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


def _model_rows(evaluation: Mapping[str, Any]) -> list[Row]:
    perplexity = mapping(evaluation, "perplexity")
    increase = mapping(perplexity, "increase")
    rows = [
        Row(
            label="Perplexity",
            short="perplexity",
            base=_cell(perplexity.get("base"), None, 2),
            pruned=_cell(perplexity.get("pruned"), None, 2),
            difference=Cell(
                numbers.percent(increase.get("value"), signed=True),
                numbers.percent_interval(increase.get("ci95")),
            ),
            main=True,
        ),
        Row(
            label="KL(base, pruned) per token, nats",
            short="KL",
            difference=_estimate(mapping(perplexity, "kl"), 3),
        ),
        Row(
            label="The same, predicted before pruning",
            short="KL, predicted",
            difference=_cell(mapping(perplexity, "predicted").get("kl"), None, 3),
        ),
    ]
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


def _cell(value: Any, ends: Any, decimals: int) -> Cell:
    if numbers.finite(value) is None:
        return Cell()
    return Cell(numbers.decimal(value, decimals), numbers.interval(ends, decimals))


def _estimate(data: Mapping[str, Any], decimals: int) -> Cell:
    own = numbers.decimals_for([data.get("value")], decimals, digits=2)
    return _cell(data.get("value"), data.get("ci95"), own)
