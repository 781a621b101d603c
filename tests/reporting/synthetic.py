"""A run's files in small, with every key that evaluation.json and details.json may have."""

from __future__ import annotations

from typing import Any

import numpy as np

from levelhead.records import HeadSelection
from levelhead.reporting.findings import Findings
from levelhead.scores import ScoreTable

LAYERS, HEADS = 12, 9
PRUNED = [(2, 3), (4, 0), (7, 8), (11, 5)]
PROTECTED = [[0, 0], [0, 1], [5, 5], [11, 8]]


def estimate(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "ci95": [value - half, value + half]}


def model_bias(bias: float, shift: float, subgroups: list[str]) -> dict[str, Any]:
    return {
        "bias": bias,
        "bias_corrected": bias - 0.0123,
        "ci95": [bias - 0.02, bias + 0.02],
        "mean_toxicity": 0.0876 + shift,
        "prompt_floor": 0.2717,
        "gaps": {
            name: estimate((-1) ** i * 0.01 * (i + 1) + shift, 0.006)
            for i, name in enumerate(subgroups)
        },
    }


def less_noise(value: float, half: float, p_value: float) -> dict[str, Any]:
    return estimate(value, half) | {"p_value": p_value}


def beside(base: float, pruned: float, half: float = 0.02) -> dict[str, Any]:
    """A quantity of both models, as evaluation.json holds echo and mentions."""
    return {
        "base": estimate(base, half),
        "pruned": estimate(pruned, half),
        "difference": estimate(pruned - base, half),
    }


def reading(
    bias: tuple[float, float], adjusted: float, subgroups: list[str], half: float = 0.0104
) -> dict[str, Any]:
    """What one scorer makes of both models' texts."""
    return {
        "base": model_bias(bias[0], 0.0, subgroups),
        "pruned": model_bias(bias[1], 0.004, subgroups),
        "difference": estimate(bias[1] - bias[0], 0.0305),
        "adjusted_difference": less_noise(adjusted, half, 0.011),
        "common_factor": {
            "factor": 0.93,
            "beyond": less_noise(-0.0166, 0.0101, 0.022),
            "others": estimate(-0.004, 0.003),
        },
        "expected_difference": estimate(-0.0187, 0.0031),
        "toxicity_difference": estimate(-0.0042, 0.0029),
        "scorer": "masked:0123456789abcdef:toxicityclassifier:1.0.1:a8f9baf209b6d70f",
        "floor": {"empty": 0.0303, "harmless": 0.0308},
        "relative_bias": {"base": 1.15, "pruned": 0.81, "difference": estimate(-0.34, 0.22)},
        "token_toxicity_r2": 0.42,
        "beta": 0.91,
    }


def axis_evaluation(subgroups: list[str]) -> dict[str, Any]:
    """Every key that an axis of evaluation.json has."""
    return {
        "verdict": "lower",
        "masked": True,
        **reading((0.0654, 0.0443), -0.0195, subgroups),
        "plain": reading((0.1254, 0.0643), -0.0595, subgroups),
        "echo": beside(0.0601, 0.0202),
        "own_group_mentions": {
            **beside(0.2, 0.07),
            "subgroups": {name: beside(0.3, 0.03) for name in subgroups[:1]},
            "fell": ["all", *subgroups[:1]],
        },
        "second_scorer": {"name": "masked:profanity-check"}
        | reading((0.0952, 0.0851), -0.0099, subgroups, 0.0222),
        "samples_needed": 321,
        "prompts": 500,
        "samples": 1000,
        "templates": 80,
        "power": {"components": {}, "detectable": 0.0123},
        "degeneration": {
            name: {"base": base, "pruned": pruned, "worse": False,
                   "difference": estimate(pruned - base, 0.002)}
            for name, base, pruned in (
                ("repetition", 0.031, 0.042), ("empty", 0.002, 0.004), ("ended_early", 0.11, 0.12)
            )
        },
        "judged": {
            "verdict": "lower", "p_difference": 0.011, "p_lower": 0.022, "p_plain": 0.0004,
            "reason": "", "together": 1, "error": 0.05,
        },
    }  # fmt: skip


def prices() -> list[dict[str, Any]]:
    """The run's own text, which costs most, a further one, and what the base model wrote."""
    shown = {"sha256": "f00d", "licence": "PSF-2.0", "tokens": 16384, "windows": 22}
    return [
        {"text": "pydoc", "increase": estimate(0.069, 0.011), "kl": estimate(0.051, 0.004),
         "base": 21.43, "pruned": 22.91} | shown,
        {"text": "everyday", "increase": estimate(0.042, 0.017), "kl": estimate(0.037, 0.006),
         "base": 30.11, "pruned": 31.37} | shown,
        {"text": "own-text", "increase": estimate(0.031, 0.012), "kl": estimate(0.033, 0.003),
         "base": 7.85, "pruned": 8.09, "tokens": 4811, "texts": 128, "sampled": 1600,
         "templates": 40},
    ]  # fmt: skip


def evaluation(
    axes: dict[str, list[str]] | None = None, warnings: list[str] | None = None
) -> dict[str, Any]:
    axes = axes or {"gender_and_sex": ["women", "men", "nonbinary people", "transgender people"]}
    return {
        "headline": "Pruning 4 of 108 heads lowered the measured gap on these prompts by 0.0195.",
        "axes": {axis: axis_evaluation(subgroups) for axis, subgroups in axes.items()},
        "perplexity": {
            "base": 21.43,
            "pruned": 22.91,
            "increase": estimate(0.069, 0.011),
            "nll_increase": 0.067,
            "kl": estimate(0.051, 0.004),
            "predicted": {"kl": 0.048, "perplexity_increase": 0.05},
            "text": "pydoc",
            "sha256": "f00d",
            "licence": "PSF-2.0",
            "tokens": 16384,
        },
        "price": prices(),
        "budget": {
            "limit": 0.05,
            "text": "pydoc",
            "increase": estimate(0.069, 0.011),
            "kept": False,
        },
        "parameters": {"base": 134515008, "pruned": 132100416},
        "bytes": {"base": 538060032, "pruned": 528401664},
        "warnings": ["perplexity rose by 6.9%"] if warnings is None else warnings,
        "reliable": True,
        "model": "org/tiny-model",
        "scorer": "masked:0123456789abcdef:toxicityclassifier:1.0.1:a8f9baf209b6d70f",
        "unit": "head",
        "heads": [list(head) for head in PRUNED],
        "toxicity_input": "continuation",
        "examples": [
            {"prompt": "I met a woman who", "base": " was kind.\nShe", "pruned": " said \x1b[31mhi"}
        ],
        "looks": {
            "planned": [2],
            "taken": [
                {"samples": 2, "seed": 7, "error": 0.05, "verdicts": dict.fromkeys(axes, "lower")}
            ],
        },
        "of": {"fingerprint": "0123456789abcdef"},
        "versions": {"levelhead": "0.1.0", "torch": "2.13.0"},
    }


def old_evaluation() -> dict[str, Any]:
    """As levelhead 0.1 wrote it: one reading, no echo, no mentions, no second scorer."""
    found = evaluation()
    for axis in found["axes"].values():
        for key in ("masked", "plain", "echo", "own_group_mentions", "second_scorer", "judged",
                    "common_factor", "floor", "power", "scorer"):  # fmt: skip
            del axis[key]
        del axis["adjusted_difference"]["p_value"]
    return found


def table(
    axes: tuple[str, ...] = ("gender_and_sex",),
    *,
    base: bool = True,
    subgroups: tuple[str, ...] = ("women", "men"),
    ties: bool = False,
) -> ScoreTable:
    """`ties`: many heads share a z_ppl or a z_bias."""
    rng = np.random.default_rng(0)
    shape = (LAYERS, HEADS)
    without = 21.43 + rng.gamma(0.6, 0.15, shape)
    without[0, 0] = 60.0
    if ties:
        without = np.round(without, 1)
    columns: dict[str, Any] = {"ppl_without": without}
    for axis in axes:
        z_bias = rng.normal(0, 0.002, shape)
        columns[f"bias_without_{axis}"] = 0.0654 - (np.round(z_bias, 3) if ties else z_bias)
        for subgroup in subgroups:
            columns[f"gap_effect_{axis}_{subgroup}"] = rng.normal(0, 0.001, shape)
    if base:
        columns |= {"ppl_base": 21.43, "ppl_se": np.abs(rng.normal(0, 0.02, shape))}
        for axis in axes:
            columns[f"bias_base_{axis}"] = 0.0654
            columns[f"bias_se_{axis}"] = np.abs(rng.normal(0, 0.0006, shape))
    return ScoreTable.build(columns, *shape)


def selection(axis: str = "gender_and_sex") -> HeadSelection:
    details = {
        "axis": axis,
        "protected": PROTECTED,
        "reliable": True,
        "inclusion": [0.98, 0.41, 0.87, 0.6],
        "resamples": 400,
        "expected_overlap": 0.67,
    }
    return HeadSelection.of(PRUNED, method="fasp", gamma=0.3, alpha=0.1, details=details)


def config(model: str | None = "org/tiny-model") -> dict[str, Any]:
    return {
        "levelhead_run": 1,
        "model": model,
        "revision": None,
        "axis": ["gender_and_sex"],
        "all_axes": False,
        "seed": 7,
        "estimator": "token-gradient",
        "toxicity_input": "continuation",
    }


def rests_on(subgroups: list[str]) -> dict[str, Any]:
    """What a ranking rests on: shares, and what is left without each."""
    names = {"subgroup": subgroups, "word": [f"word of {name}" for name in subgroups]}
    shares = {kind: dict(zip(all_of, (0.71, 0.29), strict=True)) for kind, all_of in names.items()}
    return {
        "largest_share": {
            kind: {"name": all_of[0], "share": 0.71, "ci95": [0.55, 0.84]}
            for kind, all_of in names.items()
        },
        "shares": shares,
        "leave_one_out": {
            kind: {
                name: {"spearman": 0.34, "overlap": 0.25, "used": [], "measurable": False}
                if place == 0
                else {"spearman": 0.91, "overlap": 0.75, "used": subgroups[:1], "measurable": True}
                for place, name in enumerate(all_of)
            }
            for kind, all_of in names.items()
        },
        "resamples": 400,
        "word_spread": 0.2,
    }


def details(axis: str = "gender_and_sex", subgroups: tuple[str, ...] = ("women", "men")) -> Any:
    return {
        "axes": {
            axis: {
                "subgroups": list(subgroups),
                "gap": dict.fromkeys(subgroups, 0.01),
                "gap_stderr": dict.fromkeys(subgroups, 0.002),
                "used": list(subgroups[:1]),
                "measurable": True,
                "gap_z": dict.fromkeys(subgroups, 5.0),
                "contradicted": {},
                "bias": 0.01,
                "reliability": 0.83,
                "beta": 0.91,
                "token_toxicity_r2": 0.42,
                **rests_on(list(subgroups)),
            }
        },
        "warnings": ["perplexity rose by 6.9%", "the classifier reads few words"],
        "versions": {"levelhead": "0.1.0", "torch": "2.13.0"},
    }


METHODS = ("fasp", "bias_only", "random")


def compare(axis: str = "gender_and_sex", method: str = "fasp") -> dict[str, Any]:
    points = []
    for place, name in enumerate((method, *METHODS[1:])):
        for draw in range(2 if name == "random" else 1):
            for alpha in (0.0, 0.1, 0.2):
                sampled = {"verdict": "lower"} if (name, alpha) == (method, 0.1) else None
                bias = estimate(-0.2 * alpha / (place + 1), 0.01 * alpha)
                points.append(
                    {
                        "method": name,
                        "alpha": alpha,
                        "gamma": 0.3 if place == 0 and alpha else None,
                        "draw": draw,
                        "num_heads": round(108 * alpha),
                        "heads": [list(head) for head in PRUNED] if alpha == 0.1 else [],
                        "within_budget": place > 0,
                        "perplexity": 21.43 * (1 + alpha),
                        "perplexity_increase": estimate(alpha * (3 - place), 0.02),
                        "axes": {axis: {"expected_difference": bias, "sampled": sampled}},
                    }
                )
    row = {"alpha": 0.1, "gamma": 0.3, "num_heads": 10, "draws": 1, "within_budget": False}
    row |= {"run": None, "method": method, "expected_difference": estimate(-0.0222, 0.001)}
    row |= {"adjusted_difference": estimate(-0.0333, 0.02), "perplexity": 23.0}
    row |= {"perplexity_increase": estimate(0.3, 0.02)}
    return {
        "axis": axis,
        "measured_axes": [axis],
        "methods": [method, *METHODS[1:]],
        "prompts": 200,
        "seeds": 3,
        "max_ppl_increase": 0.1,
        "sample_at": [0.1],
        "points": points,
        "search": [
            {
                "gamma": gamma,
                "alpha": alpha,
                "expected_difference": estimate(-alpha * gamma, 0.01),
                "perplexity_increase": estimate(alpha, 0.01),
                "within_budget": alpha < 0.2,
                "chosen": (gamma, alpha) == (0.3, 0.1),
            }
            for gamma in (0.2, 0.3)
            for alpha in (0.1, 0.2)
        ],
        "table": [row],
        "more": [],
    }


def axes(a: str = "gender_and_sex", b: str = "religion") -> dict[str, Any]:
    pair = {"a": a, "b": b, "spearman": estimate(0.41, 0.1), "corrected": estimate(0.55, 0.2)}
    crossed = {"base_bias": 0.0654, "num_heads": 10, "expected_difference": estimate(-0.0111, 0.01)}
    rows = [crossed | {"selected_for": x, "measured_on": y} for x in (a, b) for y in (a, b)]
    return {
        "axes": [a, b],
        "runs": ["one", "two"],
        "correlations": [pair | {"run": run} for run in ("one", "two")],
        "reliability": {"one": {a: 0.83, b: 0.7}},
        "differences": [pair | {"runs": ["one", "two"], "differ": False}],
        "same_model": [{"axis": a, "runs": ["one", "two"], "spearman": estimate(0.7, 0.1)}],
        "cross": {"alpha": 0.1, "gamma": 0.3, "method": "fasp", "rows": rows, "random": rows},
        "notes": ["a note on axes"],
    }


def agree(a: str = "toxicity", b: str = "sentiment") -> dict[str, Any]:
    measures = [
        {"name": name, "identity": f"{name}:1", "bias": estimate(0.1, 0.02), "reliability": 0.7}
        for name in (a, b)
    ]
    pair = {"a": a, "b": b, "spearman": estimate(0.37, 0.1), "corrected": None}
    pair |= {"overlap": estimate(0.42, 0.1), "overlap_chance": 0.1, "verdict": "not the same"}
    texts = {"pairs": [{"a": a, "b": b, "spearman": estimate(0.2, 0.1), "kappa": 0.15}]}
    return {"axis": "gender_and_sex", "alpha": 0.1, "gamma": 0.3, "measures": measures,
            "pairs": [pair], "texts": texts, "warnings": ["a warning on measures"]}  # fmt: skip


def interactions() -> dict[str, Any]:
    one = {
        "sum": estimate(-0.08, 0.02),
        "joint": estimate(-0.05, 0.02),
        "interaction": estimate(0.03, 0.015),
    }
    metrics = {"bias": one, "mean_toxicity": one, "nll": one}
    pairs = [{"a": [2, 3], "b": [7, 8]} | metrics]
    return {"axis": "gender_and_sex", "heads": [[2, 3], [7, 8]], "metrics": metrics,
            "pairs": pairs}  # fmt: skip


def transfer() -> dict[str, Any]:
    row = {
        "where": "held-out templates",
        "axis": "gender_and_sex",
        "prompts": "builtin",
        "scorer": "profanity-check",
        "new_descriptors": None,
        "num_prompts": 400,
        "set": "selected",
        "base_bias": 0.08,
        "expected_difference": estimate(-0.05, 0.01),
        "relative_change": estimate(-0.62, 0.12),
        "kept": estimate(0.9, 0.2),
        "sampled": {"adjusted_difference": estimate(-0.06, 0.03)},
        "verdict": "lower",
    }
    other = {"where": "other prompts", "prompts": "<b>.csv", "new_descriptors": True}
    random = {"set": "random 1", "kept": None, "sampled": None}
    return {"axis": "gender_and_sex", "selected": "4 heads", "num_heads": 4,
            "headline": "Expected bias falls.",
            "rows": [row, row | other, row | random]}  # fmt: skip


def examples(text: str = " was kind.\nShe") -> dict[str, Any]:
    written = [{"text": text, "toxicity": 0.61}, {"text": " said hi", "toxicity": 0.02}]
    prompt = {"prompt": "I met a woman who", "subgroup": "women", "template": "I met {}"}
    return {"prompts": [prompt | {"base": written, "pruned": written[::-1]}]}


def glance(axis: str = "gender_and_sex") -> dict[str, Any]:
    histogram = {"edges": [-1.0, 0.0, 1.0], "counts": [60, 40], "below": 5, "above": 3}
    row = {"axis": axis, "num_protected": 32, "num_heads": 10, "bias_change": -0.0123}
    row |= {"bias_change_sum": -0.02, "bias_change_held_out": None, "ppl_increase": 0.087}
    return {
        "distributions": {
            "ppl": {"histogram": histogram},
            "bias": {axis: {"histogram": histogram}},
        },
        "critical": {
            "threshold": 0.01,
            "share": estimate(0.33, 0.1),
            "thresholds": [{"threshold": 0.01, "share": estimate(0.33, 0.1)}],
            "halves": {"share": 0.33, "same": 0.87},
            "paper": 0.3,
        },
        "correlation": {
            axis: {
                "spearman": estimate(-0.06, 0.1),
                "corrected": None,
                "reliability": {"bias": 0.88, "ppl": 0.96},
            }
        },
        "gamma": [row | {"gamma": 0.2, "overlap": 0.7}, row | {"gamma": 0.3, "overlap": 1.0}],
        "notes": ["a note at a glance"],
    }


def reproduce() -> dict[str, Any]:
    return {
        "axis": "gender_and_sex",
        "alpha": 0.1,
        "gamma": 0.3,
        "reduction": estimate(0.211, 0.1),
        "perplexity_increase": estimate(0.05, 0.01),
        "published": {"reduction": 0.195, "gamma": 0.3, "name": "gpt2"},
        "differs": ["another classifier"],
    }


def findings(**changes: Any) -> Findings:
    """What the stages leave; no experiments."""
    inputs: dict[str, Any] = {
        "evaluation": evaluation(),
        "table": table(),
        "selection": selection(),
        "config": config(),
        "details": details(),
    }
    return Findings(**(inputs | changes))


def everything(**changes: Any) -> Findings:
    """What the stages and all experiments leave."""
    experiments: dict[str, Any] = {
        "compare": compare(),
        "axes": axes(),
        "agree": agree(),
        "interactions": interactions(),
        "examples": examples(),
        "glance": glance(),
        "reproduce": reproduce(),
    }
    return findings(**(experiments | changes))
