"""All that the files of a run say, as the report takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from levelhead.records import HeadSelection
from levelhead.scores import ScoreTable

Json = Mapping[str, Any]

EXPERIMENTS = {
    "compare": "compare/compare.json",
    "axes": "axes.json",
    "agree": "agree.json",
    "interactions": "interactions.json",
    "transfer": "transfer.json",
    "examples": "examples.json",
    "reproduce": "reproduce.json",
}
"""The fields of `Findings` that experiments fill, and their files in a run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The stages' files, and those of experiments where they were made.

    What a mapping lacks is left out of the report. No mapping is changed.
    """

    table: ScoreTable
    """Scores of every head; effects it has no base column for are left out."""
    evaluation: Json = field(default_factory=dict)
    """evaluation.json (`records.Evaluation.to_json`); empty: nothing was evaluated."""
    selection: HeadSelection = field(default_factory=lambda: HeadSelection.of([]))
    """The pruned heads; its details may hold "axis", "protected" and "reliable"."""
    run: str = ""
    """The run folder as its user names it; empty: commands to copy are left out."""
    date: str = ""
    """When the evaluation was written, as a date; empty: not known."""
    config: Json = field(default_factory=dict)
    """config.json, the options of the run."""
    details: Json = field(default_factory=dict)
    """details.json of scoring."""
    compare: Json | None = None
    """compare/compare.json: methods at several shares of heads."""
    axes: Json | None = None
    """axes.json: correlations between axes, and what pruning for one does to others."""
    agree: Json | None = None
    """agree.json: whether several measures of bias choose the same heads."""
    interactions: Json | None = None
    """interactions.json: single effects added up, against the joint effect."""
    transfer: Json | None = None
    """transfer.json: the selected heads judged where they were not selected."""
    examples: Json | None = None
    """examples.json: continuations of base and pruned model side by side."""
    reproduce: Json | None = None
    """reproduce.json: the paper's figure for the model beside the one measured."""
    attempts: Sequence[Json] = ()
    """Other selections from the same scores, the run itself first (`attempts.results`)."""
    glance: Json | None = None
    """Statistics over all heads (`experiments.glance`)."""
