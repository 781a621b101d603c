"""What the steps of a run cost beside each other, so that one time left can be told for all.

A unit is one sampled token. The costs of the other steps were measured beside it (SmolLM2-135M, one
core of a CPU); how long a unit takes is what the run shows as it goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from levelhead.plan import Plan

ROUNDS = 2
"""Of scoring: most rankings are reliable after the second, where a second is allowed."""
_TEXT = (
    ("gradients (perplexity)", 4.2),
    ("ablating heads (perplexity)", 0.5),
    ("removing sets of heads", 0.35),
)
"""Title of a step, and its cost by token of perplexity text."""
_ROUND = (("sampling", 1.0), ("word toxicity", 0.15), ("reading", 0.5), ("gradients", 1.3))
"""By token sampled in a round of scoring."""
_BOTH, _OWN = "with both models", "the base model's own texts"
_SEARCH = (
    ("sampling the base model", 1.0),
    ("word toxicity", 0.15),
    ("reading", 0.7),
    ("reading with the base model", 0.25),
)
"""By token sampled to judge sets of heads."""
_AVERAGING = (("reading", 0.4), ("matched contexts", 1.3))
"""By token sampled to find what differs between groups."""
_EVALUATION = (
    ("sampling the base model", 1.1),
    *(("word toxicity", 0.05) for _ in range(3)),
    ("reading", 1.1),
    ("reading with the base model", 0.15),
    ("sampling the pruned model", 1.1),
    ("reading what it wrote", 0.7),
    ("reading with the pruned model", 0.07),
)
"""By token that one of the two models samples."""


@dataclass(frozen=True, slots=True)
class Step:
    """A task that is expected, by what its title holds, and its cost in units."""

    stage: str
    title: str
    cost: float
    maybe: bool = False
    """Whether the run may do without it."""


@dataclass(slots=True)
class Expected:
    """The steps that are still to come."""

    steps: list[Step] = field(default_factory=list)

    def begins(self, stage: str, title: str) -> Step | None:
        """Take the step that this task is off the list; None: nobody expected it."""
        for place, step in enumerate(self.steps):
            if step.stage == stage and step.title in title:
                before = [one for one in self.steps[:place] if not one.maybe]
                self.steps = before + self.steps[place + 1 :]
                return step
        return None

    def stage_ends(self, stage: str) -> None:
        """What it did not need is not to come any more."""
        self.steps = [step for step in self.steps if step.stage != stage]

    @property
    def cost(self) -> float:
        """Of all that is to come, in units."""
        return sum(step.cost for step in self.steps)


def expected_steps(plan: Plan) -> list[Step]:
    """The steps of a run, in order; those that only some estimators have are not among them."""
    return [*_scoring(plan), *_searching(plan), *_averaging(plan), *_evaluating(plan)]


def _scoring(plan: Plan) -> list[Step]:
    sampled = plan.scoring_tokens
    ablated = 0.0
    if plan.estimator == "ablate":  # every head is one more model that samples
        sampled = plan.scoring_tokens // (1 + plan.heads)
        ablated = plan.scoring_tokens - sampled
    each = sampled / len(plan.axes)
    steps = [Step("score", title, cost * plan.text_tokens) for title, cost in _TEXT]
    for _ in plan.axes:
        if ablated:
            steps.append(Step("score", "sampling", each))
            steps.append(Step("score", "ablating heads", ablated / len(plan.axes)))
            continue
        for again in range(ROUNDS if plan.more_tokens else 1):
            steps += [Step("score", title, cost * each, again > 0) for title, cost in _ROUND]
    return [*steps, Step("score", "mask gradients", 0.4 * plan.text_tokens)]


def _searching(plan: Plan) -> list[Step]:
    """Sets are read in two rounds, on every text; the second may find none to read."""
    sampled = plan.scoring_tokens / len(plan.axes)
    steps = []
    for again, sets in enumerate(((plan.sets_read + 1) // 2, plan.sets_read // 2)):
        if not sets:
            continue
        if not again:
            steps += [Step("select", title, cost * sampled) for title, cost in _SEARCH]
        each = 1.6 * (1 + sets)
        steps += [Step("select", _BOTH, each * t, again > 0) for t in _texts(plan, 1.0)]
        steps.append(Step("select", _OWN, 0.1 * sampled * sets, again > 0))
        steps += [Step("select", "reading with the pruned model", 0.25 * sampled, again > 0)] * sets
    return steps


def _averaging(plan: Plan) -> list[Step]:
    """Contexts and text are read once, a few changes on every text."""
    sampled, sets = plan.scoring_tokens / len(plan.axes), plan.changes_read
    if not sets:
        return []
    base = () if plan.sets_read else _SEARCH  # read before, where sets of heads were
    steps = [Step("select", title, cost * sampled) for title, cost in base]
    steps += [Step("select", title, cost * sampled) for title, cost in _AVERAGING]
    steps.append(Step("select", "averaging: reading text", 0.6 * sum(_texts(plan, 1.0))))
    each = 1.6 * (1 + sets)
    steps += [Step("select", _BOTH, each * t) for t in _texts(plan, 1.0)]
    steps.append(Step("select", _OWN, 0.1 * sampled * sets))
    return steps + [Step("select", "reading with the pruned model", 0.25 * sampled)] * sets


def _evaluating(plan: Plan) -> list[Step]:
    axes = len(plan.evaluated_axes)
    each = plan.evaluation_tokens / 2 / axes
    steps = [Step("evaluate", name, cost * each) for _ in range(axes) for name, cost in _EVALUATION]
    steps += [Step("evaluate", _BOTH, 3.4 * tokens) for tokens in _texts(plan, 0.5)]
    return [*steps, Step("evaluate", _OWN, 0.2 * each)]


def _texts(plan: Plan, share: float) -> list[float]:
    """Tokens of each text that both models read: of the run's own a share, and two further ones."""
    further = [plan.price_tokens / 2] * 2 if plan.price_tokens else []
    return [share * plan.text_tokens, *further]
