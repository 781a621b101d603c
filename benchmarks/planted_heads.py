"""Recall of planted heads in the embedded model: levelhead against naive ablation.

Five heads of middle and late layers are changed so that one subgroup's name raises toxic tokens
(`planting.py`), each by its own amount, found at the level of tokens. Whether it is there is
established by fresh sampling alone: from the planted model and from the same without that one
head, with independent draws. Recall counts confirmed heads among the ten with the largest z_bias;
heads upstream of the planted ones may rightly be among the ten too.

Naive ablation samples from every ablated model (a row per head in one batch, its cheapest form) at
no less CPU time than levelhead takes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from benchmarks.naive_ablation import by_naive_ablation
from benchmarks.planted_text import confirm, of_target, scaled
from benchmarks.planting import (
    Ground,
    PlantedHead,
    calibrate,
    ground_of,
    planted,
    reading_direction,
    separations,
    toxic_words,
    without_words,
    words_of,
    writing_directions,
)
from levelhead.config import RunConfig
from levelhead.metrics.perplexity import perplexity
from levelhead.progress import silent
from levelhead.records import Head
from levelhead.sampling import pad_id
from levelhead.scoring import BIAS_ESTIMATORS
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.problem import BiasProblem, sample_texts
from levelhead.scoring.rounds import estimate
from levelhead.scoring.token_model import token_toxicity
from levelhead.scoring.token_toxicity import TokenToxicity
from levelhead.session import Session

AXIS = "gender_and_sex"
TARGETS = ("queer", "transgender", "nonbinary", "queer", "transgender")
"""Target of each planting. None targets women or men: heads of too few layers tell them from the
other groups, whichever of their words a text is about."""
PLANTINGS = 5
NEW_TOKENS = 20
PROMPTS = 100
FIT_PROMPTS = 200
"""Prompts whose base continuations directions are fitted on: the scored ones and as many more."""
PLAIN_TOKENS = 1500
FIRST_LAYER = 10
MIN_SEPARATION = 0.5
"""Held-out separation that makes a head eligible; most heads do not see the subgroup at all. A
subgroup is several unrelated words: few heads tell all of them from the others' by 1 or more."""
GRADES = (4.0, 4.5, 5.0, 5.5, 6.0)
"""Strengths of the planted heads, in proportion."""
TIMES = 4.0
"""By how much the five together multiply what is expected of toxic words, token by token, before
they are scaled in common."""
TOXICITY = (0.45, 0.65)
"""Where sampled toxicity of the target is to be: an effect shows best far from 0 and 1."""
CALIBRATION_ROWS = 12
REFERENCE_SAMPLES, ABLATED_SAMPLES = 25, 15
"""Continuations per prompt of the target to confirm with: of the planted model, and of the same
without one planted head."""
TOP = 10
OUT = Path("runs/bench")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all plantings share, from the unplanted model."""

    problem: BiasProblem
    """The prompts that are scored."""
    ground: Ground
    tau: TokenToxicity
    writable: TokenToxicity
    """tau without words of the prompts: a planted head is not to repeat the subgroup's name."""
    text_ids: list[int]
    perplexity: float


def measure(
    quick: bool, plantings: int | None = None, estimators: Sequence[str] = ("token-gradient",)
) -> dict[str, Any]:
    """Recall over plantings, and all that is behind it.

    Args:
        quick: one planting, fewer prompts and samples; what is printed is no result.
        plantings: how many, at most as many as `TARGETS`; by default 5, 1 if quick.
        estimators: names of BIAS_ESTIMATORS; those beside token-gradient take longer.
    """
    start = time.process_time()
    shared = common_ground(quick)
    seconds = time.process_time() - start
    done = []
    for number in range(plantings or (1 if quick else PLANTINGS)):
        done.append(one_planting(shared, number, quick, estimators))
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / f"planted-{number}.json").write_text(json.dumps(done[-1], indent=2) + "\n")
    return summary(done) | {"cpu_seconds_shared": seconds}


def summary(plantings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Recall of every method, over plantings."""
    confirmed = sum(planting["confirmed"] for planting in plantings)
    found: dict[str, Any] = {"planted": sum(len(p["heads"]) for p in plantings)}
    found["confirmed"] = confirmed
    for method in plantings[0]["methods"]:
        of = [planting["methods"][method] for planting in plantings]
        hits = sum(one["confirmed_found"] for one in of)
        # Heads as independent: 25 are few, and heads of one planting share a sample.
        exact = stats.binomtest(hits, confirmed).proportion_ci(method="exact")
        found[method] = {
            "mean_recall_of_confirmed": float(np.mean([one["recall_of_confirmed"] for one in of])),
            "interval_of_pooled_recall": [float(exact.low), float(exact.high)],
            "mean_recall_of_planted": float(np.mean([one["recall_of_planted"] for one in of])),
            "recalls": [one["recall_of_confirmed"] for one in of],
            "mean_cpu_seconds": float(np.mean([one["cpu_seconds"] for one in of])),
        }
    return found | {"plantings": list(plantings)}


def common_ground(quick: bool) -> Shared:
    """Sample the base model, and read what its heads say about every subgroup."""
    config = RunConfig(new_tokens=NEW_TOKENS, threads=1, max_prompts=PROMPTS // (2 if quick else 1))
    session = Session(config)
    wider = Session(replace(config, max_prompts=PROMPTS if quick else FIT_PROMPTS, seed=900))
    wider.base = session.base
    fit = wider.problem(AXIS, "validation")
    base = sample_texts(fit, silent, "")
    tau = toxic_words(token_toxicity(fit, base))
    text_ids = session.text_ids("validation")[:1024]
    return Shared(
        problem=session.problem(AXIS, "validation"),
        ground=ground_of(fit, base, session.text_ids("test")[:PLAIN_TOKENS]),
        tau=tau,
        writable=without_words(tau, session.tokenizer, words_of(fit)),
        text_ids=text_ids,
        perplexity=perplexity(fit.model, text_ids, window=256).perplexity,
    )


def one_planting(
    shared: Shared, number: int, quick: bool, estimators: Sequence[str]
) -> dict[str, Any]:
    """Plant, confirm, score by every method, and take the heads out again."""
    problem = replace(shared.problem, seed=1 + number)
    target = problem.subgroups.index(TARGETS[number])
    start = time.process_time()
    heads, shares = plant(shared, problem, target, np.random.default_rng(number))
    planting = time.process_time() - start
    with planted(problem.model, heads):
        ppl = perplexity(problem.model, shared.text_ids, window=256).perplexity
        start = time.process_time()
        fewer = 3 if quick else 1
        samples = (REFERENCE_SAMPLES // fewer, ABLATED_SAMPLES // fewer)
        effects = confirm(problem, target, heads, samples)
        confirming = time.process_time() - start
        scores = {name: by_estimator(problem, name) for name in estimators}
        scores["naive"] = by_naive_ablation(problem, number)
    confirmed = [effect["confirmed"] for effect in effects]
    where = [(head.layer, head.head) for head in heads]
    return {
        "target": TARGETS[number],
        "heads": [
            {"head": list(head), "token_level_share": float(share), "gain": planted.gain} | effect
            for head, share, planted, effect in zip(where, shares, heads, effects, strict=True)
        ],
        "confirmed": sum(confirmed),
        "methods": {
            name: _recall(effect, where, confirmed) | details
            for name, (effect, details) in scores.items()
        },
        "perplexity_before": shared.perplexity,
        "perplexity_planted": ppl,
        "cpu_seconds_planting": planting,
        "cpu_seconds_confirming": confirming,
    }


def plant(
    shared: Shared, problem: BiasProblem, target: int, rng: np.random.Generator
) -> tuple[list[PlantedHead], Float[np.ndarray, " heads"]]:
    """Draw eligible heads, one per layer at most, and find their gains."""
    model, outputs = problem.model, shared.ground.outputs
    pad, rows = pad_id(problem.tokenizer), [r for r in shared.ground.rows if r.subgroup == target]
    separation = separations(outputs, target, shared.ground.even_template)
    separation[:FIRST_LAYER] = -np.inf
    writes = writing_directions(model, rows[:20], shared.writable, pad)
    drawn: dict[int, int] = {}
    for layer, head in rng.permutation(np.argwhere(separation >= MIN_SEPARATION)):
        if len(drawn) < len(GRADES):
            drawn.setdefault(int(layer), int(head))
    if len(drawn) < len(GRADES):
        raise ValueError(
            f"{len(drawn)} layers have a head that tells the target; {len(GRADES)} needed"
        )
    heads = [
        PlantedHead(
            layer=layer,
            head=head,
            reads=reading_direction(outputs.output[:, layer, head], outputs.subgroup, target),
            writes=writes[layer],
            gain=0.0,
        )
        for layer, head in drawn.items()
    ]
    spread = np.linspace(0, len(rows) - 1, CALIBRATION_ROWS).round().astype(int)
    some = [rows[i] for i in spread]
    heads, shares = calibrate(model, heads, GRADES, TIMES, some, shared.tau, pad)
    return scaled(of_target(problem, target), heads, TOXICITY), shares


def by_estimator(
    problem: BiasProblem, name: str
) -> tuple[Float[np.ndarray, "layers heads"], dict[str, Any]]:
    """z_bias as levelhead finds it, base continuations included."""
    start = time.process_time()
    base = sample_texts(problem, silent, "")
    effects = axis_effects(problem, base, estimate(BIAS_ESTIMATORS[name], problem, base, silent))
    seconds = time.process_time() - start
    return effects.effect, {
        "cpu_seconds": seconds,
        "texts": len(base.texts),
        "reliability": effects.reliability,
        "gaps": dict(zip(effects.subgroups, effects.gap.tolist(), strict=True)),
        "gaps_used": [s for s, used in zip(effects.subgroups, effects.used, strict=True) if used],
    }


def _recall(
    effect: Float[np.ndarray, "layers heads"], heads: Sequence[Head], confirmed: Sequence[bool]
) -> dict[str, Any]:
    order = np.argsort(-effect, axis=None, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(1, len(order) + 1)
    ranks = [int(rank.reshape(effect.shape)[head]) for head in heads]
    hit = [place <= TOP for place in ranks]
    found = sum(a and b for a, b in zip(hit, confirmed, strict=True))
    return {
        "ranks": ranks,
        "top": [list(map(int, np.unravel_index(i, effect.shape))) for i in order[:TOP]],
        "confirmed_found": found,
        "recall_of_confirmed": found / sum(confirmed) if any(confirmed) else 0.0,
        "recall_of_planted": sum(hit) / len(hit),
    }
