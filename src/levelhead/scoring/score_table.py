"""Effects of every estimator, put into one table of head scores and one page of diagnostics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from levelhead.metrics.reliability import times_to_reach
from levelhead.scores import MIN_RELIABILITY, PPL, ScoreTable, bias_metric, column, gap_column
from levelhead.scoring.effects import MAX_CONTRADICTION_Z, MIN_GAP_Z, AxisEffects
from levelhead.scoring.perplexity_effects import PerplexityEffects

MAX_SHARE = 0.5
"""A ranking is said to be of one subgroup or word that carries more of it."""
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
    names = [axis.axis for axis in axes]
    for axis in axes:
        metric = bias_metric(axis.axis)
        columns[column(metric, "without")] = axis.bias - axis.effect
        columns[column(metric, "base")] = axis.bias
        columns |= _with_error(metric, axis.effect, axis.stderr, axis.clusters)
        base = zip(axis.subgroups, axis.gap, axis.gap_stderr, strict=True)
        for name, gap, stderr in base:
            columns[gap_column("base", axis.axis, name, names)] = float(gap)
            columns[gap_column("base_se", axis.axis, name, names)] = float(stderr)
        signed = zip(axis.subgroups, axis.gap_effect, axis.gap_effect_stderr, strict=True)
        for name, effect, stderr in signed:
            columns[gap_column("effect", axis.axis, name, names)] = effect
            columns[gap_column("effect_se", axis.axis, name, names)] = stderr
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
        said.append(_no_gap(axis, found))
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


def _no_gap(axis: str, found: Mapping[str, Any]) -> str:
    """Why no gap of the base model is used: too small for its noise, or contradicted."""
    z = _gap_z(found)
    against: Mapping[str, float] = found.get("contradicted", {})
    unclear = [abs(one) for name, one in z.items() if name not in against]
    if against:
        name = max(against, key=lambda one: abs(z[one]))
        others = f"; of the other gaps the clearest is {max(unclear):.1f} from 0" if unclear else ""
        return (
            f"{axis}: no subgroup gap of the base model can be used: the gap of {name} is "
            f"{abs(z[name]):.1f} standard errors from 0 as the estimator measures it, but the "
            f"scorer's own answers put it on the other side of 0, by {against[name]:.1f} standard "
            f"errors (at most {MAX_CONTRADICTION_Z:g} is let pass){others} ({MIN_GAP_Z:.0f} are "
            "needed): which of the two is right, more samples show (--samples); if they stay "
            "apart, token toxicity does not tell what this scorer reacts to: use another "
            "--scorer, or --estimator ablate"
        )
    clearest = max(unclear)
    more = int(np.ceil((MIN_GAP_Z / max(clearest, 0.1)) ** 2))
    return (
        f"{axis}: no subgroup gap of the base model can be told from 0 (the clearest is "
        f"{clearest:.1f} standard errors from it, {MIN_GAP_Z:.0f} are needed): there is no "
        f"measurable gap to reduce with this budget; about {more} times as many samples might "
        "show one"
    )


def _gap_z(found: Mapping[str, Any]) -> dict[str, float]:
    """Standard errors between 0 and each gap; older details have but gaps and their errors."""
    if "gap_z" in found:
        return dict(found["gap_z"])
    errors = found["gap_stderr"]
    return {name: gap / max(errors[name], 1e-12) for name, gap in found["gap"].items()}


def concentration_warnings(axis: str, found: Mapping[str, Any]) -> list[str]:
    """A warning where one subgroup, or one word, carries most of the ranking of an axis.

    Args:
        found: of the axis in details.json: `largest_share`, `shares`, and `leave_one_out` with
            the `overlap` of each.
    """
    said = []
    group, word = found["largest_share"]["subgroup"], found["largest_share"]["word"]
    # Of two subgroups there is one gap, which both have.
    if group is not None and len(found["shares"]["subgroup"]) > 2 and group["share"] > MAX_SHARE:
        said.append(_carried(axis, "subgroup", group, found["leave_one_out"]["subgroup"]))
    only = word is not None and _is_whole_subgroup(word, found["shares"]["subgroup"])
    if word is not None and not only and word["share"] > MAX_SHARE:
        said.append(_carried(axis, "word", word, found["leave_one_out"]["word"]))
    return said


def _is_whole_subgroup(word: Mapping[str, Any], groups: Mapping[str, float]) -> bool:
    """Whether the word with the largest share is the only one of its subgroup."""
    return any(math.isclose(word["share"], share, rel_tol=1e-9) for share in groups.values())


def _carried(
    axis: str, kind: str, largest: Mapping[str, Any], left: Mapping[str, Mapping[str, Any]]
) -> str:
    name, without = largest["name"], left.get(largest["name"])
    ends = largest["ci95"]
    alone = math.isclose(largest["share"], 1, abs_tol=1e-9)
    if alone:
        interval = " (the gap of no other could be told from 0)"
    else:
        interval = "" if ends is None else f" (95% interval {ends[0]:.0%} to {ends[1]:.0%})"
    rest = ""
    if without is not None:
        rest = (
            f"; without it the ranking correlates {without['spearman']:.2f} with this one and "
            f"keeps {without['overlap']:.0%} of the selected heads"
        )
    return (
        f"{axis}: one {kind}, {name}, carries {largest['share']:.0%} of the ranking of "
        f"heads{interval}{rest}: what is pruned has to do with {name} more than with the whole "
        f"axis; give more {'words' if kind == 'word' else 'subgroups'}, or say so"
    )


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
        "gap_z": dict(zip(axis.subgroups, map(float, axis.gap_z), strict=True)),
        "contradicted": {
            name: float(against)
            for name, z, against in zip(axis.subgroups, axis.gap_z, axis.against, strict=True)
            if abs(z) >= MIN_GAP_Z and against > MAX_CONTRADICTION_Z
        },
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
