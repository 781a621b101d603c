"""Do two seeds rank the same heads, and what does that cost? Default settings, both inputs.

Every seed writes its own continuations, draws its own contexts and labels, and shares nothing but
the prompts. Naive ablation (one sample per prompt from every ablated model, the same prompts) is
timed on one head per seed, interleaved, and extrapolated to all heads. Running it in full takes
hours, so what two seeds of it would agree on is simulated: the toxicities this model's texts have,
drawn afresh for every head, moved by the effects measured here.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from levelhead.config import RunConfig
from levelhead.metrics.bias import bias
from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.scoring import PPL_ESTIMATORS
from levelhead.scoring.effects import AxisEffects, axis_effects
from levelhead.scoring.perplexity_effects import text_windows
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.rounds import estimate
from levelhead.scoring.token_gradient import token_gradient
from levelhead.selection import select_heads
from levelhead.session import Session
from levelhead.toxicity import score_texts

AXIS = "gender_and_sex"
INPUTS = ("continuation", "full")
GAMMA, ALPHA = 0.3, 0.1


def measure(quick: bool) -> dict[str, Any]:
    """Agreement of seeds and CPU seconds."""
    session = Session(RunConfig(max_prompts=60) if quick else RunConfig())
    problem = session.problem(AXIS, "validation")
    seeds = 2 if quick else 3
    rng = np.random.default_rng(0)
    found: dict[str, list[AxisEffects]] = {name: [] for name in INPUTS}
    seconds: dict[str, list[float]] = {"sampling": [], "naive_per_head": []}
    seconds |= {name: [] for name in INPUTS}
    z_ppl, texts = [], []
    for seed in range(seeds):
        own = replace(problem, seed=seed)
        start = time.process_time()
        base = sample_texts(own, silent, "")
        seconds["sampling"].append(time.process_time() - start)
        for name in INPUTS:
            start = time.process_time()
            found[name].append(_effects(replace(own, toxicity_input=name), base))
            seconds[name].append(time.process_time() - start)
        layer, head = (int(rng.integers(n)) for n in found[INPUTS[0]][0].effect.shape)
        start = time.process_time()
        with ablate(problem.model, {layer: [head]}):
            sample_texts(own, silent, "", stream="without ")
        seconds["naive_per_head"].append(time.process_time() - start)
        z_ppl.append(_z_ppl(session, seed))
        texts.append(base)
    heads = z_ppl[0].size
    mean = {name: float(np.mean(values)) for name, values in seconds.items()}
    naive = mean["naive_per_head"] * heads
    return {
        "prompts": len(problem.prompts),
        "heads": heads,
        "seeds": seeds,
        **{name: _agreement(found[name], z_ppl) for name in INPUTS},
        "cpu_seconds": mean | {"naive_extrapolated": naive},
        "naive_heads_measured": seeds,
        "times_less_cpu": {name: naive / (mean["sampling"] + mean[name]) for name in INPUTS},
        "naive_simulated_seed_spearman": _naive_spearman(problem, texts[0], found[INPUTS[0]][0]),
    }


def _effects(problem: BiasProblem, base: SampledTexts) -> AxisEffects:
    """The default estimator on texts that another classifier input has read already."""
    pairs = zip(base.prompt, base.tokens, strict=True)
    read = [problem.texts(int(prompt), tokens)[1] for prompt, tokens in pairs]
    again = replace(base, toxicity=score_texts(problem.scorer, read))
    return axis_effects(problem, again, estimate(token_gradient, problem, again, silent))


def _z_ppl(session: Session, seed: int) -> np.ndarray:
    model = session.base.model
    windows = text_windows(session.text_ids("validation"), model, session.config.text_tokens)
    return PPL_ESTIMATORS["curvature"](model, windows, silent, seed, GAMMA).effect


def _agreement(runs: list[AxisEffects], z_ppl: list[np.ndarray]) -> dict[str, Any]:
    """Means over pairs of seeds, and the worst pair."""
    effect, signed, overlap = [], [], []
    for a, b in combinations(range(len(runs)), 2):
        one, other = runs[a], runs[b]
        effect.append(_spearman(one.effect, other.effect))
        signed.append(np.mean(list(map(_spearman, one.gap_effect, other.gap_effect))))
        sets = [_selected(runs[i], z_ppl[i]) for i in (a, b)]
        overlap.append(len(sets[0] & sets[1]) / len(sets[0]))
    return {
        "z_bias_spearman": float(np.mean(effect)),
        "z_bias_spearman_worst": float(np.min(effect)),
        "signed_gap_effect_spearman": float(np.mean(signed)),
        "selected_in_common": float(np.mean(overlap)),
        "selected_in_common_by_chance": ALPHA / (1 - GAMMA),
        "own_split_half_reliability": [run.reliability for run in runs],
        "gaps_used": [[s for s, u in zip(r.subgroups, r.used, strict=True) if u] for r in runs],
        "token_toxicity_r2": [run.diagnostics["token_toxicity_r2"] for run in runs],
    }


def _selected(run: AxisEffects, z_ppl: np.ndarray) -> set[tuple[int, int]]:
    table = ScoreTable.of_effects({PPL: z_ppl, bias_metric(AXIS): run.effect})
    return set(select_heads(table, axis=AXIS, gamma=GAMMA, alpha=ALPHA).heads)


def _naive_spearman(problem: BiasProblem, base: SampledTexts, effects: AxisEffects) -> float:
    """What two seeds of naive ablation would agree on: mean over 20 simulated pairs."""
    rng = np.random.default_rng(1)
    subgroup = problem.subgroup[base.prompt]
    count = len(problem.subgroups)
    pools = [base.toxicity[subgroup == s] for s in range(count)]
    shift = -effects.gap_effect.reshape(count, -1)  # of d_s = T_S - T_s; a T_s moves against it

    def once() -> np.ndarray:
        drawn = np.stack([rng.choice(pool, (shift.shape[1], len(pool))).mean(1) for pool in pools])
        labels = np.arange(count)
        rows = (drawn - shift).T
        return np.array([-bias(row, labels, count) for row in rows])

    pairs = [_spearman(once(), once()) for _ in range(20)]
    return float(np.mean(pairs))


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(stats.spearmanr(a.ravel(), b.ravel()).statistic)
