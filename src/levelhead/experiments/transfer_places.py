"""Where a selection is judged that was made elsewhere: prompts, axes and scorers, loaded and ready.

    scoring templates      what the heads were chosen on, with fresh continuations
    held-out templates     the run's test prompts
    another axis           test prompts of it
    other prompts          a benchmark's or the user's, without descriptors that were scored on
    another scorer         the same continuations of the held-out templates, scored anew

It loads and samples; it judges nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from levelhead import journal
from levelhead.config import EVALUATE
from levelhead.data.identity_terms import terms_of_prompts
from levelhead.data.prompts import load_prompts
from levelhead.errors import PromptError
from levelhead.evaluation.base import BaseAxis, base_axis
from levelhead.experiments.joint import GROUPS, JointEvaluator, repaired_by
from levelhead.experiments.units import Units
from levelhead.journal.digests import digest
from levelhead.progress import Progress
from levelhead.records import Prompt, Split
from levelhead.session import Session

SCORED, HELD_OUT = "scoring templates", "held-out templates"
OTHER_AXIS, OTHER_PROMPTS, OTHER_SCORER = "another axis", "other prompts", "another scorer"
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One of them, and the judge of sets there."""

    where: str
    axis: str
    prompts: str
    scorer: str
    new_descriptors: bool | None
    """Whether no descriptor was scored on; None where they are the run's own."""
    judge: JointEvaluator

    @property
    def about(self) -> dict[str, Any]:
        """The first fields of its rows."""
        return {
            "where": self.where,
            "axis": self.axis,
            "prompts": self.prompts,
            "scorer": self.scorer,
            "new_descriptors": self.new_descriptors,
            "num_prompts": len(self.judge.problem(self.axis).prompts),
        }

    @property
    def identity(self) -> str:
        """A digest of all that is asked and measured there."""
        prompts = self.judge.problem(self.axis).prompts
        return digest(self.where, self.judge.session.scorer.identity, *prompts)


@dataclass
class Rescored(JointEvaluator):
    """Another scorer's opinion of the continuations that another judge has sampled."""

    source: JointEvaluator | None = None
    _rescored: dict[str, BaseAxis] = field(default_factory=dict)

    def base(self, axis: str) -> BaseAxis:
        """The other judge's continuations, scored anew."""
        if self.source is None:
            return super().base(axis)
        if axis not in self._rescored:
            problem, texts = self.problem(axis), self.source.base(axis).texts
            # Asked for by whichever set comes first: the next time it may be another.
            with journal.scope("rescored axis", self._of(axis), problem.scorer.identity):
                scored = texts.read_by(problem.scorer, problem)
                self._rescored[axis] = base_axis(problem, self.progress, scored, GROUPS[self.split])
        return self._rescored[axis]


def places(
    session: Session,
    folder: Path,
    axis: str,
    *,
    sources: Sequence[str],
    scorers: Sequence[str],
    axes: Sequence[str],
    progress: Progress,
) -> list[Place]:
    """Every place to judge at, those of the run itself first; inputs are checked, none sampled.

    Args:
        session: of the run, with all axes that are asked for.
        folder: where finished units are kept.
        axis: the one that heads were chosen for.
        sources: other prompts, as for `--prompts`.
        scorers: other scorers, by name.
        axes: other axes of the run's prompts.

    Raises:
        PromptError, ScorerError: a source, axis or scorer that there is not.
    """

    def judge(of: Session, split: Split, kind: Any = JointEvaluator, **more: Any) -> Any:
        return kind(session=of, units=_units(of, folder), split=split, progress=progress, **more)

    shown, name = _shown(session.config.prompts), str(session.config.toxicity)

    def place(where: str, at: str, judge: JointEvaluator, **other: Any) -> Place:
        about = {"prompts": shown, "scorer": name, "new_descriptors": None} | other
        return Place(where=where, axis=at, judge=judge, **about)

    own = judge(session, "test")
    found = [place(SCORED, axis, judge(session, "validation")), place(HELD_OUT, axis, own)]
    found += [place(OTHER_AXIS, other, own) for other in axes]
    for source in sources:
        for other in _axes_of(source, axis):
            elsewhere, new = _elsewhere(session, source, axis, other)
            found.append(
                place(
                    OTHER_PROMPTS, other, judge(elsewhere, "test"),
                    prompts=_shown(source), new_descriptors=new,
                )
            )  # fmt: skip
    for scorer in scorers:
        again = _sharing(session, replace(session.config, toxicity=scorer))
        again.prompts = session.prompts
        _ = again.scorer
        rescored = judge(again, "test", Rescored, source=own)
        found.append(place(OTHER_SCORER, axis, rescored, scorer=scorer))
    for one in found:
        one.judge.problem(one.axis)
    return found


def _sharing(session: Session, config: Any) -> Session:
    """A session with other options and the same model in memory."""
    other = Session(config, fitted_as=session.fitted_as or session)
    other.base = session.base
    return other


def _axes_of(source: str, axis: str) -> list[str]:
    """The axis itself where a source has it, else all that it has."""
    if source == "builtin" or source.partition(":")[0] == "holistic-bias":
        return [axis]
    known = list(dict.fromkeys(prompt.axis for prompt in load_prompts(source)))
    return [axis] if axis in known else known


def _elsewhere(session: Session, source: str, scored: str, axis: str) -> tuple[Session, bool]:
    """Other prompts, without descriptors that heads were scored on; whether any were left."""
    other = _sharing(session, replace(session.config, prompts=source, axis=(axis,), all_axes=False))
    prompts = load_prompts(source, [axis])
    known = _descriptors(session.chosen_prompts(scored, "validation"))
    fresh = [prompt for prompt in prompts if _plain(prompt.descriptor) not in known]
    other.prompts = fresh
    try:
        other.problem(axis, "test")
        return other, True
    except PromptError:  # too few without them
        other.prompts = prompts
        return other, False


def _descriptors(prompts: Sequence[Prompt]) -> set[str]:
    """Descriptors, and the words by which prompts name subgroups."""
    terms = terms_of_prompts(prompts).by_group.values()
    return {_plain(p.descriptor) for p in prompts} | {_plain(t) for own in terms for t in own}


def _plain(descriptor: str) -> str:
    return _ARTICLE.sub("", descriptor.strip()).casefold()


def _units(session: Session, folder: Path) -> Units:
    """Units depend on the model, on all options of evaluation, and on the very prompts."""
    rows = sorted([p.id, p.text, p.subgroup, p.template] for p in session.prompts)
    return Units(
        folder,
        {
            "model": session.base.fingerprint,
            "config": session.config.fingerprint(EVALUATE),
            "scorer": session.scorer.identity,
            "prompts": hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16],
        }
        | repaired_by(session),
    )


def _shown(source: str) -> str:
    """Names of sources as they are; of files and folders only the last part."""
    name, _, folder = source.partition(":")
    if name == "holistic-bias":
        return name
    return Path(folder or source).name
