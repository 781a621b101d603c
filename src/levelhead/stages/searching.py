"""The search under a budget: predictions propose sets, the model judges them on validation data.

Sets are read in two rounds: the first shows how much dearer they are than predicted, the second
reads those that keep the budget at that rate. The set with the largest expected reduction of bias
whose perplexity keeps the budget on the worst text is taken; what it does to freshly sampled text
of test prompts, evaluation says. Bias is judged on continuations sampled for this search alone:
those that head scores were made from flatter the heads they chose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

from levelhead.errors import SelectionError
from levelhead.evaluation.finalists import JudgedSet
from levelhead.records import Estimate, HeadSelection, Interval
from levelhead.scores import ScoreTable
from levelhead.search_result import nothing_found
from levelhead.selection.budget import (
    Candidate,
    Family,
    best_predicted,
    candidates,
    method_of,
    no_set_keeps,
    softened,
    worth_reading,
)
from levelhead.selection.joint import JointOptions
from levelhead.stages.joint import Judge

SURE = 0.8
"""Level of the interval of the price whose upper end must keep the budget: nine in ten do."""
USUALLY = 2.0
"""What sets cost as a multiple of what is predicted, before any was read; 1.3 to 4.6 were seen."""
MORE = 3
"""Further sets to read, one by one, where none of the first keeps the limit."""
TOO_SMALL = 0.001
"""Predicted prices below it say nothing of how far predictions are off."""
RATES = (0.5, 10.0)
"""Limits of what is made of that: a first set may be an odd one."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A candidate as the model judges it."""

    candidate: Candidate
    expected: Estimate
    """Of bias on validation prompts, pruned minus base."""
    text: str
    """The validation text on which perplexity rises most, as far as it can be told."""
    increase: Estimate
    """Of perplexity on that text, as a share, with its 95% interval."""
    most: float
    """What it rises by at most there, as far as the text can tell (`SURE`)."""
    kl: Estimate
    """Of the model after this set, on that text."""

    def to_json(self) -> Json:
        """A row of selection.json's `search.judged`."""
        selection, predicted = self.candidate.selection, self.candidate.predicted
        return {
            "method": selection.method,
            "gamma": selection.gamma,
            "alpha": selection.alpha,
            **_chosen(selection),
            "predicted": predicted.predicted(),
            "expected_difference": self.expected.to_json(),
            "perplexity_increase": self.increase.to_json(),
            "text": self.text,
            "at_most": self.most,
            "kl": self.kl.to_json(),
        }


def searched(
    table: ScoreTable,
    axis: str,
    budget: float,
    joint: JointOptions,
    judge: Judge | None = None,
    count: int = 0,
    soft: bool = False,
) -> HeadSelection:
    """The set to take within a budget, with `search` in its details.

    Where the judge finds that none keeps it: the cheapest, with `kept` False.

    Args:
        budget: share by which perplexity may rise.
        judge: reads `count` sets; none, or count 0: predictions decide.
        soft: the second half of the sets are gates from 0 to 1; without a judge, the set is.

    Raises:
        SelectionError: no set keeps the budget by predictions, or there is none of a head at all.
        ScoreTableError: the table lacks the axis, its gaps or the cost model.
    """
    check_searchable(joint)
    found = candidates(table, axis, budget, joint)
    if not found:
        raise no_set_keeps(budget)
    about: Json = {"candidates": len(found)}
    if judge is None or not count:
        best, more = read_in_rounds(found, budget, 0, lambda _: [])
        best = softened(table, best, axis, joint) if soft else best
        return with_search(best.selection, about | more)

    def in_its_place(one: Candidate) -> Candidate:
        return softened(table, one, axis, joint) if soft else one

    read = partial(read_sets, axes=[axis], judge=judge)
    taken, more = read_in_rounds(found, budget, count, read, then=in_its_place)
    return with_search(taken.selection, about | more)


def read_in_rounds(
    found: Sequence[Candidate],
    budget: float,
    count: int,
    read: Callable[[Sequence[Candidate]], list[Tried]],
    *,
    family: Family = method_of,
    then: Callable[[Candidate], Candidate] = lambda one: one,
) -> tuple[Candidate, Json]:
    """The candidate to take, and what selection.json's `search` says of it.

    Args:
        found: by rising predicted price; at least one.
        count: how many are read, at least; 0: predictions decide.
        read: with the model.
        family: of each, the first round reads the best.
        then: what of the second round's candidates is read in their place.
    """
    about: Json = {"budget": budget}
    if not count:
        return best_predicted(found, budget), about | {"on": "predictions", "judged": []}
    first = worth_reading(found, budget, (count + 1) // 2, dearer=USUALLY, family=family)
    tried = read(first)
    dearer = _dearer(tried)
    second = worth_reading(found, budget, count - len(first), dearer=dearer, read=first)
    second = [then(one) for one in second]
    tried += read(second)
    seen, reach = [*first, *second], budget
    for _ in range(MORE):  # a set within the limit, if there is one: else nothing could be said
        if any(one.most <= budget for one in tried):
            break
        dearer, reach = max(dearer, _dearer(tried)), reach / 3
        third = worth_reading(found, reach, 1, dearer=dearer, read=seen)
        tried, seen = [*tried, *read(third)], [*seen, *third]
    about["dearer"] = dearer
    about |= {"on": "validation", "judged": [one.to_json() for one in tried]}
    best_tried = best_within(tried, budget)
    taken = best_tried or min(tried, key=lambda one: one.most)
    about["chosen"] = next(i for i, one in enumerate(tried) if one is taken)
    about["kept"] = best_tried is not None
    about["measurable"] = best_tried is not None and best_tried.expected.interval.high < 0
    return taken.candidate, about


def check_searchable(joint: JointOptions) -> None:
    """Raise SelectionError for options of method joint that a search does not have."""
    several = len(joint.axes) > 1 or joint.weights or joint.objective != "weighted"
    if several or joint.kl_weight is not None or joint.max_ppl_increase is not None:
        raise SelectionError(
            "--budget searches for one axis by itself: leave out further --axis, --weights, "
            "--objective, --lambda and --max-ppl-increase, or name --method joint without --budget"
        )


def best_within(tried: Sequence[Tried], limit: float) -> Tried | None:
    """The largest expected fall of bias of those whose price surely keeps the limit."""
    fits = [one for one in tried if one.most <= limit]
    return min(fits, key=lambda one: one.expected.value, default=None)


def refuse_over_limit(selection: HeadSelection) -> None:
    """Raise SelectionError for the result of a search in which no set kept the limit."""
    search = (selection.details or {}).get("search", {})
    if search.get("kept") is False:
        raise SelectionError(
            f"{nothing_found(selection.details)}: give a larger --max-ppl-increase, or --gamma and "
            "--alpha for a set of your own choice"
        )


def read_sets(picked: Sequence[Candidate], axes: Sequence[str], judge: Judge) -> list[Tried]:
    """Candidates as a judge reads them."""
    if not picked:
        return []
    judged = judge(axes, [one.selection for one in picked])
    return [tried_of(one, axes, found) for one, found in zip(picked, judged, strict=True)]


def tried_of(candidate: Candidate, axes: Sequence[str], judged: JudgedSet) -> Tried:
    """What the model's reading says of a candidate: its bias, and its price on the worst text.

    Of several axes: the sum of their changes, whose errors are those of different texts.
    """
    most = {name: one.increase_at(SURE).interval.high for name, one in judged.texts.items()}
    worst = max(most, key=lambda name: most[name])
    text = judged.texts[worst]
    return Tried(
        candidate=candidate,
        expected=_total([judged.expected[axis] for axis in axes]),
        text=worst,
        increase=text.increase,
        most=most[worst],
        kl=text.kl,
    )


def _chosen(selection: HeadSelection) -> Json:
    """What a candidate removes or changes, small."""
    if selection.average is None:
        heads = [list(head) for head in selection.heads]
        return {"heads": heads, "soft": selection.gates is not None}
    return selection.chosen_json()


def _total(parts: Sequence[Estimate]) -> Estimate:
    """The sum of independent estimates, with its interval; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    value = sum(one.value for one in parts)
    below = math.hypot(*(one.value - one.interval.low for one in parts))
    above = math.hypot(*(one.interval.high - one.value for one in parts))
    return Estimate(value=value, interval=Interval(value - below, value + above))


def _dearer(tried: Sequence[Tried]) -> float:
    """What sets may cost as a multiple of what was predicted of them; 1 where none can tell."""
    ratios = [
        one.most / predicted
        for one in tried
        if (predicted := one.candidate.predicted.ppl_increase) > TOO_SMALL
    ]
    low, high = RATES
    return min(max(median(ratios), low), high) if ratios else 1.0


def with_search(selection: HeadSelection, search: Json) -> HeadSelection:
    """The selection with `search` in its details."""
    return replace(selection, details={**(selection.details or {}), "search": search})
