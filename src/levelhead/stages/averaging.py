"""Method average in a run folder: which change of weights takes out most within the limit?

Matched contexts are of the continuations that heads were scored on. Predictions order changes of
several strengths, ranks and sets of layers; the model reads the best on continuations sampled for
this alone; the one with the largest expected fall whose price keeps the limit is taken. Protected
heads keep their columns. The change is written beside selection.json, whose `average` describes it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from levelhead import runs
from levelhead.config import AVERAGE, RunConfig
from levelhead.errors import SelectionError
from levelhead.evaluation.averaging import collect, kept_text
from levelhead.evaluation.base import base_axis, edited
from levelhead.models.average_edit import AverageEdit
from levelhead.models.averaging import ALL, Averager
from levelhead.models.surgery import Heads
from levelhead.progress import Progress
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable, bias_metric
from levelhead.selection.averages import Change, LayerShares, layer_sets, predicted_change
from levelhead.selection.budget import Candidate
from levelhead.selection.rules import protected_heads
from levelhead.session import Session
from levelhead.stages.joint import SetJudge
from levelhead.stages.run_session import first_kept
from levelhead.stages.searching import Tried, read_in_rounds, read_sets, with_search
from levelhead.stages.tables import scored_table

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""lambda: what matched positions count beside text."""
RANKS = (8, 64)
"""Directions of the readout that may change."""


@dataclass
class Averages:
    """What method average needs of a session, collected when first asked."""

    session: Session
    progress: Progress
    judge: SetJudge

    def averager(self, folder: RunFolder, config: RunConfig) -> Averager:
        """Of a run's own continuations on validation prompts: the first of every prompt."""
        bases = {}
        for axis in config.axis:
            problem = self.session.problem(axis, "validation")
            texts = first_kept(folder, problem)
            # Of the base's side only what it wrote and its token model are asked.
            bases[axis] = base_axis(replace(problem, samples=1), self.progress, texts, groups=1)
        reads, file = config.average_what != ALL, config.average_keep
        keep = {} if file is None else kept_text(self.session, file, self.progress)
        return collect(self.session, bases, self.progress, readout=reads, keep=keep)


@dataclass
class _Search:
    """Changes of one averager as candidates, and what the model makes of them."""

    table: ScoreTable
    config: RunConfig
    averager: Averager
    averages: Averages

    @property
    def axis(self) -> str:
        return self.config.axis[0]

    @cached_property
    def protected(self) -> Heads:
        """{layer: heads} that keep their columns."""
        held = protected_heads(self.table, self.config.gamma)
        return {
            layer: tuple(int(head) for head in np.flatnonzero(row))
            for layer, row in enumerate(held)
            if row.any()
        }

    @cached_property
    def edits(self) -> dict[str, AverageEdit]:
        """By digest: every strength, rank and set of layers."""
        width = len(self.averager.directions(self.averager.layers[0])) if self._reads else 0
        ranks: Sequence[int | None] = [None]
        if self._reads:
            ranks = [*(rank for rank in RANKS if rank < width), *([width] * (width <= RANKS[0]))]
        effects = [self.table.effect(bias_metric(axis)) for axis in self.config.axis]
        effect = np.mean(effects, axis=0)
        held = protected_heads(self.table, self.config.gamma)
        found: dict[str, AverageEdit] = {}
        with self.averages.progress("averaging: solving", len(ranks) * len(STRENGTHS)) as advance:
            for rank in ranks:
                for strength in STRENGTHS:
                    whole = self.averager.edit(
                        strength=strength, rank=rank, protected=self.protected
                    )
                    parts = [whole.only(layers) for layers in layer_sets(effect, held)]
                    found |= {edit.record["digest"]: edit for edit in parts}
                    advance(1)
        return found

    @property
    def _reads(self) -> bool:
        return self.config.average_what != ALL

    def candidates(self) -> list[Candidate]:
        """By rising predicted price."""
        shares = [LayerShares.of(self.table, axis) for axis in self.config.axis]
        found = [
            Candidate(
                selection=HeadSelection(
                    heads=(),
                    method=AVERAGE,
                    gamma=self.config.gamma,
                    average=edit.record,
                ),
                predicted=predicted_change(shares, Change.of(edit.record)),
            )
            for edit in self.edits.values()
        ]
        return sorted(found, key=lambda one: one.predicted.ppl_increase)

    def read(self, picked: Sequence[Candidate]) -> list[Tried]:
        """With the model."""
        model = self.averages.session.base.model
        variants = [edited(model, self.edit(one.selection)) for one in picked]
        return read_sets(picked, self.config.axis, partial(self.averages.judge, variants=variants))

    def edit(self, selection: HeadSelection) -> AverageEdit:
        """The change that a candidate's selection names."""
        return self.edits[(selection.average or {})["digest"]]


def averaged(
    folder: RunFolder, config: RunConfig, averages: Averages
) -> tuple[HeadSelection, AverageEdit]:
    """The change to make, and as selection.json is to have it, with `search` in its details.

    Where none keeps the limit: the cheapest, with `kept` False.

    Raises:
        SelectionError: no limit, or a table of other units than heads.
        PromptError: no matched groups, or one subgroup.
        ScoreTableError: the table lacks the axis.
    """
    if config.budget is None:
        raise SelectionError(f"method {AVERAGE} searches under a limit: give --max-ppl-increase")
    table = scored_table(folder)
    if table.unit != "head":
        raise SelectionError(
            f"method {AVERAGE} changes what attention heads write, and the scores are of "
            f"{table.unit}s: score heads (--unit head)"
        )
    search = _Search(table, config, averages.averager(folder, config), averages)
    found = search.candidates()
    taken, about = read_in_rounds(
        found, config.budget, config.finalists, search.read, family=_family
    )
    chosen = with_search(taken.selection, {"candidates": len(found)} | about)
    details = _details(chosen, search, folder, taken.predicted.predicted())
    chosen = replace(chosen, details=details, change=change_file(folder.path))
    return chosen, search.edit(chosen)


def _family(candidate: Candidate) -> Hashable:
    """Changes that differ in strength alone."""
    average = candidate.selection.average or {}
    return average["rank"], tuple(average["layers"])


def change_file(folder: Path) -> Path:
    """Where a run folder holds the change of a selection of method average."""
    return folder / runs.CHANGE


def _details(
    chosen: HeadSelection, search: _Search, folder: RunFolder, predicted: dict[str, Any]
) -> dict[str, Any]:
    """What selection.json says besides; no ranking of heads decides, so none can be noise."""
    axis = search.axis
    details = runs.read_json(folder.require(runs.DETAILS, f"score --out {folder.path}"))
    cost = {key: predicted[key] for key in ("kl", "perplexity_increase")}
    return {
        **(chosen.details or {}),
        "predicted": cost,
        "axis": axis,
        "reliable": True,
        "reliability": details["axes"][axis]["reliability"],
        "agreement": {},
        "warnings": list((chosen.average or {}).get("warnings", [])),
        "protected": [[layer, head] for layer, row in search.protected.items() for head in row],
    }
