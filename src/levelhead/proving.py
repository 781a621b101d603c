"""What is selected is pruned, measured on held-out prompts and text, and reported.

A run that names no method makes two attempts under one limit, each an attempt of its own on the
same fresh texts: heads are removed (the run itself), and what differs between groups is averaged
out of what heads write (attempt 2).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from levelhead import runs
from levelhead.attempts import new_attempt, results
from levelhead.config import AVERAGE
from levelhead.errors import ModelError, PromptError, UnreliableScoresError
from levelhead.evaluation.averaging import check_averaging
from levelhead.evaluation.base import BaseAxis
from levelhead.journal import watch
from levelhead.pages import report
from levelhead.progress import Progress, Stages
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.search_result import nothing_found
from levelhead.session import Session
from levelhead.stages.averaging import Averages
from levelhead.stages.evaluating import evaluate_stage
from levelhead.stages.pruning import holds_pruned, prune_stage
from levelhead.stages.selecting import select_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A selection, and the run folder that it is kept in."""

    session: Session
    folder: RunFolder
    selection: HeadSelection
    number: int = 1

    @property
    def nothing(self) -> str:
        """Why there is nothing to prove; empty: there is."""
        return nothing_found(self.selection.details)


def second_attempt(first: Attempt, averages: Averages) -> Attempt | None:
    """Averaging under the limit of the first attempt; None where prompts or memory forbid it."""
    session = first.session
    try:
        check_averaging(session)
    except (PromptError, ModelError) as error:
        watch.event("one attempt", level="warning", message=f"averaging is not tried: {error}")
        return None
    number, folder = new_attempt(first.folder, replace(session.config, method=AVERAGE))
    other = copy.copy(session)  # the same inputs, loaded once
    other.config = folder.config
    with runs.working(folder.path, "run"):
        selection = select_stage(folder, other.config, averages=averages)
    return Attempt(session=other, folder=folder, selection=selection, number=number)


def proven(attempts: Sequence[Attempt], progress: Progress, stages: Stages) -> dict[str, Any]:
    """Prune what is selected, measure it, and report.

    Args:
        attempts: the run's own first.

    Returns:
        evaluation.json of the attempt that is recommended, else of the first that was measured;
        of another than the first with `attempt` (its number) and `folder`.

    Raises:
        UnreliableScoresError: nothing was found that reduces the measured gap.
    """
    good = [one for one in attempts if not one.nothing]
    first = attempts[0]
    if not good:
        for one in reversed(attempts):  # the run's own page shows the others
            page = report(one.folder.path)
        said = ". ".join(_capital(one.nothing) for one in attempts)
        path = first.folder.path
        raise UnreliableScoresError(
            f"{said}. No model is saved. What was tried: {page}. A larger --max-ppl-increase may "
            f"hold more; to have this set all the same: levelhead prune {path}, then "
            f"levelhead evaluate {path}"
        )
    bases: dict[str, BaseAxis] = {}
    found: dict[int, dict[str, Any]] = {}
    with ExitStack() as held:
        for one in attempts:
            held.enter_context(runs.working(one.folder.path, "run"))
        with stages("prune"):
            for one in good:
                if not holds_pruned(one.session, one.folder, one.selection):
                    prune_stage(one.session, one.folder, "compact", progress)
        with stages("evaluate"):
            for one in good:
                found[one.number] = evaluate_stage(one.session, one.folder, progress, bases)
        with stages("report"):
            for one in reversed(attempts):
                report(one.folder.path)
    best = results(first.folder.path)["recommended"] or {}
    taken = next((one for one in good if one.number == best.get("attempt")), good[0])
    evaluation = found[taken.number]
    if taken is first:
        return evaluation
    return evaluation | {"attempt": taken.number, "folder": str(taken.folder.path)}


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
