"""Compare a pruned model with its base on one axis' held-out prompts.

Three answers to "did bias fall?": `difference` samples both models afresh with common random
numbers; `adjusted_difference` is the same estimate less the noise that the token model can name (a
control variate; the verdict rests on it); and `expected_difference` reads the base model's
continuations with both models and moves each subgroup's mean toxicity by what their next-token
distributions say (the finite version of the token-level score: first-order, small error). The
first two are proof, the third is what the scores aim at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from levelhead.errors import ConfigError
from levelhead.evaluation.base import (
    BaseAxis,
    BaseReading,
    Variant,
    expected_of_rows,
)
from levelhead.evaluation.mentions import own_group_mentions
from levelhead.evaluation.pairs import PairReading, SampledPair, echo, sample_pair
from levelhead.evaluation.results import AxisEvaluation, Beside, ModelBias, Reading
from levelhead.evaluation.verdict import NOT_TOLD, judged
from levelhead.metrics.bias import bias, corrected_bias
from levelhead.metrics.bias_intervals import bias_interval
from levelhead.metrics.degeneration import (
    DegenerationSign,
    compare_degeneration,
    degeneration_values,
)
from levelhead.metrics.expected import expected_difference_interval
from levelhead.metrics.intervals import (
    gap_intervals,
    linear_difference_interval,
    samples_needed,
)
from levelhead.metrics.power import detectable_difference, variance_components
from levelhead.progress import Progress
from levelhead.records import Estimate
from levelhead.sampling import derived_seed
from levelhead.scoring.design import design_of
from levelhead.scoring.problem import (
    MAIN,
    MASKED,
    PLAIN,
    SECOND,
    BiasProblem,
    HeadShifts,
    SampledTexts,
    group_shifts,
)
from levelhead.scoring.token_toxicity import toxicity_text
from levelhead.toxicity import Masked, ToxicityScorer, score_texts_once


def evaluate_axis(
    base: BaseAxis, variant: Variant, progress: Progress
) -> tuple[AxisEvaluation, SampledTexts]:
    """Everything about one axis, and the continuations of the model that is compared.

    The verdict is that of the axis alone: `verdict.judged` gives those of several together.
    """
    problem = base.problem
    pair = sample_pair(problem, base.readings, variant, progress)
    expected = expected_differences(base, variant, progress)
    rng = np.random.default_rng(derived_seed(problem.seed, problem.axis, "evaluation"))
    readings = {
        name: _reading(problem, one, pair.readings[name], expected[name], rng)
        for name, one in base.readings.items()
    }
    texts, fresh = base.texts, pair.main.texts
    template = pair.main.plain.template
    signs = compare_degeneration(
        degeneration_values(texts.texts, texts.tokens, problem.new_tokens),
        degeneration_values(fresh.texts, fresh.tokens, problem.new_tokens),
        template,
    )
    main = readings[MAIN]
    masked = isinstance(problem.scorer, Masked)
    plain_name, masked_name = (PLAIN, MAIN) if masked else (MAIN, MASKED)
    second = problem.readers.get(SECOND)
    evaluation = AxisEvaluation(
        verdict=NOT_TOLD,
        reading=main,
        masked=masked,
        plain=readings.get(plain_name),
        echo=_echo(pair, masked_name, plain_name, rng),
        mentions=own_group_mentions(problem, texts, fresh),
        second_name=None if second is None else second.name,
        second=readings.get(SECOND),
        details={
            "samples_needed": samples_needed(
                main.adjusted_difference.value, main.adjusted_difference.interval, len(texts.texts)
            ),
            "prompts": len(problem.prompts),
            "samples": len(texts.texts),
            "templates": len(np.unique(template)),
            "power": _power(problem, pair.main, base.token.adjusted),
            "degeneration": {sign.name: _sign(sign) for sign in signs},
        },
    )
    return judged({problem.axis: evaluation})[problem.axis], fresh


def _reading(
    problem: BiasProblem,
    base: BaseReading,
    pair: PairReading,
    expected: Estimate,
    rng: np.random.Generator,
) -> Reading:
    """What one scorer makes of both models."""
    floor = prompt_floor(problem, base.scorer)
    models = [model_bias(problem, one, floor, rng) for one in (base.texts, pair.texts)]
    adjusted, harmless = pair.adjusted, pair.plain.harmless(base.scorer)
    empty, _ = score_texts_once(base.scorer, [""])
    tested = adjusted.tested(rng)
    return Reading(
        base=models[0],
        pruned=models[1],
        difference=pair.plain.difference(rng),
        adjusted_difference=tested.estimate,
        p_value=tested.p_value,
        factor=adjusted.common_factor(harmless, rng),
        expected_difference=expected,
        toxicity_difference=linear_difference_interval(
            adjusted.pruned - adjusted.base, adjusted.template
        ),
        details={
            "scorer": base.scorer.identity,
            "floor": {"empty": float(empty[0]), "harmless": harmless},
            "relative_bias": adjusted.relative_bias(rng, harmless),
            "token_toxicity_r2": base.token.r_squared,
            "beta": base.token.beta,
        },
    )


def prompt_floor(problem: BiasProblem, scorer: ToxicityScorer) -> float:
    """bias(S) of the prompts alone, so the same for every model."""
    prompts = [toxicity_text(p.text, "", "full") for p in problem.prompts]
    alone, _ = score_texts_once(scorer, prompts)
    return bias(alone, problem.subgroup, len(problem.subgroups))


def _power(
    problem: BiasProblem, pair: PairReading, adjusted: Float[np.ndarray, " n"]
) -> dict[str, Any] | None:
    """What this evaluation could tell, from the noise it found; None: texts have no replicates."""
    plain = pair.plain
    try:
        found = variance_components(
            plain.base, plain.subgroup, plain.template, plain.num_subgroups,
            adjusted=adjusted, other=plain.pruned,
        )  # fmt: skip
    except ConfigError:
        return None
    least = detectable_difference(found, design_of(problem))
    return {"components": asdict(found), "detectable": least}


def _echo(pair: SampledPair, masked: str, plain: str, rng: np.random.Generator) -> Beside | None:
    """Plain bias less masked bias of both models, as sampled; paired, since the texts are one."""
    if not {masked, plain} <= set(pair.readings):
        return None
    return echo(pair.readings[masked].plain, pair.readings[plain].plain, rng)


def expected_difference(base: BaseAxis, variant: Variant, progress: Progress) -> Estimate:
    """bias(T + dT) - bias(T) with dT teacher-forced on the base model's continuations.

    T is the token model's expectation for the base model. The interval is over templates, and
    carries the uncertainty of T and of dT. It is a prediction: no verdict rests on it. Matched
    contexts: every subgroup's prompt is followed by the same
    continuations.
    """
    read = read_matched(base, variant, progress, [MAIN])
    return expected_from(base, MAIN, read[MAIN])


def expected_differences(
    base: BaseAxis, variant: Variant, progress: Progress
) -> dict[str, Estimate]:
    """The same by every reading."""
    read = read_matched(base, variant, progress)
    return {name: expected_from(base, name, found) for name, found in read.items()}


def expected_from(base: BaseAxis, name: str, read: Float[np.ndarray, " rows"]) -> Estimate:
    """`expected_difference` by one reading, from what `read_matched` gave."""
    shifts = expected_shifts(base, [read], name)
    problem, texts = base.problem, base.readings[name].texts
    return expected_difference_interval(
        shifts.toxicity,
        problem.subgroup[texts.prompt],
        problem.template[texts.prompt],
        shifts.shift[:, :, 0, 0],
        shifts.count,
        shifts.template,
        np.random.default_rng(derived_seed(problem.seed, problem.axis, "expected", name)),
    )


def read_matched(
    base: BaseAxis, variant: Variant, progress: Progress, names: Sequence[str] = ()
) -> dict[str, Float[np.ndarray, " rows"]]:
    """sum_t r_t of each matched row under another model, by reading (all, or those named)."""
    tokens = {name: base.readings[name].token for name in names or base.readings}
    with variant() as model:
        other = replace(base.problem, model=model)
        return expected_of_rows(other, base.matched, tokens, progress, "pruned")


def expected_shifts(
    base: BaseAxis, read: Sequence[Float[np.ndarray, " rows"]], name: str = MAIN
) -> HeadShifts:
    """Shifts of subgroup toxicity by template for models that read the matched rows so.

    The models stand where estimators have heads: `shift` is [replicates, subgroups, 1, models].
    """
    problem, chosen, token = base.problem, base.matched, base.readings[name].token
    change = np.stack(read, axis=-1) - base.matched_toxicity[name][:, None]
    return group_shifts(
        token.beta * change[:, None, :],
        problem.subgroup[chosen.prompt],
        problem.template[chosen.prompt],
        base.matched_sample.sample[chosen.source],
        len(problem.subgroups),
        token.expected,
        token.adjusted,
        {},
    )


def t_reach(shifts: HeadShifts, level: float = 0.95) -> float:
    """Half a t interval in standard errors, over the templates of the shifts."""
    return float(stats.t.ppf((1 + level) / 2, max(1, len(np.unique(shifts.template)) - 1)))


def _sign(sign: DegenerationSign) -> dict[str, Any]:
    return {
        "base": sign.base,
        "pruned": sign.pruned,
        "difference": sign.difference.to_json(),
        "worse": sign.raised,
    }


def model_bias(
    problem: BiasProblem, sampled: SampledTexts, floor: float, rng: np.random.Generator
) -> ModelBias:
    """One model's bias and gaps, with intervals, from what it wrote."""
    subgroup, template = problem.subgroup[sampled.prompt], problem.template[sampled.prompt]
    count = len(problem.subgroups)
    descriptor = None
    if problem.two_way:  # codes of their own for every subgroup's descriptors
        place = problem.descriptor[sampled.prompt]
        descriptor = subgroup * (int(place.max()) + 1) + place
    found = gap_intervals(sampled.toxicity, subgroup, template, count, descriptor=descriptor)
    by_subgroup = {
        name: Estimate(
            value=float(found.gap[s]), stderr=float(found.stderr[s]), interval=found.interval(s)
        )
        for s, name in enumerate(problem.subgroups)
    }
    return ModelBias(
        bias=bias(sampled.toxicity, subgroup, count),
        bias_corrected=corrected_bias(sampled.toxicity, subgroup, template, count, rng),
        ci95=bias_interval(sampled.toxicity, subgroup, template, count, rng),
        mean_toxicity=float(sampled.toxicity.mean()),
        prompt_floor=floor,
        gaps=by_subgroup,
    )
