"""Repair a model that loses heads or neurons: what they wrote is rebuilt from those that stay.

By `least_squares.fit`, layer by layer, from one reading of a calibration text by the whole model.
Only weights of output projections (of down projections, for neurons) change, so that every format
with weights of its own holds the result. A layer that loses everything has nothing left to be
repaired with, and stays as it is. What was done is written into the model's config:

    "levelhead_repair": {"method": "least-squares", "target": "own output", "ridge": 0.01,
                         "texts": [{"name": ..., "split": ..., "sha256": ..., "tokens": ...,
                                    "share": ...}],
                         "rebuilt": {"<layer>": <share>, ...}, "not_repaired": [<layer>, ...],
                         "warnings": [...]}

or "group-averaged", "group average", with "lambda" and "axes" besides. It knows nothing of runs,
nor of where texts come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from levelhead.errors import SelectionError, TextError
from levelhead.models.architectures import head_counts, head_dim
from levelhead.models.averaging import check_strength
from levelhead.models.calibration import (
    ENOUGH,
    CalibrationText,
    TextReader,
    default_ridge,
    projections,
)
from levelhead.models.checksums import config_record, saved_record
from levelhead.models.least_squares import (
    Moments,
    check_ridge,
    fit,
    read_weight,
    rebuilt,
    write_weight,
)
from levelhead.models.neuron_layouts import neuron_counts
from levelhead.models.neurons import refuse_unprunable_neurons
from levelhead.models.quantised import refuse_quantised
from levelhead.models.slicing import input_width, rows_of
from levelhead.models.surgery import check_heads
from levelhead.records import HeadSelection, Unit

REPAIR = "levelhead_repair"
"""Field of config.json: what was done; nothing reads it to load the model."""
NONE, LEAST_SQUARES = "none", "least-squares"
OWN_OUTPUT = "own output"
"""The target of least squares: what the layer wrote before."""
GROUP_AVERAGED, GROUP_AVERAGE = "group-averaged", "group average"
"""The same with another target at matched positions: the subgroups' average of what it wrote."""
STRENGTH = 10.0
"""Of group averages beside text, if nobody says otherwise."""
_IDENTITY = ("method", "target", "ridge", "texts", "lambda", "axes")
"""Of a record: what the weights depend on besides the model and what is removed."""
_COUNTED = "positions"
"""Of an axis: known only when its contexts were read, and decided by the rest."""
Json = dict[str, Any]


class GroupTargets(Protocol):
    """Matched contexts whose target is the subgroups' average of what a layer wrote."""

    @property
    def positions(self) -> int:
        """How many there are, once they were read."""

    def check(self) -> None:
        """Find out before any work whether there are such contexts."""

    def identity(self) -> Json:
        """By axis: what its contexts are made from; known before they are read."""

    def to_json(self) -> Json:
        """The form of a record's `axes`, once they were read."""

    def matched(self, unit: Unit, layer: int, layers: Sequence[int]) -> Moments:
        """Of one layer, of all that are asked for in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """New weights of the kept inputs, by layer, and the record of how they were found."""

    unit: Unit
    weights: Mapping[int, Float[Tensor, "outputs kept"]]
    kept: Mapping[int, Sequence[int]]
    record: Json

    def apply(self, pruned: PreTrainedModel) -> None:
        """Write them into a model that was pruned of the same units, and say so in its config.

        Raises:
            ModelError: they do not fit the number format of its weights.
        """
        modules = projections(pruned, self.unit)
        for layer, weight in self.weights.items():
            write_weight(modules[layer], weight)
        setattr(pruned.config, REPAIR, self.record)

    @contextmanager
    def applied(self, whole: PreTrainedModel) -> Iterator[None]:
        """For a while, in the whole model; what is removed has to be gated off besides."""
        modules = projections(whole, self.unit)
        own = {layer: modules[layer].get_parameter("weight") for layer in self.weights}
        before = {layer: weight.detach().clone() for layer, weight in own.items()}
        try:
            for layer, weight in self.weights.items():
                full = read_weight(modules[layer]).clone()
                full[:, list(self.kept[layer])] = weight.to(full.device)
                write_weight(modules[layer], full)
            yield
        finally:
            with torch.no_grad():
                for layer, old in before.items():
                    own[layer].copy_(old)


@dataclass
class Repairer:
    """Fits repairs of one model to calibration texts, which it reads once for all of them.

    Args:
        model: the whole one, in the number format and on the device that it is to be read in.
        texts: what it reads; every token counts alike.
        bos: put before every window of tokens, if the tokenizer has it.
        ridge: as in `least_squares.fit`; none: `default_ridge`, so that short texts change
            less.
        averaging: matched contexts whose target is the subgroups' average, so that what differs
            between subgroups is not rebuilt. None: text alone.
        strength: how much they count beside text, above 0.
    """

    model: PreTrainedModel
    texts: Sequence[CalibrationText]
    bos: int | None = None
    ridge: float | None = None
    averaging: GroupTargets | None = None
    strength: float = STRENGTH
    reader: TextReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = TextReader(self.model, self.texts, self.bos)
        if self.ridge is not None:
            check_ridge(self.ridge)
        check_strength(self.strength)

    @property
    def method(self) -> str:
        """What it is called."""
        return LEAST_SQUARES if self.averaging is None else GROUP_AVERAGED

    def identity(self, unit: Unit) -> Json:
        """What a repair depends on besides the model and what is removed."""
        found = {
            "method": self.method,
            "target": OWN_OUTPUT,
            "ridge": self.ridge_of(unit),
            "texts": self.reader.to_json(),
        }
        if self.averaging is None:
            return found
        axes = {"lambda": float(self.strength), "axes": self.averaging.identity()}
        return found | {"target": GROUP_AVERAGE} | axes

    def ridge_of(self, unit: Unit) -> float:
        """What holds the weights where they were: a share of every input's own mean square."""
        if self.ridge is not None:
            return self.ridge
        return default_ridge(self._width(unit), self.reader.tokens)

    def check_inputs(self, unit: Unit) -> list[str]:
        """Whether the texts are long enough for the layers' width; warnings, before any work.

        Raises:
            TextError: fewer tokens than a layer has inputs.
            PromptError: group averages of prompts that have no matched groups.
        """
        if self.averaging is not None:
            self.averaging.check()
        tokens, width = self.reader.tokens, self._width(unit)
        ridge = f"a ridge of {self.ridge_of(unit):.2g}"
        if tokens < width:
            raise TextError(
                f"--repair {self.method} fits {width:,} inputs of every layer to {tokens:,} "
                f"tokens of text, fewer than inputs: even with {ridge} it would "
                f"learn this text by heart. Use at least {width:,}, better {ENOUGH * width:,} "
                "(--text-tokens, or a longer --text), or leave out --repair"
            )
        if tokens < ENOUGH * width:
            return [
                f"the repair was fitted to {tokens:,} tokens of text, {tokens / width:.1f} per "
                f"input of a layer ({width:,}), with {ridge}: on other text it may do less; "
                f"{ENOUGH * width:,} tokens are enough (--text-tokens)"
            ]
        return []

    def _width(self, unit: Unit) -> int:
        return max(input_width(module) for module in projections(self.model, unit))

    def check(self, selection: HeadSelection) -> None:
        """Find out before any work what a repair cannot do.

        Raises:
            SelectionError: gates, or layers only that lose everything.
            TextError, PromptError: as `check_inputs`.
            ModelError, UnsupportedArchitectureError: a quantised model, or a family whose neurons
                are not known.
        """
        refuse_unrepairable(selection)
        if selection.unit == "neuron":
            refuse_unprunable_neurons(self.model)
        else:
            refuse_quantised(self.model)
        if not kept_inputs(self.model, selection):
            raise SelectionError(
                f"--repair {self.method} rebuilds what was removed from what stays in the same "
                f"layer, but every layer of {selection.described} loses everything: "
                "there is nothing to repair it with; leave out --repair"
            )
        self.check_inputs(selection.unit)

    def work(self, selection: HeadSelection) -> int:
        """How many tokens `repair` will read."""
        return self.reader.work(selection.unit, list(kept_inputs(self.model, selection)))

    def repair(
        self,
        selection: HeadSelection,
        whole: PreTrainedModel | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> Repair:
        """Fit the weights of what stays; layers that lose everything are left alone.

        Args:
            whole: the model whose weights they start from, where it is a copy of `model` in
                another number format.
            advance: called with the number of tokens read.

        Raises:
            ModelError: activations that are not finite.
        """
        kept = kept_inputs(self.model, selection)
        modules = projections(self.model if whole is None else whole, selection.unit)
        ridge = self.ridge_of(selection.unit)
        weights, shares = {}, {}
        for layer, gram in self.reader.grams(selection.unit, list(kept), advance):
            weight = read_weight(modules[layer]).to(gram.device)
            moments = Moments.keeping(gram)
            if self.averaging is not None:
                moments = moments.plus(
                    self.averaging.matched(selection.unit, layer, list(kept)).times(self.strength)
                )
            found = fit(weight, moments, kept[layer], ridge)
            weights[layer] = found.weight
            shares[layer] = rebuilt(weight, found, gram, kept[layer])
        record = self.identity(selection.unit) | {
            "rebuilt": {str(layer): round(shares[layer], 4) for layer in kept},
            "not_repaired": [layer for layer in selection.by_layer if layer not in kept],
            "warnings": self.check_inputs(selection.unit),
        }
        if self.averaging is not None and kept:
            record["axes"] = self.averaging.to_json()
            record["warnings"] += self._few(self.averaging.positions, selection.unit)
        return Repair(unit=selection.unit, weights=weights, kept=kept, record=record)

    def _few(self, positions: int, unit: Unit) -> list[str]:
        width = self._width(unit)
        if positions >= ENOUGH * width:
            return []
        return [
            f"the repair's group averages rest on {positions:,} positions of matched contexts, "
            f"{positions / width:.1f} per input of a layer ({width:,}): on other prompts it may "
            f"average less; {ENOUGH * width:,} are enough (--max-prompts)"
        ]


def kept_inputs(whole: PreTrainedModel, selection: HeadSelection) -> dict[int, list[int]]:
    """By layer that loses some of its units and keeps others: the inputs that stay, ascending.

    Raises:
        SelectionError: units that the model does not have.
    """
    neurons = selection.unit == "neuron"
    counts = neuron_counts(whole) if neurons else head_counts(whole)
    width = 1 if neurons else head_dim(whole)
    kept = {}
    for layer, gone in check_heads(selection.by_layer, *counts).items():
        out = set(gone)
        if stays := [unit for unit in range(counts[1]) if unit not in out]:
            kept[layer] = rows_of(stays, width)
    return kept


def refuse_unrepairable(selection: HeadSelection) -> None:
    """Raise SelectionError for what no repair can be fitted to, whichever model it is."""
    if selection.gates is not None:
        raise SelectionError(
            "--repair is for heads that are gone. Scaled heads (--soft) are all there: least "
            "squares would scale them back to where they were; leave out one of the two"
        )


def repair_of(model_or_config: PreTrainedModel | PreTrainedConfig) -> Json | None:
    """How a model was repaired, as its config says; None: it was not."""
    return config_record(model_or_config, REPAIR)


def saved_repair(folder: Any) -> Json | None:
    """How `levelhead.json` of a folder says that its model was repaired; None: it was not.

    Raises:
        CheckpointError: the file is damaged.
    """
    return saved_record(folder, "repair", "its repair")


def same_repair(held: Mapping[str, Any] | None, wanted: Mapping[str, Any] | None) -> bool:
    """Whether two records (or identities) are of repairs by the same rule on the same texts."""
    if held is None or wanted is None:
        return held is None and wanted is None
    return all(_known(held, key) == _known(wanted, key) for key in _IDENTITY)


def _known(record: Mapping[str, Any], key: str) -> Any:
    """A field, of which only what is known before any work."""
    found = record.get(key)
    if key != "axes" or not isinstance(found, dict):
        return found
    return {axis: {k: v for k, v in of.items() if k != _COUNTED} for axis, of in found.items()}
