"""Matched contexts as a repair asks for them: layer by layer, whatever is removed, read once.

Of every prompt the first continuation that the base model wrote: as the run has kept it, or drawn
as the run draws it. The axes stand side by side, each with the same weight. What they are
(`identity`) is known without a continuation, so that a finished repair is told from another at no
cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from levelhead import journal
from levelhead.data.prompt_selection import matched_groups
from levelhead.models.calibration import MOST_BYTES, projections
from levelhead.models.least_squares import Moments
from levelhead.models.slicing import input_width
from levelhead.progress import Progress, silent
from levelhead.records import Unit
from levelhead.scoring.matched_moments import matched_contexts, refuse_unmatched
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts

Json = dict[str, Any]
Kept = Callable[[BiasProblem], SampledTexts | None]
"""The continuations of a problem's prompts that there are already; None: there are none."""


def nothing_kept(problem: BiasProblem) -> None:
    """No continuations."""


@dataclass
class MatchedReader:
    """Reads matched contexts with the base model: `models.repair.GroupTargets`.

    Args:
        problems: of validation prompts, one for each axis.
        kept: where continuations are taken from instead of being sampled.
        progress: where to report progress.
        most_bytes: of moments in memory: layers that would need more are read in several passes.
    """

    problems: Sequence[BiasProblem]
    kept: Kept = nothing_kept
    progress: Progress = silent
    most_bytes: int = MOST_BYTES
    _moments: dict[tuple[bool, int], Moments] = field(default_factory=dict, init=False)
    _positions: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.problems = [replace(one, samples=1, first_sample=0) for one in self.problems]

    def check(self) -> None:
        """Raise PromptError where an axis has no matched groups, before any work."""
        for problem in self.problems:
            refuse_unmatched(problem)

    def identity(self) -> Json:
        """By axis: what its contexts are made from."""
        return {one.axis: self._of(one) for one in self.problems}

    def to_json(self) -> Json:
        """The same with `positions`, once they were read: the form of a record's `axes`."""
        return {
            axis: of | {"positions": self._positions[axis]} for axis, of in self.identity().items()
        }

    @property
    def positions(self) -> int:
        """Of all axes, once they were read."""
        return sum(self._positions.values())

    def matched(self, unit: Unit, layer: int, layers: Sequence[int]) -> Moments:
        """Of all axes, for one layer's projection: `cross` is E[xbar x'].

        Args:
            layers: those that are asked for, one after the other, read together as memory allows.

        Raises:
            PromptError: no matched groups.
            ModelError: the model yields NaN.
            RunFolderError: continuations that were kept are damaged, or of other prompts.
        """
        neurons = unit == "neuron"
        if (neurons, layer) not in self._moments:
            waiting = [one for one in layers if (neurons, one) not in self._moments]
            self._read(unit, waiting[waiting.index(layer) :])
        return self._moments[neurons, layer]

    def _read(self, unit: Unit, layers: Sequence[int]) -> None:
        sites = projections(self.problems[0].model, unit)
        sizes = [2 * 8 * input_width(sites[layer]) ** 2 for layer in layers]
        fits = (n for n in range(len(sizes), 1, -1) if sum(sizes[:n]) <= self.most_bytes)
        group = layers[: next(fits, 1)]
        held = sum(2 * one.gram.numel() * one.gram.element_size() for one in self._moments.values())
        if held + sum(sizes[: len(group)]) > self.most_bytes:
            self._moments.clear()
        # Whoever asks first reads: the next time it may be another, in another place.
        with journal.scope("matched contexts", unit, group):
            found = [
                matched_contexts(one, self._texts[one.axis], self.progress, layers=group, unit=unit)
                for one in self.problems
            ]
        share = 1 / len(found)
        for layer in group:
            total = found[0].moments[layer].times(share)
            for other in found[1:]:
                total = total.plus(other.moments[layer].times(share))
            self._moments[unit == "neuron", layer] = total
        self._positions = {
            problem.axis: one.positions for problem, one in zip(self.problems, found, strict=True)
        }

    @cached_property
    def _texts(self) -> Mapping[str, SampledTexts]:
        return {one.axis: self._texts_of(one) for one in self.problems}

    def _texts_of(self, problem: BiasProblem) -> SampledTexts:
        if (found := self.kept(problem)) is not None:
            return found
        with journal.scope("continuations of matched contexts", problem.axis):
            return sample_texts(problem, self.progress, f"sampling the base model ({problem.axis})")

    def _of(self, problem: BiasProblem) -> Json:
        groups = matched_groups(problem.prompts)
        texts = hashlib.sha256()
        for group in groups:
            for prompt in group:
                texts.update(prompt.text.encode() + b"\0")
        return {
            "target": "average",
            "prompts": sum(map(len, groups)),
            "groups": len(groups),
            "sha256": texts.hexdigest(),
            "seed": problem.seed,
            "new_tokens": problem.new_tokens,
            "weight": 1.0,
        }
