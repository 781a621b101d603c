"""The frozen records that cross stages. They hold data and check its form; they compute nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from levelhead.errors import SelectionError

Split = Literal["validation", "test"]
ToxicityInput = Literal["continuation", "full"]
Head = tuple[int, int]
"""(layer, head), both counted from 0."""
Unit = Literal["head", "neuron", "layer"]
"""What is scored and pruned: attention heads, MLP neurons, or whole attention layers."""
MOST_UNITS = 1_000_000
"""Of one layer: a limit against damaged files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text that mentions one subgroup of an axis, for the model to continue.

    `template` and `descriptor` name where the text comes from. They are the clusters that
    intervals resample and the pairing that matched contexts use: prompts of one axis with the
    same `template` and `variant` differ only in the subgroup.
    """

    id: str
    text: str
    axis: str
    subgroup: str
    template: str
    descriptor: str
    split: Split
    variant: int = 0
    """Which of its subgroup's descriptors: the v-th descriptors of all subgroups are matched."""
    register: str = ""
    """What kind of text its template is ("news", "dialogue"); empty: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """What a model wrote after a prompt, and how toxic a scorer finds it (0 to 1)."""

    prompt_id: str
    axis: str
    subgroup: str
    seed: int
    text: str
    toxicity: float
    toxicity_plain: float | None = None
    """Of the text as it is, where `toxicity` is of the text without identity words."""
    sample: int = 0
    split: Split = "validation"
    model: Literal["base", "pruned"] = "base"
    token_ids: tuple[int, ...] = ()
    """The sampled tokens up to and including the first end-of-text token."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval; `low` may be a closed end of the range (0 for a bias)."""

    low: float
    high: float
    level: float = 0.95


def ranges_text(numbers: Iterable[int]) -> str:
    """Whole numbers from 0 as text, runs of them as ranges: "0-3,17"; of `ranges_of`."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def ranges_of(text: str) -> tuple[int, ...]:
    """The numbers that `ranges_text` wrote, ascending.

    Raises:
        SelectionError: not such a text, a number twice, or one above `MOST_UNITS`.
    """
    found: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        ends = (first, last or first)
        if not all(end.isascii() and end.isdigit() and len(end) <= 9 for end in ends):
            raise SelectionError(f"{part!r} is neither a whole number from 0 nor a range of them")
        low, high = map(int, ends)
        if high >= MOST_UNITS or low > high or (found and low <= found[-1]):
            raise SelectionError(
                f"{part!r} does not ascend, or exceeds {MOST_UNITS - 1}, in a list of ranges"
            )
        found.extend(range(low, high + 1))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSelection:
    """The units to prune and the rule that chose them (`selection.json`).

    `heads` are sorted (layer, head) pairs, or (layer, neuron) where `unit` is "neuron"; of unit
    "layer" they are all heads of the layers, so that nothing after the selection is different for
    it. `details` holds what the rule wants to be remembered for (axis, protected heads,
    reliability); it never changes what is pruned. Of method "average" no head is pruned: `average`
    says what is changed instead.
    """

    heads: tuple[Head, ...]
    method: str = "listed"
    gamma: float | None = None
    alpha: float | None = None
    details: Mapping[str, Any] | None = None
    unit: Unit = "head"
    gates: tuple[tuple[float, ...], ...] | None = None
    """Soft pruning: what each head is scaled by, [layers][heads]; `heads` are those of gate 0."""
    average: Mapping[str, Any] | None = None
    """Method average: the record of the change of weights (`models.average_edit`), which holds its
    `layers`, `lambda`, `rank`, `what` and `digest`; the change itself is in a file beside."""
    change: Path | None = field(default=None, compare=False)
    """Method average: that file; None: it is not known, and nothing can be changed by it."""

    @classmethod
    def of(cls, heads: Iterable[Iterable[int]], **fields: Any) -> HeadSelection:
        """A selection of these heads, in any order; a head listed twice is an error."""
        pairs = [(int(layer), int(head)) for layer, head in heads]
        if len(set(pairs)) != len(pairs):
            twice = sorted(p for p, times in Counter(pairs).items() if times > 1)
            raise SelectionError(f"heads listed more than once: {twice}; list each head once")
        return cls(heads=tuple(sorted(pairs)), **fields)

    @property
    def by_layer(self) -> dict[int, tuple[int, ...]]:
        """Heads to prune in each layer that loses any: {layer: (head, ...)}."""
        layers: dict[int, list[int]] = {}
        for layer, head in self.heads:
            layers.setdefault(layer, []).append(head)
        return {layer: tuple(heads) for layer, heads in layers.items()}

    def to_json(self) -> dict[str, Any]:
        """The form of `levelhead select --json`; details only where there are any."""
        out: dict[str, Any] = {
            "method": self.method,
            "gamma": self.gamma,
            "alpha": self.alpha,
            **({} if self.unit == "head" else {"unit": self.unit}),
            **self.chosen_json(),
        }
        average = {} if self.average is None else {"average": dict(self.average)}
        return out | average | dict(self.details or {})

    def chosen_json(self) -> dict[str, Any]:
        """What is chosen: {"heads": [[layer, head], ...]}, or {"neurons": {layer: ranges}}.

        Of method average: no heads, `layers`, `lambda`, `rank`, and the digest of the `change`.
        """
        if self.average is not None:
            change = {"layers": list(self.average["layers"]), "change": self.average["digest"]}
            return {"heads": [], "lambda": self.average["lambda"], "rank": self.average["rank"]} | (
                change
            )
        if self.unit == "neuron":
            gone = {str(layer): ranges_text(numbers) for layer, numbers in self.by_layer.items()}
            return {"neurons": gone}
        soft = {} if self.gates is None else {"gates": [list(row) for row in self.gates]}
        layers = {"layers": list(self.by_layer)} if self.unit == "layer" else {}
        return {"heads": [list(head) for head in self.heads], **layers, **soft}

    @property
    def described(self) -> str:
        """How much is chosen, for people: "27 heads", "1,200 neurons", "3 attention layers"."""
        if self.average is not None:
            layers, rank = len(self.average["layers"]), self.average["rank"]
            within = "" if rank is None else f" in {rank} directions"
            return f"{layers:,} layer{'s' * (layers != 1)} averaged over groups{within}"
        if self.gates is not None:
            scaled = sum(gate < 1 for row in self.gates for gate in row)
            return f"{scaled:,} scaled heads ({len(self.heads):,} of them to 0)"
        count = len(self.by_layer) if self.unit == "layer" else len(self.heads)
        name = "attention layer" if self.unit == "layer" else self.unit
        return f"{count:,} {name}" + ("" if count == 1 else "s")

    @property
    def done(self) -> str:
        """What is done to the model, for the beginning of a sentence: "Removing 27 heads"."""
        if self.average is None:
            return f"Removing {self.described}"
        layers, rank = len(self.average["layers"]), self.average["rank"]
        within = "" if rank is None else f", {rank} directions each"
        return f"Averaging over groups in {layers:,} layer{'s' * (layers != 1)}{within}"

    @classmethod
    def from_json(cls, data: Any) -> HeadSelection:
        """Read what `to_json` wrote, or any object with a "heads" list of [layer, head] pairs."""
        if isinstance(data, dict) and "neurons" in data:
            data = data | {"heads": _neuron_pairs(data["neurons"])}
        if not isinstance(data, dict) or not isinstance(data.get("heads"), list):
            raise SelectionError('expected an object with "heads": [[layer, head], ...]')
        for pair in data["heads"]:
            ok = isinstance(pair, list) and len(pair) == 2
            if not ok or not all(type(i) is int and i >= 0 for i in pair):
                raise SelectionError(f"not a [layer, head] pair of whole numbers from 0: {pair!r}")
        known = {"method", "gamma", "alpha", "heads", "unit", "neurons", "layers", "gates"}
        known |= {"lambda", "rank", "change", "average"} if "average" in data else set()
        unit = data.get("unit", "neuron" if "neurons" in data else "head")
        if unit not in get_args(Unit) or (unit == "neuron") != ("neurons" in data):
            raise SelectionError(f"unit {unit!r} does not fit what is listed")
        return cls.of(
            data["heads"],
            unit=unit,
            method=str(data.get("method", "listed")),
            gamma=data.get("gamma"),
            alpha=data.get("alpha"),
            gates=_gates(data.get("gates")),
            average=_average(data),
            details={k: v for k, v in data.items() if k not in known} or None,
        )


def _gates(stored: Any) -> tuple[tuple[float, ...], ...] | None:
    """Gates of selection.json; whether they fit a model, the model says."""
    if stored is None:
        return None
    rows = stored if isinstance(stored, list) else [stored]
    numbers = [gate for row in rows for gate in (row if isinstance(row, list) else [row])]
    good = all(isinstance(gate, int | float) and 0 <= gate <= 1 for gate in numbers)
    if not good or not all(isinstance(row, list) for row in rows):
        raise SelectionError('expected "gates": [[a number from 0 to 1, ...], ...], a row a layer')
    return tuple(tuple(float(gate) for gate in row) for row in rows)


def _average(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record of selection.json's `average`; whether it fits a model, the model says."""
    found = data.get("average")
    if found is None and data.get("method") != "average":
        return None
    given: Mapping[str, Any] = found if isinstance(found, dict) else {}
    layers = given.get("layers")
    good = isinstance(layers, list) and all(type(one) is int and one >= 0 for one in layers)
    good = good and isinstance(given.get("lambda"), int | float) and "rank" in given
    if not good or not isinstance(given.get("digest"), str) or data["heads"]:
        raise SelectionError(
            'a selection of method "average" needs "average": {"layers", "lambda", "rank", '
            '"digest", ...} as `levelhead select --method average` writes it, and no heads'
        )
    return given


def _neuron_pairs(stored: Any) -> list[list[int]]:
    """[[layer, neuron], ...] of {"<layer>": ranges}."""
    if not isinstance(stored, dict) or not all(isinstance(t, str) for t in stored.values()):
        raise SelectionError('expected "neurons": {"<layer>": "0-3,17", ...}')
    if wrong := [layer for layer in stored if not layer.isdigit()]:
        raise SelectionError(f"{wrong[0]!r} is not the number of a layer")
    return [[int(layer), neuron] for layer, text in stored.items() for neuron in ranges_of(text)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its standard error and confidence interval, all in the value's unit."""

    value: float
    interval: Interval
    stderr: float | None = None
    """None where the interval is not made of one."""

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval.low > 0 or self.interval.high < 0

    def to_json(self) -> dict[str, Any]:
        """{"value": ..., "ci95": [low, high]}."""
        return {"value": self.value, "ci95": [self.interval.low, self.interval.high]}
