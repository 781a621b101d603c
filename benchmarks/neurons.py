"""Heads, MLP neurons, whole attention layers and single weights, at equal perplexity.

Every unit is scored on the same validation prompts, continuations and text of the embedded model,
and selected by FASP's rule (gamma 0.3). For each target a share alpha is looked for whose set
raises the perplexity of held-out text by the target; those sets are judged on held-out prompts:
the expected (teacher-forced) fall of bias with its interval over templates, paired with that of
the heads at the same target. Literature says neurons beat heads; this says whether they do here.

Layers come in whole numbers: theirs are the sets nearest to each target. `--quick` leaves them out,
and has fewer prompts and one target. What is known so far stands in runs/bench/neurons/.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from levelhead.config import RunConfig
from levelhead.evaluation.axis import expected_shifts, read_matched, t_reach
from levelhead.evaluation.base import BaseAxis, Variant, base_axis
from levelhead.evaluation.text import text_perplexity
from levelhead.metrics.perplexity import PerplexityResult, relative_increase
from levelhead.models.attention_weights import input_dim, without_weights
from levelhead.models.units import ablate_units
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.scoring.effects import (
    axis_effects,
    base_gaps,
    delete_one,
    gap_change,
    jackknife,
    z_bias,
)
from levelhead.scoring.perplexity_effects import text_windows
from levelhead.scoring.problem import EstimatorOptions, sample_texts
from levelhead.scoring.score_table import score_table
from levelhead.scoring.units import UNIT_BIAS_ESTIMATORS, UNIT_PPL_ESTIMATORS
from levelhead.scoring.weights import WeightScores, weight_effects
from levelhead.selection import select_heads
from levelhead.selection.agreement import split_half_agreement
from levelhead.selection.units import in_units
from levelhead.selection.units_weights import select_two_of_four, select_weights
from levelhead.session import Session

AXIS, GAMMA = "gender_and_sex", 0.3
TARGETS = (0.1, 0.05, 0.2)
ALPHAS = {
    "head": (0.02, 0.05, 0.1),
    "neuron": (0.003, 0.01, 0.03),
    "neuron, gamma 0.7": (0.01, 0.03, 0.1),
    "weight": (0.000001, 0.00001, 0.0001),
    "weight, gamma 0.9": (0.000001, 0.00001, 0.0001),
}
"""Shares first looked at: of single weights one in ten thousand doubles the perplexity."""
LAYERS = (1, 2, 3)
LAYER_PROMPTS, LAYER_TOKENS = 60, 1024
"""Layers are ablated one by one, on less: their effects are large."""
TEXT_TOKENS = 4096
KEPT = Path("runs/bench/neurons")
ESTIMATORS = {
    "head": ("token-gradient", "curvature"),
    "neuron": ("token-gradient", "curvature"),
    "layer": ("finite", "exhaustive"),
}
Json = dict[str, Any]
Sets = Callable[[float], Variant]
"""Share of units pruned -> the model without them."""


def measure(quick: bool) -> Json:
    """What scoring costs and how far it repeats itself, and what equal perplexity buys, by unit."""
    prompts, tokens, targets = (100, 4096, TARGETS[:1]) if quick else (200, 8192, TARGETS)
    session = Session(RunConfig(axis=(AXIS,), max_prompts=prompts, text_tokens=tokens))
    KEPT.mkdir(parents=True, exist_ok=True)
    scored: Json = {}
    problem = session.problem(AXIS, "validation")
    base = sample_texts(problem, silent, "base")
    windows = text_windows(session.text_ids("validation"), session.base.model, tokens)
    sets: dict[str, Sets] = {}
    options = EstimatorOptions()
    for unit in ("head", "neuron") if quick else ("head", "neuron", "layer"):
        bias_name, ppl_name = ESTIMATORS[unit]
        own = windows
        if unit == "layer":
            own = windows[: LAYER_TOKENS // windows.shape[1]]
            fewer = Session(replace(session.config, max_prompts=LAYER_PROMPTS))
            fewer.base = session.base
            problem = fewer.problem(AXIS, "validation")
            base = sample_texts(problem, silent, "base")
        start = time.process_time()
        estimator = UNIT_BIAS_ESTIMATORS[unit][bias_name]
        effects = axis_effects(problem, base, estimator(problem, base, silent, options))
        middle = time.process_time()
        perplexity = UNIT_PPL_ESTIMATORS[unit][ppl_name](session.base.model, own, silent, 0, GAMMA)
        end = time.process_time()
        more: Json = {"heads": np.full((30, 1), 9)} if unit == "layer" else {}
        table = replace(score_table(perplexity, [effects], more), unit=unit)
        halves = {PPL: perplexity.halves(np.random.default_rng(0), 20)}
        if effects.halves is not None:
            halves[bias_metric(AXIS)] = effects.halves
        scored[unit] = {
            "units": table.num_layers * table.num_heads,
            "bias": {"estimator": bias_name, "cpu_seconds": middle - start},
            "perplexity": {
                "estimator": ppl_name,
                "cpu_seconds": end - middle,
                "tokens": own.numel(),
                "calibration": perplexity.diagnostics.get("calibration"),
            },
            "reliability": effects.reliability,
            "agreement": split_half_agreement(halves, AXIS, "fasp", GAMMA, 0.1, 0),
        }
        sets[unit] = _unit_sets(session, table)
        if unit == "neuron":
            sets["neuron, gamma 0.7"] = _unit_sets(session, table, 0.7)
        _keep("scored", scored)
    problem = session.problem(AXIS, "validation")
    base = sample_texts(problem, silent, "base")
    start = time.process_time()
    weights = weight_effects(problem, base, windows, silent)
    scored["weight"] = {
        "units": sum(values.numel() for values in weights.fall.values()),
        "cpu_seconds": time.process_time() - start,
        "reliability": weights.reliability,
        "measurable": weights.measurable,
    }
    sets["weight"] = _weight_sets(session, weights)
    sets["weight, gamma 0.9"] = _weight_sets(session, weights, 0.9)
    _keep("scored", scored)
    out: Json = {"scored": scored, **_judged(session, sets, targets)}
    fours = _two_of_four(session, weights)
    out["two_of_four"] = {
        "perplexity_increase": Judge(session).text(fours)["value"],
        "expected": Judge(session).expected(fours),
    }
    _keep("all", out)
    return out


def _unit_sets(session: Session, table: ScoreTable, gamma: float = GAMMA) -> Sets:
    def of(alpha: float) -> Variant:
        chosen = select_heads(table, axis=AXIS, method="fasp", gamma=gamma, alpha=alpha)
        return _without(session, in_units(chosen, table))

    return of


def _without(session: Session, selection: HeadSelection) -> Variant:
    @contextmanager
    def gated_off() -> Any:
        with ablate_units(session.base.model, selection.unit, selection.by_layer):
            yield session.base.model

    return gated_off


def _weight_sets(session: Session, scores: WeightScores, gamma: float = GAMMA) -> Sets:
    fall, cost = ({n: v.numpy() for n, v in s.items()} for s in (scores.fall, scores.cost))

    def of(alpha: float) -> Variant:
        masks = _tensors(select_weights(fall, cost, gamma=gamma, sparsity=alpha))
        return lambda: without_weights(session.base.model, masks)

    return of


def _two_of_four(session: Session, scores: WeightScores) -> Variant:
    fall, cost = ({n: v.numpy() for n, v in s.items()} for s in (scores.fall, scores.cost))
    dims = {name: input_dim(session.base.model, name) for name in fall}
    masks = _tensors(select_two_of_four(fall, cost, dims, gamma=GAMMA))

    def variant() -> AbstractContextManager[Any]:
        return without_weights(session.base.model, masks)

    return variant


def _tensors(masks: Any) -> Any:
    import torch

    return {name: torch.from_numpy(mask) for name, mask in masks.items()}


class Judge:
    """Perplexity and expected bias of sets, on held-out text and prompts."""

    _base: BaseAxis | None = None
    _text: PerplexityResult | None = None

    def __init__(self, session: Session) -> None:
        self.session = session

    def text(self, variant: Variant) -> Json:
        """Increase of perplexity as a share of the base's."""
        if Judge._text is None:
            Judge._text = self._read(self.session.base.model)
        with variant() as model:
            return relative_increase(Judge._text, self._read(model)).to_json()

    def _read(self, model: Any) -> PerplexityResult:
        return text_perplexity(self.session, model, "test", silent, "some", TEXT_TOKENS)

    def shifts(self, variant: Variant) -> Any:
        """(shifts of the matched rows, the base's side)."""
        if Judge._base is None:
            Judge._base = base_axis(self.session.problem(AXIS, "test"), silent)
        return read_matched(Judge._base, variant, silent)

    def expected(self, variant: Variant) -> Json:
        """Expected difference of bias with its interval."""
        return self.compared([self.shifts(variant)])[0]

    def compared(self, reads: list[Any]) -> list[Json]:
        """Of each, and of each less the first: differences are paired over templates."""
        base = Judge._base
        assert base is not None  # noqa: S101 - shifts made it
        shifts = expected_shifts(base, reads)
        gap = base_gaps(base.problem, base.texts, shifts)
        every = np.ones(len(gap), dtype=bool)
        weights = base.problem.weights
        fall = z_bias(gap, gap_change(shifts, weights), every)[0]
        without = z_bias(gap, delete_one(shifts, weights), every)[:, 0]
        error, paired = jackknife(without), jackknife(without - without[:, :1])
        reach = t_reach(shifts)
        return [
            {
                "base_bias": float(np.abs(gap).sum()),
                "value": -float(f),
                "ci95": [-float(f + reach * e), -float(f - reach * e)],
                "minus_heads": -float(f - fall[0]),
                "minus_heads_ci95": [
                    -float(f - fall[0] + reach * p),
                    -float(f - fall[0] - reach * p),
                ],
            }
            for f, e, p in zip(fall, error, paired, strict=True)
        ]


def _judged(session: Session, sets: dict[str, Sets], targets: tuple[float, ...]) -> Json:
    judge = Judge(session)
    curves: Json = {}
    for unit, alphas in ALPHAS.items():
        curves[unit] = {a: judge.text(sets[unit](a))["value"] for a in alphas}
        _keep("curves", curves)
    if "layer" in sets:
        curves["layer"] = {n: judge.text(sets["layer"](n / 30 + 1e-9))["value"] for n in LAYERS}
        _keep("curves", curves)
    rows: Json = {}
    for target in targets:
        found: Json = {}
        reads = []
        for unit in ALPHAS:
            alpha, increase = _alpha_of(judge, sets[unit], curves[unit], target)
            reads.append(judge.shifts(sets[unit](alpha)))
            found[unit] = {"alpha": alpha, "perplexity_increase": increase}
        if "layer" in sets:
            nearest = min(LAYERS, key=lambda n: abs(curves["layer"][n] - target))
            reads.append(judge.shifts(sets["layer"](nearest / 30 + 1e-9)))
            found["layer"] = {"layers": nearest, "perplexity_increase": curves["layer"][nearest]}
        for row, judged in zip(found.values(), judge.compared(reads), strict=True):
            row |= judged
        rows[f"{target:g}"] = found
        _keep("targets", rows)
    base = Judge._base
    assert base is not None  # noqa: S101 - shifts made it
    return {"perplexity_by_share": curves, "targets": rows}


def _alpha_of(
    judge: Judge, of: Sets, curve: dict[float, float], target: float
) -> tuple[float, float]:
    """(share, its increase): interpolated on log scales, then once more around the answer."""
    known = dict(curve)
    for _ in range(2):
        xs = np.array(sorted(known))
        ys = np.maximum.accumulate([max(known[x], 1e-5) for x in xs])
        at = float(np.exp(np.interp(np.log(target), np.log(ys), np.log(xs))))
        at = float(f"{at:.4g}")
        if at in known:
            break
        known[at] = judge.text(of(at))["value"]
    best = min(known, key=lambda a: abs(known[a] - target))
    return best, known[best]


def _keep(name: str, data: Json) -> None:
    (KEPT / f"{name}.json").write_text(json.dumps(data, indent=1, default=str) + "\n")
