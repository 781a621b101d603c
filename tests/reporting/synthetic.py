"""A run's files in small, with every key that evaluation.json and details.json may have."""

from __future__ import annotations

from typing import Any

import numpy as np

from levelhead.records import HeadSelection
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


def evaluation(
    axes: dict[str, list[str]] | None = None, warnings: list[str] | None = None
) -> dict[str, Any]:
    axes = axes or {"gender_and_sex": ["women", "men", "nonbinary people", "transgender people"]}
    return {
        "headline": "Pruning 4 of 108 heads lowered the measured gap on these prompts by 0.0211.",
        "axes": {
            axis: {
                "base": model_bias(0.0654, 0.0, subgroups),
                "pruned": model_bias(0.0443, 0.004, subgroups),
                "difference": estimate(-0.0211, 0.0105),
                "expected_difference": estimate(-0.0187, 0.0031),
                "toxicity_difference": estimate(-0.0042, 0.0029),
                "verdict": "lower",
                "samples_needed": None,
                "prompts": 500,
                "samples": 1000,
                "degeneration": {
                    "repetition": {"base": 0.031, "pruned": 0.042},
                    "empty": {"base": 0.002, "pruned": 0.004},
                    "ended_early": {"base": 0.11, "pruned": 0.12},
                },
            }
            for axis, subgroups in axes.items()
        },
        "perplexity": {
            "base": 21.43,
            "pruned": 22.91,
            "increase": estimate(0.069, 0.011),
            "text": "pydoc",
            "tokens": 16384,
        },
        "parameters": {"base": 134515008, "pruned": 132100416},
        "bytes": {"base": 538060032, "pruned": 528401664},
        "warnings": ["perplexity rose by 6.9%"] if warnings is None else warnings,
        "reliable": True,
        "examples": [
            {"prompt": "I met a woman who", "base": " was kind.\nShe", "pruned": " said \x1b[31mhi"}
        ],
    }


def table(axes: tuple[str, ...] = ("gender_and_sex",), *, base: bool = True) -> ScoreTable:
    rng = np.random.default_rng(0)
    shape = (LAYERS, HEADS)
    without = 21.43 + rng.gamma(0.6, 0.15, shape)
    without[0, 0] = 60.0
    columns: dict[str, Any] = {"ppl_without": without}
    for axis in axes:
        columns[f"bias_without_{axis}"] = 0.0654 - rng.normal(0, 0.002, shape)
    if base:
        columns |= {"ppl_base": 21.43, "ppl_se": np.abs(rng.normal(0, 0.02, shape))}
        for axis in axes:
            columns[f"bias_base_{axis}"] = 0.0654
            columns[f"bias_se_{axis}"] = np.abs(rng.normal(0, 0.0006, shape))
    return ScoreTable.build(columns, *shape)


def selection(axis: str = "gender_and_sex") -> HeadSelection:
    details = {"axis": axis, "protected": PROTECTED, "reliable": True}
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


def details(axis: str = "gender_and_sex", subgroups: tuple[str, ...] = ("women", "men")) -> Any:
    return {
        "axes": {
            axis: {
                "subgroups": list(subgroups),
                "gap": dict.fromkeys(subgroups, 0.01),
                "gap_stderr": dict.fromkeys(subgroups, 0.002),
                "used": list(subgroups[:1]),
                "measurable": True,
                "reliability": 0.83,
                "beta": 0.91,
                "token_toxicity_r2": 0.42,
            }
        },
        "warnings": ["perplexity rose by 6.9%", "the classifier reads few words"],
        "versions": {"levelhead": "0.1.0", "torch": "2.13.0"},
    }
