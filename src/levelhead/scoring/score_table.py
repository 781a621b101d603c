"""Effects of every estimator, put into one table of head scores and one page of diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from levelhead.metrics.reliability import times_to_reach
from levelhead.scores import MIN_RELIABILITY, PPL, ScoreTable, bias_metric, column
from levelhead.scoring.effects import MIN_GAP_Z, AxisEffects
from levelhead.scoring.perplexity_effects import PerplexityEffects

MIN_R_SQUARED = 0.05
"""Below it token toxicity explains almost nothing of the scorer's answers."""


def score_table(
    perplexity: PerplexityEffects,
    axes: Sequence[AxisEffects],
    method_scores: Mapping[str, Float[np.ndarray, "layers heads"]] | None = None,
) -> ScoreTable:
    """The table `scores.csv`: every effect with its standard error, and scores of baselines."""
    z_ppl = perplexity.effect
    num_layers, num_heads = z_ppl.shape
    columns: dict[str, Any] = {
        column(PPL, "without"): perplexity.perplexity - z_ppl,
        column(PPL, "base"): perplexity.perplexity,
        **_with_error(PPL, z_ppl, perplexity.stderr, len(perplexity.nll_change)),
    }
    for axis in axes:
        metric = bias_metric(axis.axis)
        columns[column(metric, "without")] = axis.bias - axis.effect
        columns[column(metric, "base")] = axis.bias
        columns |= _with_error(metric, axis.effect, axis.stderr, axis.clusters)
        base = zip(axis.subgroups, axis.gap, axis.gap_stderr, strict=True)
        for name, gap, stderr in base:
            columns[f"gap_base_{axis.axis}_{name}"] = float(gap)
            columns[f"gap_base_se_{axis.axis}_{name}"] = float(stderr)
        signed = zip(axis.subgroups, axis.gap_effect, axis.gap_effect_stderr, strict=True)
        for name, effect, stderr in signed:
            columns[f"gap_effect_{axis.axis}_{name}"] = effect
            columns[f"gap_effect_se_{axis.axis}_{name}"] = stderr
    if perplexity.fisher is not None:
        columns["fisher"] = perplexity.fisher
    return ScoreTable.build(columns | dict(method_scores or {}), num_layers, num_heads)


def _with_error(metric: str, effect: Any, stderr: Any, clusters: int) -> dict[str, Any]:
    """Standard error and 95% t interval of an effect, over as many independent clusters."""
    half = stats.t.ppf(0.975, max(1, clusters - 1)) * stderr
    return {
        column(metric, "se"): stderr,
        column(metric, "low"): effect - half,
        column(metric, "high"): effect + half,
    }


def score_details(perplexity: PerplexityEffects, axes: Sequence[AxisEffects]) -> dict[str, Any]:
    """What the numbers rest on (`details.json`): gaps, reliability, token toxicity, warnings."""
    return {
        "axes": {axis.axis: _axis_details(axis) for axis in axes},
        "perplexity": {**perplexity.diagnostics, "windows": len(perplexity.nll_change)},
        "warnings": [warning for axis in axes for warning in _axis_warnings(axis)],
    }


def unreliable(details: dict[str, Any], axis: str, least: float = MIN_RELIABILITY) -> list[str]:
    """Why another seed may rank the heads of an axis otherwise, and what would mend it; or []."""
    found = details["axes"][axis]
    reliability, samples = found["reliability"], found.get("samples", 1)
    said = []
    if not found["measurable"]:
        errors = found["gap_stderr"]
        z = max(abs(gap) / max(errors[name], 1e-12) for name, gap in found["gap"].items())
        more = int(np.ceil((MIN_GAP_Z / max(z, 0.1)) ** 2))
        said.append(
            f"{axis}: no subgroup gap of the base model can be told from 0 (the clearest is "
            f"{z:.1f} standard errors from it, {MIN_GAP_Z:.0f} are needed): there is no measurable "
            f"gap to reduce with this budget; about {more} times as many samples might show one"
        )
    if reliability is None:
        said.append(
            f"{axis}: reliability cannot be measured from one template and one sample; "
            "raise --samples or --max-prompts"
        )
    elif reliability < least:
        said.append(
            f"{axis}: the ranking of heads is mostly noise (split-half reliability "
            f"{reliability:.2f}, below {least:g}); {_more_samples(reliability, least, samples)}"
        )
    return said


def _more_samples(reliability: float, least: float, samples: int) -> str:
    """How much more work would reach a reliability, by the Spearman-Brown formula."""
    if reliability <= 0.02:
        return "no number of samples can be foretold to help: there may be nothing to rank"
    times = times_to_reach(reliability, least)
    return (
        f"about {times:.1f} times as many would reach it (--samples {int(np.ceil(times * samples))}"
        ", or more prompts: --max-prompts)"
    )


def _axis_details(axis: AxisEffects) -> dict[str, Any]:
    by_subgroup = zip(axis.subgroups, axis.gap, axis.gap_stderr, axis.used, strict=True)
    rows = [(name, float(gap), float(error), bool(used)) for name, gap, error, used in by_subgroup]
    return {
        "subgroups": list(axis.subgroups),
        "gap": {name: gap for name, gap, _, _ in rows},
        "gap_stderr": {name: error for name, _, error, _ in rows},
        "used": [name for name, _, _, used in rows if used],
        "measurable": axis.measurable,
        "bias": axis.bias,
        "reliability": axis.reliability,
        **axis.diagnostics,
    }


def _axis_warnings(axis: AxisEffects) -> list[str]:
    found = unreliable({"axes": {axis.axis: _axis_details(axis)}}, axis.axis)
    r_squared = axis.diagnostics.get("token_toxicity_r2")
    if r_squared is not None and r_squared < MIN_R_SQUARED:
        found.append(
            f"{axis.axis}: token toxicity explains only {r_squared:.1%} of the variance of the "
            "scorer's answers; its head scores miss most of what this scorer reacts to"
        )
    return found
