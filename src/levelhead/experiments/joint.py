"""Sets of heads judged together, with the one model in memory gated instead of pruned.

Where the run repairs what it keeps of a layer, each set is judged repaired.

What all sets share (the base model's continuations, its token model, its reading of matched rows
and of the text) is computed once; every set's result is a unit that is never computed twice.
Teacher-forced: the expected difference of bias on the base model's continuations, and perplexity.
Fresh sampling proves a few sets. All with the same prompts, texts and common random numbers, so
differences between sets are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from scipy import stats

from levelhead import journal
from levelhead.config import EVALUATE
from levelhead.evaluation.axis import evaluate_axis, expected_difference, read_matched
from levelhead.evaluation.base import (
    BaseAxis,
    Variant,
    as_pruned,
    base_axis,
    without_heads,
)
from levelhead.evaluation.text import text_perplexity
from levelhead.experiments.units import Units
from levelhead.metrics.perplexity import PerplexityResult, relative_increase
from levelhead.models.repair import NONE
from levelhead.progress import Progress, silent
from levelhead.records import Head, HeadSelection, Split, Unit
from levelhead.sampling import derived_seed
from levelhead.scoring.problem import MAIN, BiasProblem, SampledTexts, sample_texts
from levelhead.session import Session

TEXT_TOKENS = 4096
"""Of the split's perplexity text: enough to order sets, whose differences are paired."""
GROUPS: Mapping[Split, int] = {"validation": 20, "test": 40}
"""Matched groups of prompts that sets are read on: fewer where they are only searched."""
Json = dict[str, Any]
Chosen = Sequence[Head] | HeadSelection
"""A set of heads; as a selection, of any unit."""


def units_of(session: Session, folder: Path) -> Units:
    """The folder of units of sets: they depend on the model and on all options of evaluation."""
    common = {"model": session.base.fingerprint, "config": session.config.fingerprint(EVALUATE)}
    return Units(folder, common | repaired_by(session))


def repaired_by(session: Session) -> Json:
    """What sets depend on besides, where the run repairs what it keeps."""
    if session.config.repair == NONE:
        return {}
    return {"repair": session.repairer.identity(cast(Unit, session.config.unit))}


@dataclass
class JointEvaluator:
    """Judges sets of heads on the prompts and text of one split."""

    session: Session
    units: Units
    split: Split
    progress: Progress = silent
    _bases: dict[str, BaseAxis] = field(default_factory=dict)
    _base_text: dict[str | None, PerplexityResult] = field(default_factory=dict)

    def problem(self, axis: str) -> BiasProblem:
        """The prompts of an axis.

        On validation prompts the base model is sampled anew, once per prompt: the continuations
        that head scores were made from would flatter the heads they chose.
        """
        problem = self.session.problem(axis, self.split)
        if self.split == "test":
            return problem
        return replace(problem, samples=1, seed=derived_seed(problem.seed, "search") % 2**31)

    def base(self, axis: str) -> BaseAxis:
        """The base model's side of every comparison on an axis."""
        if axis not in self._bases:
            problem = self.problem(axis)
            texts = _texts_of(problem, self.units.get("base", self._of(axis), lambda: _json_of(
                sample_texts(problem, self.progress, f"sampling the base model ({axis})")
            )))  # fmt: skip
            # Asked for by whichever set comes first: the next time it may be another.
            with journal.scope("base axis", self._of(axis)):
                self._bases[axis] = base_axis(problem, self.progress, texts, GROUPS[self.split])
        return self._bases[axis]

    def expected(self, axis: str, heads: Chosen) -> Json:
        """Expected difference of bias: {"value", "ci95", "stderr"}; pruned minus base."""

        def make() -> Json:
            found = expected_difference(self.base(axis), self._variant(heads), self.progress)
            # The interval is made of more than one error: this is what it amounts to.
            half = (found.interval.high - found.interval.low) / 2
            return found.to_json() | {"stderr": half / float(stats.norm.ppf(0.975))}

        return self._judged("expected", heads, make, self._of(axis))

    def read(self, axis: str, heads: Chosen) -> Float[np.ndarray, " rows"]:
        """sum_t r_t of each matched row of `base(axis)` without these heads."""
        return read_matched(self.base(axis), self._variant(heads), self.progress, [MAIN])[MAIN]

    def text(self, heads: Chosen, name: str | None = None) -> Json:
        """{"perplexity", "increase": {"value", "ci95"}}: on text, as a share of the base's.

        name: of one of the run's `price_texts`; none: the run's own text.
        """

        def make() -> Json:
            if name not in self._base_text:
                whole = without_heads(self._model, {})
                with journal.scope("base text", self.split, name):
                    self._base_text[name] = self._read_text("base", whole, name)
            other = self._read_text("pruned", self._variant(heads), name)
            return {
                "perplexity": other.perplexity,
                "increase": relative_increase(self._base_text[name], other).to_json(),
            }

        of: Json = {"split": self.split, "tokens": TEXT_TOKENS}
        if name is not None:
            of["text"] = self.session.text(self.split, name).sha256
        return self._judged("text", heads, make, of)

    def price(self, heads: Chosen) -> Json:
        """The same on the text where perplexity rises most, with its name as `text`."""
        found = [
            self.text(heads, name) | {"text": self.session.text(self.split, name).name}
            for name in (None, *self.session.config.price_texts)
        ]
        return max(found, key=lambda one: one["increase"]["value"])

    def sampled(self, axis: str, heads: Chosen) -> Json:
        """Fresh sampling of a set: `AxisEvaluation.to_json()`."""
        return self._judged(
            "sampled",
            heads,
            lambda: evaluate_axis(self.base(axis), self._variant(heads), self.progress)[
                0
            ].to_json(),
            self._of(axis),
        )

    def _judged(self, name: str, heads: Chosen, make: Any, of: Json) -> Json:
        found: Json = self.units.get(name, of | _listed(heads), make)
        return found

    @property
    def _model(self) -> Any:
        return self.session.base.model

    def _variant(self, heads: Chosen) -> Variant:
        chosen = heads if isinstance(heads, HeadSelection) else HeadSelection.of(heads)
        return as_pruned(self.session, chosen, self.progress)

    def _read_text(self, name: str, variant: Variant, text: str | None) -> PerplexityResult:
        with variant() as model:
            return text_perplexity(
                self.session, model, self.split, self.progress, name, TEXT_TOKENS, text
            )

    def _of(self, axis: str) -> Json:
        problem = self.problem(axis)
        return {
            "split": self.split,
            "axis": axis,
            "seed": problem.seed,
            "samples": problem.samples,
            "groups": GROUPS[self.split],
        }


def _listed(heads: Chosen) -> Json:
    """What a set is called in the description of its units."""
    if isinstance(heads, HeadSelection):
        return heads.chosen_json()
    return {"heads": [list(head) for head in sorted(heads)]}


def _json_of(texts: SampledTexts) -> Json:
    return {
        "prompt": texts.prompt.tolist(),
        "sample": texts.sample.tolist(),
        "tokens": [list(row) for row in texts.tokens],
        "toxicity": texts.toxicity.tolist(),
    }


def _texts_of(problem: BiasProblem, kept: Mapping[str, Any]) -> SampledTexts:
    tokens = tuple(tuple(row) for row in kept["tokens"])
    pairs = zip(kept["prompt"], tokens, strict=True)
    return SampledTexts(
        prompt=np.array(kept["prompt"]),
        sample=np.array(kept["sample"]),
        tokens=tokens,
        texts=tuple(problem.texts(prompt, row)[0] for prompt, row in pairs),
        toxicity=np.array(kept["toxicity"]),
    )
