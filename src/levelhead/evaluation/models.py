"""Evaluate a pruned model on everything a run asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.modeling_utils import PreTrainedModel

from levelhead.errors import ModelError
from levelhead.evaluation.axis import evaluate_axis
from levelhead.evaluation.base import BaseAxis, base_axis, pruned_model
from levelhead.evaluation.own_text import own_texts
from levelhead.evaluation.prices import measured_prices, text_summary
from levelhead.evaluation.results import AxisEvaluation, Evaluation
from levelhead.evaluation.verdict import headline, judged, warnings_of
from levelhead.models.repair import repair_of
from levelhead.price import kept_budget, worst_price
from levelhead.progress import Progress
from levelhead.records import Continuation, HeadSelection
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.session import Session

EXAMPLES = 6
"""Pairs of continuations kept for the report."""


def evaluate_run(
    session: Session,
    pruned: PreTrainedModel,
    selection: HeadSelection,
    progress: Progress,
    *,
    error: float = 0.05,
    bases: dict[str, BaseAxis] | None = None,
) -> tuple[Evaluation, list[Continuation]]:
    """Base against pruned on every axis and on text; the continuations of both, for the record.

    error: of the verdicts of all axes together.
    bases: the base model's side by axis, as far as it is known; what is missing is put there.
    """
    bases = {} if bases is None else bases
    axes: dict[str, AxisEvaluation] = {}
    continuations: list[Continuation] = []
    examples: list[dict[str, str]] = []
    written: list[tuple[BiasProblem, SampledTexts]] = []
    for axis in session.evaluated_axes:
        problem = session.problem(axis, "test")
        if axis not in bases:
            bases[axis] = base_axis(problem, progress)
        base = bases[axis]
        written.append((problem, base.texts))
        axes[axis], fresh = evaluate_axis(base, pruned_model(pruned), progress)
        continuations += [*base.texts.records(problem), *fresh.records(problem, "pruned")]
        examples += _examples(problem, base.texts, fresh)[: EXAMPLES - len(examples)]
    chosen_for = str((selection.details or {}).get("axis"))
    main = chosen_for if chosen_for in axes else session.config.axis[0]
    axes = judged(axes, main, error)
    variant, own = pruned_model(pruned), own_texts(written)
    text, price = measured_prices(session, variant, own, progress)
    summary = text_summary(text, price[0], _predicted(selection, pruned))
    worst = worst_price({"price": price})
    if worst is None:
        raise ModelError("perplexity is infinite on every text; try --dtype float32")
    reliable = bool((selection.details or {}).get("reliable", True))
    limit = session.config.max_ppl_increase
    repair = repair_of(pruned)
    done = selection.done + (", with the rest repaired," if repair else "")
    parameters = {"base": _parameters(session.base.model), "pruned": _parameters(pruned)}
    return (
        Evaluation(
            axes=axes,
            perplexity=summary,
            price=tuple(price),
            parameters=parameters,
            bytes={"base": _bytes(session.base.model), "pruned": _bytes(pruned)},
            warnings=warnings_of(axes, worst, limit, reliable, main),
            headline=headline(main, axes[main], worst, reliable, done, limit),
            details={
                "budget": kept_budget({"price": price}, limit),
                "reliable": reliable,
                "model": session.model_name,
                "scorer": session.scorer.identity,
                "unit": selection.unit,
                **selection.chosen_json(),
                "toxicity_input": session.config.toxicity_input,
                "examples": examples,
                **({} if repair is None else {"repair": repair}),
            },
        ),
        continuations,
    )


def _predicted(selection: HeadSelection, pruned: PreTrainedModel) -> Mapping[str, Any] | None:
    """What the selection is predicted to cost; None of a repaired model: nothing predicts that."""
    return None if repair_of(pruned) else (selection.details or {}).get("predicted")


def _parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _bytes(model: PreTrainedModel) -> int:
    """Bytes of the weights in the number format they are loaded in; shared ones once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _examples(
    problem: BiasProblem, base: SampledTexts, fresh: SampledTexts
) -> list[dict[str, str]]:
    """The first continuation of one prompt per subgroup, as both models wrote it."""
    shown: dict[str, dict[str, str]] = {}
    for index, prompt in enumerate(base.prompt):
        record = problem.prompts[int(prompt)]
        shown.setdefault(
            record.subgroup,
            {"prompt": record.text, "base": base.texts[index], "pruned": fresh.texts[index]},
        )
    return list(shown.values())
