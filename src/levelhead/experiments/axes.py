"""Do heads that add bias on one axis add it on others? (arXiv 2312.15398, experiments 2 and 3.)

Correlations of z_bias between axes, with intervals and corrected for unreliability, side by side
over runs; and, on request, what pruning for one axis does to every other (`cross_axes`).

Axes of one run share templates and random numbers, so errors in common can inflate their
correlations. On SmolLM2-135M they hardly do: measured with halves made alike (as
`metrics.attenuation` explains; three axes, 200 prompts each), corrected 0.69, and 0.68 free of
them; 0.20 and 0.21; 0.21 and 0.24. Other models may differ. Two runs of one model with the same
seed have errors in common too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from levelhead import runs
from levelhead.errors import ConfigError, RunFolderError
from levelhead.experiments.scored import Scored, correlated, differing, read_scored
from levelhead.metrics.attenuation import Corrected, difference_of
from levelhead.progress import Progress, silent
from levelhead.records import Estimate
from levelhead.scores import MIN_RELIABILITY, bias_metric

if TYPE_CHECKING:
    from levelhead.experiments.cross_axes import CrossPlan

RESULT = "axes.json"
SAME = ("prompts", "toxicity_input", "chat_template")
"""Options that say what is measured: correlations of runs that differ in them do not compare."""
TOLD = ("new_tokens", "estimator", "unmatched")
"""Options that may change correlations a little: differences are told."""
Json = dict[str, Any]


@runs.writes("axes")
def axes(
    *paths: str | Path,
    cross: bool = False,
    gamma: float | None = None,
    alpha: float | None = None,
    progress: Progress = silent,
    announce: Callable[[CrossPlan], None] | None = None,
) -> Json:
    """Correlations of head effects between axes, of one or more runs or score tables.

    Args:
        paths: run folders, score tables (CSV; nothing is corrected) or by-seed tables (their seeds
            give the reliability). Runs of other models are welcome; correlations are compared,
            not heads.
        cross: measure what pruning for each axis of the first path does to all of them.
        gamma: share protected, for `cross`; none: the run's.
        alpha: share pruned, for `cross`; none: the run's.
        progress: where to report progress of `cross`.
        announce: called with the plan of `cross` before long work.

    Returns:
        A JSON object, also written to axes.json of the first run folder; E is {"value", "ci95"}:

        - `axes`, `runs` (names), `models` {RUN: name}, `reliability` {RUN: {AXIS: x}};
        - `correlations`: [{"run", "a", "b", "num_heads", "spearman": E, "corrected": E with "raw"
          (before clipping to 1)}], None where a ranking is constant or, corrected, where a
          reliability is unknown or below `attenuation.MIN_TO_CORRECT`;
        - `differences`: [{"a", "b", "runs": [x, y], "spearman": E, "corrected": E, "differ"}] of
          every pair of runs that have both axes, x minus y; `differ`: whether the interval of the
          corrected difference, else of the plain one, excludes 0;
        - `same_model`: [{"axis", "runs", "spearman", "corrected", "same_seed"}] of head effects
          of one axis between runs of one model;
        - `cross`: what `cross_axes.cross_axes` returns, or None. A `cross` measured earlier is
          kept while the run's scores are the same;
        - `notes`.

    Raises:
        ConfigError: no paths, or nothing in them to correlate; runs that measure other things
            (the message names the fields).
        RunFolderError, ScoreTableError: a path that holds no scores.
        SelectionError: shares that cannot be satisfied.
    """
    if not paths:
        raise ConfigError("no run given; name one or more run folders or score tables")
    read = [read_scored(path) for path in paths]
    _check_comparable(read)
    names = _names(read, paths)
    correlations = [
        {"run": name} | row
        for name, scored in zip(names, read, strict=True)
        for row in _within(scored)
    ]
    same_model = _same_model(read, names)
    if not correlations and not same_model:
        raise ConfigError(
            f"{names[0]} has scores of one axis ({', '.join(read[0].axes)}); axes are correlated "
            "with each other: score at least two (--axis A --axis B)"
        )
    target = next((Path(path) for path in paths if runs.is_run(Path(path))), None)
    crossed = None
    if cross:
        if target is None or Path(paths[0]) != target:
            raise RunFolderError(
                f"{paths[0]} is a score table; pruning for one axis and measuring the others "
                "(--cross) needs a run folder, with its model and prompts"
            )
        from levelhead.experiments.cross_axes import cross_axes  # needs the model; the rest not

        crossed = cross_axes(target, gamma=gamma, alpha=alpha, progress=progress, announce=announce)
    elif target is not None:
        crossed = _kept_cross(target, read[list(map(Path, paths)).index(target)])
    found = {
        "axes": list(dict.fromkeys(axis for scored in read for axis in scored.axes)),
        "runs": names,
        "models": {
            name: scored.details.get("model") for name, scored in zip(names, read, strict=True)
        },
        "reliability": {
            name: {axis: scored.reliability[bias_metric(axis)] for axis in scored.axes}
            for name, scored in zip(names, read, strict=True)
        },
        "correlations": [_json(row) for row in correlations],
        "differences": [_json(row) for row in _differences(correlations)],
        "same_model": [_json(row) for row in same_model],
        "cross": crossed,
        "notes": _notes(read, names),
    }
    if target is not None:
        runs.write_json(target / RESULT, found)
    return found


def _within(scored: Scored) -> list[Json]:
    """Every pair of axes of one run; the estimates are not JSON yet."""
    rows = []
    for a, b in itertools.combinations(scored.axes, 2):
        first, second = bias_metric(a), bias_metric(b)
        spearman, corrected, heads = correlated(scored, first, scored, second)
        rows.append(
            {"a": a, "b": b, "num_heads": heads, "spearman": spearman, "corrected": corrected}
        )
    return rows


def _differences(correlations: Sequence[Json]) -> list[Json]:
    """Of one pair of axes between every two runs that have it."""
    rows = []
    by_pair: dict[tuple[str, ...], list[Json]] = {}
    for row in correlations:
        by_pair.setdefault(tuple(sorted((row["a"], row["b"]))), []).append(row)
    for (a, b), found in by_pair.items():
        for x, y in itertools.combinations(found, 2):
            if not (x["spearman"] and y["spearman"]):
                continue
            plain, judged = difference_of(x["spearman"], y["spearman"]), None
            if x["corrected"] and y["corrected"]:
                judged = difference_of(x["corrected"].estimate, y["corrected"].estimate)
            rows.append(
                {
                    "a": a,
                    "b": b,
                    "runs": [x["run"], y["run"]],
                    "spearman": plain,
                    "corrected": judged,
                    "differ": (judged or plain).distinguishable,
                }
            )
    return rows


def _same_model(read: Sequence[Scored], names: Sequence[str]) -> list[Json]:
    """Effects on one axis between runs of one model: would another run rank heads alike?"""
    rows = []
    for (x, first), (y, second) in itertools.combinations(zip(names, read, strict=True), 2):
        if first.config is None or second.config is None or not _one_model(first, second):
            continue
        for axis in (axis for axis in first.axes if axis in second.axes):
            metric = bias_metric(axis)
            spearman, corrected, _ = correlated(first, metric, second, metric)
            rows.append(
                {
                    "axis": axis,
                    "runs": [x, y],
                    "spearman": spearman,
                    "corrected": corrected,
                    "same_seed": first.config.seed == second.config.seed,
                }
            )
    return rows


def _one_model(first: Scored, second: Scored) -> bool:
    same = first.details["of"]["model"] == second.details["of"]["model"]
    return bool(same) and first.num_heads == second.num_heads


def _check_comparable(read: Sequence[Scored]) -> None:
    """Refuse runs that measure other things; what a table measures is not known."""
    known = [scored for scored in read if scored.config is not None]
    for other in known[1:]:
        wrong = differing(known[0], other, SAME)
        if wrong:
            raise ConfigError(
                f"{known[0].name} and {other.name} do not measure the same, so their axis "
                f"correlations cannot be compared; they differ in: {'; '.join(wrong)}"
            )


def _names(read: Sequence[Scored], paths: Sequence[str | Path]) -> list[str]:
    """A name for each; the path where two have the same."""
    plain = [scored.name for scored in read]
    names = [
        name if plain.count(name) == 1 else str(path)
        for name, path in zip(plain, paths, strict=True)
    ]
    if len(set(names)) != len(names):
        raise ConfigError(f"a run is named twice: {', '.join(names)}")
    return names


def _kept_cross(target: Path, scored: Scored) -> Json | None:
    """What an earlier call measured, of the same scores."""
    if not (target / RESULT).exists():
        return None
    held = runs.read_json(target / RESULT)
    crossed: Json | None = held.get("cross") if isinstance(held, dict) else None
    return crossed if crossed and crossed.get("of") == scored.details["of"] else None


def _notes(read: Sequence[Scored], names: Sequence[str]) -> list[str]:
    notes = []
    for name, scored in zip(names, read, strict=True):
        known = {axis: scored.reliability[bias_metric(axis)] for axis in scored.axes}
        noise = [
            f"{a} ({r:.2f})" for a, r in known.items() if r is not None and r < MIN_RELIABILITY
        ]
        if noise:
            notes.append(
                f"{name}: rankings of heads that are mostly noise, by their reliability: "
                f"{', '.join(noise)}; their plain correlations are too small"
            )
        if not any(r is not None for r in known.values()):
            notes.append(
                f"{name}: how reliable its rankings are is not known (a row per head and no "
                "replicates), so nothing is corrected"
            )
    configs = [scored.config for scored in read if scored.config is not None]
    for field in TOLD:
        values = list(dict.fromkeys(getattr(config, field) for config in configs))
        if len(values) > 1:
            notes.append(f"the runs differ in {field}: {', '.join(map(str, values))}")
    if len(read) > 1:
        notes.append("of 20 differences between runs, about one is beyond its interval by chance")
    return notes


def _json(row: Json) -> Json:
    return {k: v.to_json() if isinstance(v, Estimate | Corrected) else v for k, v in row.items()}
