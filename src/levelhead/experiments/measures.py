"""Measures of bias by name, and what each says of every head on one set of texts.

A measure is the name of a toxicity scorer, composites included (token-level gradient with that
scorer), or "likelihood", which needs no classifier. All are asked about the same continuations,
with halves and resampled templates made alike, so that two of them can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from levelhead.errors import ConfigError, MissingExtraError, PromptError, ScorerError
from levelhead.experiments.packed import packed
from levelhead.metrics.bias import bias
from levelhead.metrics.bias_intervals import bias_interval
from levelhead.progress import Progress, silent
from levelhead.records import Prompt
from levelhead.sampling import derived_seed
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.likelihood import check_matched, likelihood
from levelhead.scoring.matched_rows import SOURCES, matched_rows
from levelhead.scoring.problem import BiasProblem, EstimatorOptions, SampledTexts
from levelhead.scoring.rounds import estimate
from levelhead.scoring.score_table import MIN_R_SQUARED
from levelhead.scoring.template_bootstrap import resampled_effects, template_draws
from levelhead.scoring.token_gradient import gate_derivatives, token_gradient
from levelhead.scoring.token_model import CONTEXTS, CONTEXTS_EACH, MASS_ROWS
from levelhead.scoring.token_toxicity import MAX_CALLS, word_tokens
from levelhead.session import MASKED_PREFIX, Session
from levelhead.toxicity import ToxicityScorer, score_texts
from levelhead.toxicity.composites import THRESHOLD

LIKELIHOOD = "likelihood"
OTHERS = ("toxicityclassifier", "profanity-check", "sentiment")
"""Scorers compared by default where their extras are installed."""
OVER_PREFIX = f"over-{THRESHOLD}:"
DRAWS = 200
"""Bootstrap draws of templates."""
PROBED_TEXTS = {"cheap": 400, "expensive": 4}
FORWARD_SHARE = 1 / 3
"""Of the time of a gradient: reading a text without one."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A measure of bias: a scorer with its name, or likelihood."""

    name: str
    scorer: ToxicityScorer | None
    """None: likelihood."""

    @property
    def identity(self) -> str:
        """Changes whenever what it measures does."""
        return LIKELIHOOD if self.scorer is None else self.scorer.identity


def load_measures(
    session: Session, names: Sequence[str], prompts: Sequence[Prompt]
) -> list[Measure]:
    """The measures of these names; none given: the run's own scorer, its forms, and others.

    A name says what is read: NAME reads texts as they are, masked:NAME without identity words. The
    default ones are the run's own reading, the other one of the same scorer, the share over 0.5 (of
    a run that rests on such a share: the scorer itself), and other scorers, read as the run does.
    Of these, those whose extra is not installed are left out.

    Args:
        prompts: what is to be measured on. By default, likelihood is among the measures where
            every prompt has a counterpart in every subgroup.

    Raises:
        ConfigError: a measure named twice, or a single one.
        PromptError: likelihood is named, and prompts have no counterpart.
        ScorerError: no scorer of a name.
        MissingExtraError: a named scorer's extra is not installed.
    """
    if len(set(names)) != len(names):
        raise ConfigError(f"a measure is named twice: {', '.join(names)}")
    if len(names) == 1:
        raise ConfigError(f"--scorer {names[0]} alone agrees with itself; name at least two")
    if LIKELIHOOD in names:
        check_matched(prompts)
    if names:
        return [_measure(session, name) for name in names]
    return list(_defaults(session, prompts))


def _measure(session: Session, name: str) -> Measure:
    scorer = None if name == LIKELIHOOD else session.load_scorer(name)
    return Measure(name=name, scorer=scorer)


def _defaults(session: Session, prompts: Sequence[Prompt]) -> Iterator[Measure]:
    plain = str(session.config.toxicity).replace(MASKED_PREFIX, "")
    inner = plain.removeprefix(OVER_PREFIX)
    first, second = ("", MASKED_PREFIX) if session.config.unmasked else (MASKED_PREFIX, "")
    yield Measure(name=f"{first}{plain}", scorer=session.scorer)
    share = f"{OVER_PREFIX}{first}{inner}" if plain == inner else f"{first}{inner}"
    others = (f"{first}{other}" for other in OTHERS if other != inner)
    for name in (f"{second}{plain}", share, *others):
        try:
            yield _measure(session, name)
        except (MissingExtraError, ScorerError):
            continue  # nobody asked for it by name
    with suppress(PromptError):
        check_matched(prompts)
        yield Measure(name=LIKELIHOOD, scorer=None)


def measure_heads(
    measure: Measure,
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions,
) -> Json:
    """What a measure says of every head, as JSON; {"name", "failed": why} where it says nothing.

    `effect`, `stderr` [layers][heads]; packed: `halves` [splits, 2, layers, heads] or None, and
    `resampled` [draws, layers, heads], z_bias on templates drawn anew; `scores`: of each text,
    None for likelihood. Halves and draws are the same templates for every measure.
    """
    named: Json = {"name": measure.name, "identity": measure.identity}
    try:
        if measure.scorer is None:
            scores = None
            shifts = estimate(likelihood, problem, base, progress, options)
        else:
            problem = replace(problem, scorer=measure.scorer)
            scores = score_texts(measure.scorer, read_texts(problem, base))
            base = replace(base, toxicity=scores)
            shifts = estimate(token_gradient, problem, base, progress, options)
    except ScorerError as error:
        return {**named, "failed": str(error)}
    effects = axis_effects(problem, base, shifts)
    rng = np.random.default_rng(derived_seed(problem.seed, problem.axis, "agree"))
    draws = template_draws(len(np.unique(problem.template)), DRAWS, rng)
    level = shifts.toxicity if scores is None else scores
    subgroup, template = problem.subgroup[base.prompt], problem.template[base.prompt]
    count = len(problem.subgroups)
    interval = bias_interval(level, subgroup, template, count, rng)
    r_squared = shifts.diagnostics.get("token_toxicity_r2")
    by_name = zip(effects.subgroups, effects.gap, effects.used, strict=True)
    return {
        **named,
        "unit": "nats per token" if scores is None else "score, 0 to 1",
        "bias": {
            "value": bias(level, subgroup, count),
            "ci95": [interval.low, interval.high],
        },
        "gap": {name: {"value": float(gap), "used": bool(used)} for name, gap, used in by_name},
        "measurable": effects.measurable,
        "reliability": effects.reliability,
        "token_toxicity_r2": r_squared,
        "explained": r_squared is None or r_squared >= MIN_R_SQUARED,
        "effect": _numbers(effects.effect),
        "stderr": _numbers(effects.stderr),
        "halves": None if effects.halves is None else packed(effects.halves),
        "resampled": packed(resampled_effects(problem, base, shifts, effects.used, draws)),
        "scores": None if scores is None else _numbers(scores),
    }


def read_texts(problem: BiasProblem, base: SampledTexts) -> list[str]:
    """What a scorer reads of each continuation."""
    pairs = zip(base.prompt, base.tokens, strict=True)
    return [problem.texts(int(prompt), tokens)[1] for prompt, tokens in pairs]


def _numbers(values: np.ndarray) -> Any:
    """Nested lists; seven digits are more than any effect has."""
    flat = [float(f"{value:.7g}") for value in values.reshape(-1)]
    return np.array(flat).reshape(values.shape).tolist()


def predicted_seconds(
    measures: Sequence[Measure], problem: BiasProblem, base: SampledTexts
) -> float:
    """About how many CPU seconds the measures will take together, from a few timed texts."""
    if not measures:
        return 0.0
    rows = matched_rows(problem, base, max_groups=1).rows[: 2 * len(problem.subgroups)]
    for _ in range(2):  # the first call of a model is slower
        start = time.process_time()
        gate_derivatives(problem, rows, lambda steps, _: steps.logits[..., 0], silent, "timing")
        gradient = (time.process_time() - start) / len(rows)
    groups, texts = len(problem.subgroups), len(base.texts)
    rounds = len(np.unique(base.sample))
    words = len(word_tokens(problem.tokenizer))
    seconds = 0.0
    for measure in measures:
        if measure.scorer is None:
            seconds += texts * groups * gradient * (1 + FORWARD_SHARE)
            continue
        cost = measure.scorer.cost
        full = problem.toxicity_input == "full"
        contexts = CONTEXTS_EACH[cost] * groups if full else CONTEXTS
        calls = rounds * min(contexts * words, MAX_CALLS[cost])
        read = texts + rounds * MASS_ROWS
        seconds += gradient * (texts * SOURCES[problem.toxicity_input] + FORWARD_SHARE * read)
        seconds += calls * _seconds_per_text(measure.scorer, problem, base)
    return seconds


def _seconds_per_text(scorer: ToxicityScorer, problem: BiasProblem, base: SampledTexts) -> float:
    texts = read_texts(problem, base)
    asked = [f"{texts[i % len(texts)]} {i}" for i in range(PROBED_TEXTS[scorer.cost])]
    start = time.process_time()
    score_texts(scorer, asked)
    return (time.process_time() - start) / len(asked)
