"""Texts that weights are fitted to, and what layers read there: second moments, read once.

It knows nothing of runs, nor of what is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from levelhead.models.architectures import output_projections, text_config
from levelhead.models.least_squares import second_moments
from levelhead.models.neuron_layouts import down_projections
from levelhead.models.slicing import input_width
from levelhead.records import Split, Unit

SHRINK = 0.5
"""Ridge at one input per position."""
ENOUGH = 4
"""Positions per input from which a fit is not mainly of these very positions."""
WINDOW = 512
MOST_BYTES = 2**31
"""Of moments in memory: layers that would need more are read in several passes."""
Json = dict[str, Any]


class Source(Protocol):
    """Where a text is from."""

    @property
    def name(self) -> str:
        """As people call it; a path, perhaps."""

    @property
    def sha256(self) -> str:
        """Of the whole part that tokens were taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationText:
    """A text that weights are fitted to, as tokens without special ones."""

    name: str
    sha256: str
    split: Split
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, source: Source, split: Split, tokens: Sequence[int]) -> CalibrationText:
        """The first tokens of a part of a text."""
        return cls(name=source.name, sha256=source.sha256, split=split, tokens=tuple(tokens))


@dataclass
class TextReader:
    """Reads texts with a model, once for all that is fitted to them; every token counts alike.

    Args:
        model: the whole one, in the number format and on the device that it is to be read in.
        bos: put before every window of tokens, if the tokenizer has it.
    """

    model: PreTrainedModel
    texts: Sequence[CalibrationText]
    bos: int | None = None
    _grams: dict[tuple[bool, int], Tensor] = field(default_factory=dict, init=False)

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(len(text.tokens) for text in self.texts)

    def to_json(self) -> list[Json]:
        """The form of a record's `texts`."""
        return [
            {
                "name": PurePath(text.name).name,  # paths say where people work
                "split": text.split,
                "sha256": text.sha256,
                "tokens": len(text.tokens),
                "share": len(text.tokens) / self.tokens if self.tokens else 0.0,
            }
            for text in self.texts
        ]

    def work(self, unit: Unit, layers: Sequence[int]) -> int:
        """How many tokens `grams` will read; 0 where it has read them before."""
        passes = len(self._groups(unit == "neuron", layers))
        return passes * sum(map(len, self._windows()))

    def grams(
        self, unit: Unit, layers: Sequence[int], advance: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, Float[Tensor, "inputs inputs"]]]:
        """(layer, E[x x'] over the texts), float64, of what the unit's projection reads there."""
        neurons = unit == "neuron"
        groups = self._groups(neurons, layers)
        for layer in layers:
            if (neurons, layer) in self._grams:
                yield layer, self._grams[neurons, layer]
        for group in groups:
            sites = projections(self.model, unit)
            modules = {layer: sites[layer] for layer in group}
            found = second_moments(self.model, modules, self._windows(), advance)
            held = sum(map(_bytes, self._grams.values())) + sum(map(_bytes, found.values()))
            if held <= MOST_BYTES:
                self._grams |= {(neurons, layer): gram for layer, gram in found.items()}
            yield from found.items()

    def _groups(self, neurons: bool, layers: Sequence[int]) -> list[list[int]]:
        """Layers that are yet to be read, those of one pass together."""
        sites = projections(self.model, "neuron" if neurons else "head")
        groups: list[list[int]] = []
        room = 0
        for layer in layers:
            if (neurons, layer) in self._grams:
                continue
            size = 8 * input_width(sites[layer]) ** 2
            if not groups or size > room:
                groups.append([])
                room = MOST_BYTES
            groups[-1].append(layer)
            room -= size
        return groups

    def _windows(self) -> list[tuple[int, ...]]:
        config = text_config(self.model)
        first = () if self.bos is None else (self.bos,)
        limit = getattr(config, "max_position_embeddings", None) or WINDOW
        room = max(1, min(WINDOW, int(limit)) - len(first))
        return [
            first + text.tokens[start : start + room]
            for text in self.texts
            for start in range(0, len(text.tokens), room)
        ]


def default_ridge(width: int, positions: int) -> float:
    """A share of every input's own mean square, the larger the fewer positions there are."""
    return SHRINK * width / max(1, positions)


def projections(model: PreTrainedModel, unit: Unit) -> list[nn.Module]:
    """What reads the units of every layer: down projections for neurons, else output ones."""
    return down_projections(model) if unit == "neuron" else output_projections(model)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
