"""Method joint in a run folder: its frontier is written, and finalists are read with the model.

Predictions propose, measurements decide: the model reads, on freshly sampled continuations of
validation prompts, FASP's own set and a few sets of the frontier; the cheapest that keeps `KEPT`
of FASP's measured reduction is taken. Without a judge the predictions decide by the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from levelhead import runs
from levelhead.errors import SelectionError
from levelhead.evaluation.base import BaseAxis, Variant
from levelhead.evaluation.finalists import (
    JudgedSet,
    cheapest_that_keeps,
    judge_sets,
    largest_within,
    validation_base,
)
from levelhead.progress import Progress
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.selection.joint import KEPT, JointOptions, finalists
from levelhead.selection.set_objective import OBJECTIVES
from levelhead.session import Session

Json = dict[str, Any]
Judge = Callable[[Sequence[str], Sequence[HeadSelection]], list[JudgedSet]]
"""(axes, sets) -> what reading with each showed."""


def joint_options(
    method: str,
    axes: Sequence[str],
    weights: Sequence[float],
    objective: str,
    kl_weight: float | None,
    max_ppl_increase: float | None,
) -> JointOptions:
    """Options of method joint, which other methods do not have.

    Raises:
        SelectionError: an option of joint with another method, or a value out of range.
    """
    given = {
        "several --axis": len(axes) > 1,
        "--weights": bool(weights),
        "--objective": objective != "weighted",
        "--lambda": kl_weight is not None,
        "--max-ppl-increase": max_ppl_increase is not None,
    }
    if method != "joint" and any(given.values()):
        name = next(name for name, one in given.items() if one)
        raise SelectionError(f"{name} is for --method joint, not {method}")
    if objective not in OBJECTIVES:
        raise SelectionError(f"objective {objective!r}; choose from {', '.join(OBJECTIVES)}")
    for name, value in (("lambda", kl_weight), ("max-ppl-increase", max_ppl_increase)):
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise SelectionError(f"--{name} {value:g} is not a number from 0")
    return JointOptions(
        axes=tuple(axes),
        weights=tuple(weights),
        objective=objective,
        kl_weight=kl_weight,
        max_ppl_increase=max_ppl_increase,
    )


@dataclass
class SetJudge:
    """A judge that reads with a session's model; the base is sampled when first asked."""

    session: Session
    progress: Progress
    bases: dict[str, BaseAxis] = field(default_factory=dict)

    def __call__(
        self,
        axes: Sequence[str],
        sets: Sequence[HeadSelection],
        variants: Sequence[Variant] | None = None,
    ) -> list[JudgedSet]:
        """Read with each set.

        Args:
            variants: the models that they give; none: as the run prunes.
        """
        for axis in axes:
            if axis not in self.bases:
                self.bases[axis] = validation_base(self.session, axis, self.progress)
        bases = {axis: self.bases[axis] for axis in axes}
        return judge_sets(self.session, bases, sets, self.progress, variants=variants)


def judge_with(session: Session, progress: Progress) -> SetJudge:
    """A judge of a session's sets."""
    return SetJudge(session, progress)


def decided(
    folder: RunFolder,
    chosen: HeadSelection,
    axis: str,
    joint: JointOptions,
    judge: Judge | None,
    count: int,
) -> HeadSelection:
    """The selection without the frontier in its details; frontier.json is written.

    Args:
        chosen: by predictions, with the frontier in its details.
        judge: reads `count` finalists; none: `chosen` stays.
    """
    details = dict(chosen.details or {})
    found: Json = details.pop("frontier")
    shares = {"axis": axis, "gamma": chosen.gamma, "alpha": chosen.alpha}
    if judge is not None and count and joint.kl_weight is None:
        row = _judged(found, joint.axes or (axis,), joint, judge, count)
        details |= {"lambda": row["lambda"], "measured": row["measured"]}
        chosen = replace(chosen, heads=tuple(sorted(map(tuple, row["heads"]))))
    runs.write_json(folder.path / runs.FRONTIER, shares | found)
    return replace(chosen, details=details)


def _judged(
    found: Json, axes: Sequence[str], joint: JointOptions, judge: Judge, count: int
) -> Json:
    """The row of the frontier to take; FASP's row and all finalists gain `measured`."""
    weights = dict(zip(axes, joint.weights or [1.0] * len(axes), strict=True))

    def value(change: Mapping[str, float]) -> float:
        """The objective's change of bias: a weighted sum, or the axis that does worst."""
        if joint.objective == "weighted":
            return sum(weight * change[axis] for axis, weight in weights.items())
        base: Mapping[str, float] = found["base_bias"]
        return max(weight * change[axis] / base[axis] for axis, weight in weights.items())

    predicted = [row["predicted"] for row in (found["fasp"], *found["joint"])]
    plain, *values = [value(one["bias_change"]) for one in predicted]
    picked = finalists([one["kl"] for one in predicted[1:]], values, plain, count)
    rows = [found["fasp"], *(found["joint"][i] for i in picked)]
    sets = [HeadSelection.of([(layer, head) for layer, head in row["heads"]]) for row in rows]
    judged = judge(axes, sets)
    for row, one in zip(rows, judged, strict=True):
        row["measured"] = one.to_json()
    changes = [value({axis: e.value for axis, e in one.expected.items()}) for one in judged]
    if joint.max_ppl_increase is None:
        best = cheapest_that_keeps(judged[1:], changes[1:], -KEPT * changes[0])
    else:
        best = largest_within(judged[1:], changes[1:], math.log1p(joint.max_ppl_increase))
    taken: Json = rows[1 + best]
    return taken
