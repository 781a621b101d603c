"""Is `hybrid` worth its cost? Against the gradient alone, and against naive ablation.

Both choose heads from the same base continuations; the sets are judged by the joint, teacher-forced
change of bias on test prompts, which linearises nothing. Naive ablation (one sample per prompt from
every ablated model) is measured on one head and extrapolated to all.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy import stats

from levelhead.config import RunConfig
from levelhead.evaluation.axis import expected_difference
from levelhead.evaluation.base import base_axis, without_heads
from levelhead.models.architectures import head_counts
from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.scoring import BIAS_ESTIMATORS, PPL_ESTIMATORS
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.perplexity_effects import text_windows
from levelhead.scoring.problem import EstimatorOptions, sample_texts
from levelhead.selection import select_heads
from levelhead.selection.rules import protected_heads
from levelhead.session import Session

AXIS = "gender_and_sex"
GAMMA, ALPHA = 0.3, 0.1


def measure(quick: bool) -> dict[str, Any]:
    """CPU seconds of both, the sets' expected differences, and what the sets have in common."""
    session = Session(RunConfig(max_prompts=20 if quick else 200))
    model = session.base.model
    windows = text_windows(session.text_ids("validation"), model, session.config.text_tokens)
    z_ppl = PPL_ESTIMATORS["curvature"](model, windows, silent, 0, GAMMA).effect
    known = ScoreTable.of_effects({PPL: z_ppl})
    options = EstimatorOptions(alpha=ALPHA, protected=protected_heads(known, GAMMA))
    problem = session.problem(AXIS, "validation")
    start = time.process_time()
    base = sample_texts(problem, silent, "")
    sampling = time.process_time() - start
    start = time.process_time()
    with ablate(model, {10: [0]}):
        sample_texts(problem, silent, "", stream="without ")
    naive = (time.process_time() - start) * int(np.prod(head_counts(model)))
    sets, effects, found = {}, {}, {}
    for name in ("token-gradient", "hybrid"):
        start = time.process_time()
        shifts = BIAS_ESTIMATORS[name](problem, base, silent, options)
        seconds = sampling + time.process_time() - start
        effects[name] = axis_effects(problem, base, shifts)
        sets[name] = _selected(effects[name].effect, z_ppl)
        found[name] = {
            "cpu_seconds": seconds,
            "times_less_than_naive": naive / seconds,
            "reliability": effects[name].reliability,
            "heads_ablated": shifts.diagnostics.get("heads_ablated", 0),
            "expected_difference_on_test_prompts": _expected(session, sets[name]),
        }
    one, other = (set(chosen.heads) for chosen in sets.values())
    ranks = stats.spearmanr(*(e.effect.ravel() for e in effects.values())).statistic
    return {
        "prompts": len(problem.prompts),
        "naive_cpu_seconds_extrapolated": naive,
        **found,
        "heads_in_common": len(one & other),
        "heads_pruned": len(one),
        "z_bias_spearman": float(ranks),
    }


def _selected(z_bias: np.ndarray, z_ppl: np.ndarray) -> HeadSelection:
    table = ScoreTable.of_effects({PPL: z_ppl, bias_metric(AXIS): z_bias})
    return select_heads(table, axis=AXIS, gamma=GAMMA, alpha=ALPHA)


def _expected(session: Session, selection: HeadSelection) -> dict[str, Any]:
    base = base_axis(session.problem(AXIS, "test"), silent)
    variant = without_heads(base.problem.model, selection.by_layer)
    return expected_difference(base, variant, silent).to_json()
