"""Take out of attention layers what differs between subgroups: linear, in closed form, no training.

x are the inputs of a layer's output projection W, xbar their mean over the subgroups' versions of
one text at the same position, U directions of what the layer writes (none: all of it). The layer
is to go on writing what it wrote on text, and the subgroups' average at matched positions:

    dW = argmin  E_text |dW x|^2 + strength * E_matched |U' W xbar - U' (W + dW) x|^2   within U
       = strength * U U' W (B - A)_K (M_KK + strength A_KK + ridge)^-1
    M = E_text[x x']    A = E_matched[x x']    B = E_matched[xbar x']

on the inputs K of the heads that are free; columns of protected heads keep every bit. With r
directions the change has rank r. What else must stay are contexts whose target is what the layer
wrote: A = B. Everything here is sums and linear systems (`least_squares.fit`): it knows nothing of
prompts, scorers or files.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from levelhead.errors import ConfigError, ModelError, SelectionError
from levelhead.models.architectures import head_counts, head_dim
from levelhead.models.average_edit import AverageEdit, Change
from levelhead.models.calibration import ENOUGH, default_ridge, projections
from levelhead.models.least_squares import Moments, check_ridge, fit, read_weight
from levelhead.models.neuron_layouts import neuron_counts
from levelhead.models.quantised import is_quantised, plain_linear
from levelhead.models.slicing import input_width, rows_of
from levelhead.models.surgery import Heads, check_heads, refuse_pruned
from levelhead.records import Unit

Target = Literal["average", "own", "shuffled"]
"""What a layer is to write at the positions of some contexts: the subgroups' average; what it wrote
(contexts to be kept as they are); or, a control, what it wrote plus the correction that belongs to
a subgroup drawn at random of the same group, which is 0 on average."""
ALL = "all"
"""What is averaged where no readout limits it."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """What was collected at the positions of one axis' matched contexts (or of contexts to keep).

    `cross` of the moments is E[xbar x'], E[x x'] or, shuffled, of neither (see `Target`).
    """

    moments: Mapping[int, Moments]
    readout: Mapping[int, Float[Tensor, "outputs outputs"]]
    """E[g g'] by layer, g the gradient by the layer's output of what is read; {}: nothing was."""
    target: Target
    prompts: int
    groups: int
    positions: int

    def to_json(self) -> Json:
        """The form of a record's `axes` and `keep`."""
        return {
            "target": self.target,
            "prompts": self.prompts,
            "groups": self.groups,
            "positions": self.positions,
        }


@dataclass(kw_only=True)
class Averager:
    """Edits of one model from what was collected once, for any strength, rank, layers and heads.

    Args:
        model: the whole one, unchanged; it may be quantised.
        text: E[x x'] by layer over the texts on which the model is to stay as it is.
        texts: what they are, for the record: name, split, sha256, tokens, share.
        contexts: by axis, or by any name for contexts to keep, of the same layers.
        weights: by the same names, 1 where nothing is said. Axes share the strength by weight.
            One that is kept counts beside them.
        what: the readouts' name, for the record.
        unit: whose projections were looked at: output ones, or down projections for neurons.
    """

    model: PreTrainedModel
    text: Mapping[int, Float[Tensor, "inputs inputs"]]
    texts: Sequence[Mapping[str, Any]]
    contexts: Mapping[str, Contexts]
    weights: Mapping[str, float] = field(default_factory=dict)
    what: str = "toxicity"
    unit: Unit = "head"
    _directions: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        refuse_pruned(self.model)
        for name, weight in self.weights.items():
            if name not in self.contexts:
                raise ConfigError(
                    f"a weight for {name!r}: there are {', '.join(self.contexts) or 'no contexts'}"
                )
            if not (weight > 0 and math.isfinite(weight)):
                raise ConfigError(
                    f"a weight of {weight!r} for {name!r}: it must be a finite number above 0; "
                    "leave contexts out that are not to count"
                )
        if not self._averaged:
            raise ConfigError("nothing is averaged: contexts to keep alone change nothing")

    @property
    def _averaged(self) -> list[str]:
        return [name for name, one in self.contexts.items() if one.target != "own"]

    @property
    def layers(self) -> list[int]:
        """Those that were collected, ascending."""
        return sorted(self.text)

    def ridge(self) -> float:
        """By default: a share of every input's mean square, the larger the fewer positions."""
        return default_ridge(self._width, min(self._counts().values()))

    @property
    def _width(self) -> int:
        return max(input_width(module) for module in projections(self.model, self.unit))

    def _counts(self) -> dict[str, int]:
        averaged = sum(self.contexts[name].positions for name in self._averaged)
        return {
            "tokens of text": sum(int(text["tokens"]) for text in self.texts),
            "positions of matched contexts": averaged,
        }

    def warnings(self, ridge: float) -> list[str]:
        """What was collected of too few positions for the layers' width."""
        width, told = self._width, []
        for what, count in self._counts().items():
            if count < ENOUGH * width:
                few = "fewer than inputs" if count < width else f"{count / width:.1f} per input"
                told.append(
                    f"averaging rests on {count:,} {what} for layers of {width:,} inputs, {few}, "
                    f"with a ridge of {ridge:.2g}: on other texts it may do less, or more than is "
                    f"wanted; {ENOUGH * width:,} are enough (--text-tokens, --max-prompts)"
                )
        return told

    def edit(
        self,
        *,
        strength: float,
        rank: int | None = None,
        layers: Sequence[int] | None = None,
        protected: Heads | None = None,
        ridge: float | None = None,
    ) -> AverageEdit:
        """The change of every layer.

        Args:
            strength: lambda, above 0: how much matched positions count beside text.
            rank: how many directions of the readout may change; none: all of what layers write.
            layers: those that may change; none: all that were collected.
            protected: {layer: heads} (or neurons) whose columns stay as they are.
            ridge: share of every input's mean square, above 0; none: `self.ridge()`.

        Raises:
            ConfigError: strength or rank out of range; a rank without a readout.
            ValueError: a ridge out of range.
            SelectionError: layers or heads that there are not, or none that may change.
            ModelError: activations that are not finite.
        """
        check_strength(strength)
        self._check_rank(rank)
        chosen = self._checked_layers(layers)
        ridge = self.ridge() if ridge is None else ridge
        check_ridge(ridge)
        neurons = self.unit == "neuron"
        counts = neuron_counts(self.model) if neurons else head_counts(self.model)
        held = check_heads(protected or {}, *counts, "neuron" if neurons else "head")
        free = {
            layer: [head for head in range(counts[1]) if head not in held.get(layer, ())]
            for layer in chosen
        }
        if not any(free.values()):
            raise SelectionError(
                "every head of the layers to be averaged is protected: nothing may change; name "
                "other layers or protect fewer heads"
            )
        width = 1 if neurons else head_dim(self.model)
        changes, left, moved = {}, {}, {}
        for layer in (layer for layer in chosen if free[layer]):
            found = self._layer(layer, strength, rank, rows_of(free[layer], width), ridge)
            changes[layer], moved[str(layer)] = found[0], found[2]
            if found[1] is not None:
                left[str(layer)] = found[1]
        record = {
            "method": "average",
            "what": ALL if rank is None else self.what,
            "lambda": float(strength),
            "rank": rank,
            "ridge": ridge,
            "layers": sorted(changes),
            "protected_heads": {
                str(layer): list(heads) for layer, heads in held.items() if layer in changes
            },
            "axes": self.axes_json(),
            "texts": [dict(text) for text in self.texts],
            "left": left,
            "moved": moved,
            "warnings": self.warnings(ridge),
        }
        return AverageEdit.of(changes, record, self.unit)

    def axes_json(self) -> Json:
        """The form of a record's `axes`."""
        return {
            name: one.to_json() | {"weight": self.weights.get(name, 1.0)}
            for name, one in self.contexts.items()
        }

    def _layer(
        self, layer: int, strength: float, rank: int | None, free: list[int], ridge: float
    ) -> tuple[Change, float | None, float]:
        """The change, what it leaves of the differences, and how far it moves what is written."""
        text, matched = self.text[layer], self.matched(layer)
        weight = _weight(projections(self.model, self.unit)[layer]).to(text.device)
        directions = None if rank is None else self.directions(layer)[:, :rank]
        part = weight if directions is None else directions.T @ weight
        taken = set(free)
        held = [column for column in range(weight.shape[1]) if column not in taken]
        total = Moments.keeping(text).plus(matched.times(strength))
        right = torch.zeros_like(part)
        right[:, free] = fit(part, total, free, ridge, held).change
        wrote = _power(weight, text)
        return (
            Change(right=right, left=directions),
            self._left(matched, part, right),
            round(_power(right, text) / wrote, 6) if wrote > 0 else 0.0,
        )

    def _left(self, matched: Moments, part: Tensor, right: Tensor) -> float | None:
        """Share of the mean square of the subgroups' differences; None: it has no meaning."""
        if any(one.target == "shuffled" for one in self.contexts.values()):
            return None
        spread = matched.gram - matched.cross
        before, after = (_power(one, spread) for one in (part, part + right))
        return round(after / before, 4) if before > 0 else 0.0

    def matched(self, layer: int) -> Moments:
        """Of all contexts: axes by their share of the weight, what is kept beside them."""
        share = sum(self.weights.get(name, 1.0) for name in self._averaged)
        total: Moments | None = None
        for name, one in self.contexts.items():
            own = one.moments[layer].times(self.weights.get(name, 1.0) / share)
            total = own if total is None else total.plus(own)
        assert total is not None  # noqa: S101 - __post_init__ has seen to it
        return total

    def directions(self, layer: int) -> Float[Tensor, "outputs outputs"]:
        """Directions of what a layer writes, those first that what is read depends on most."""
        return self._read(layer)[0]

    def shares(self, layer: int) -> Float[Tensor, " outputs"]:
        """Of the mean squared gradient along each of `directions`; they add up to 1."""
        return self._read(layer)[1]

    def _read(self, layer: int) -> tuple[Tensor, Tensor]:
        if layer not in self._directions:
            grams = {name: self.contexts[name].readout[layer] for name in self._averaged}
            total = torch.zeros_like(next(iter(grams.values())))
            for name, own in grams.items():
                trace = float(own.trace())
                if not math.isfinite(trace):
                    raise ModelError(
                        f"gradients of the readout of {name!r} in layer {layer} are NaN or "
                        "infinite; try --dtype float32"
                    )
                # Each axis counts by its weight, not by the size of its gradients.
                if trace > 0:
                    total += self.weights.get(name, 1.0) / trace * own
            values, vectors = torch.linalg.eigh(total)
            share = values.flip(0).clamp(min=0)
            self._directions[layer] = (vectors.flip(1), share / max(float(share.sum()), 1e-300))
        return self._directions[layer]

    def _check_rank(self, rank: int | None) -> None:
        if rank is None:
            return
        without = [name for name in self._averaged if not self.contexts[name].readout]
        if without:
            raise ConfigError(
                f"rank={rank!r} limits averaging to what is read, but no gradients of it were "
                f"collected for {', '.join(without)}; collect with a readout, or leave the rank out"
            )
        most = len(self.directions(self.layers[0]))
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= most:
            raise ConfigError(
                f"rank={rank!r}: it must be a whole number from 1 to {most:,}, the width of what "
                "a layer writes"
            )

    def _checked_layers(self, layers: Collection[int] | None) -> list[int]:
        known = self.layers
        if layers is None:
            return known
        wrong = [layer for layer in layers if layer not in known]
        if wrong:
            raise SelectionError(
                f"layer {wrong[0]!r} cannot be averaged: collected were layers "
                f"{known[0]} to {known[-1]} ({len(known)} of them)"
            )
        if not layers:
            raise SelectionError("the list of layers is empty: there is nothing to average")
        return sorted(set(layers))


def check_strength(strength: float) -> None:
    """Raise ConfigError for a lambda that is no finite number above 0."""
    if not (strength > 0 and math.isfinite(strength)):
        raise ConfigError(
            f"lambda={strength!r}: it must be a finite number above 0; 10 is a good start, more "
            "averages more"
        )


def _weight(module: nn.Module) -> Float[Tensor, "outputs inputs"]:
    return read_weight(plain_linear(module) if is_quantised(module) else module)


def _power(weight: Tensor, gram: Tensor) -> float:
    """E |weight x|^2."""
    return float(((weight @ gram) * weight).sum())
