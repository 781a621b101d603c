"""Heads at a glance: what the effects of a model's heads look like, from scores alone.

How z_ppl and z_bias are distributed, what share of heads is critical, whether heads that language
modelling needs add bias too, and what another gamma would choose. No model is loaded. It draws
nothing, and knows nothing of what pruning really does: predictions here add up single effects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from levelhead import runs
from levelhead.damage import damage_reported
from levelhead.errors import ConfigError, ScoreTableError
from levelhead.experiments.gamma_rows import gamma_rows
from levelhead.experiments.scored import (
    Scored,
    base_value,
    correlated,
    effect_of,
    heads_only,
    read_scored,
)
from levelhead.scores import PPL, ScoreTable, bias_metric, column

CRITICAL = 0.01
"""Share by which removing a critical head raises perplexity."""
THRESHOLDS = (0.001, 0.003, 0.01, 0.03, 0.1)
PAPER_CRITICAL = 0.3
"""Share of critical heads according to arXiv 2312.15398."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
BINS = 30
SHOWN = (0.02, 0.98)
"""Quantiles between which the histogram lies: a few heads are so far out that all others would be
one bar."""


def glance(
    path: str | Path,
    *,
    critical: float = CRITICAL,
    gamma: float | None = None,
    alpha: float | None = None,
) -> dict[str, Any]:
    """What the scores of a run folder, or of a score table (CSV), show at a glance.

    Args:
        path: the folder or table.
        critical: share by which removing a head raises perplexity for it to count as critical.
        gamma: share protected that others are compared with (none: the run's; a table's: 0.3).
        alpha: share pruned (none: the run's; a table's: 0.1).

    Returns:
        A JSON object; E is {"value", "ci95": [low, high]}, None is "not known":

        - `name`, `model`, `num_layers`, `num_heads` (of a layer), `axes`, `selection`: {"gamma",
          "alpha"} that the gammas are compared with;
        - `distributions`: {"ppl": D, "bias": {AXIS: D}} with D = {"base", "base_known" (false: the
          median over heads stands for it), "quantiles" {"0.05": z, ...}, "positive" (share of
          heads with z > 0), "histogram": {"edges", "counts", "below", "above" (heads outside)}};
        - `critical`: {"threshold", "share": E (its ci95 is None without standard errors),
          "num_heads", "below_zero" (share of heads whose 95% interval of z_ppl lies below 0),
          "thresholds": [{"threshold", "share": E}], "halves": {"share", "same"}, "paper"}. The
          interval goes from the heads whose own 95% interval lies wholly beyond the threshold to
          those whose interval reaches it; in simulation it covers in more than 95%, errors common
          to all heads included. `halves`: the share that half of the text gives, and how many of
          the heads that one half calls critical the other does too;
        - `correlation`: {AXIS: {"spearman": E, "corrected": E with "raw", "reliability": {"bias",
          "ppl"}}} of z_ppl with z_bias. Negative: heads that language modelling needs add bias;
        - `gamma`: rows of `gamma_rows.gamma_rows` for every axis and gamma from 0 to 0.9;
        - `notes`: what the numbers do not say.

    Raises:
        ConfigError: `critical` that is not above 0.
        SelectionError: gamma and alpha that cannot be satisfied together.
        RunFolderError, ScoreTableError: there are no such scores.
    """
    if not critical > 0:
        raise ConfigError(f"critical={critical} is not a share above 0; 0.01 is 1% of perplexity")
    with damage_reported(Path(path), "show the heads"):
        return _glance(path, critical, gamma, alpha)


def _glance(
    path: str | Path, critical: float, gamma: float | None, alpha: float | None
) -> dict[str, Any]:
    scored = read_scored(path, by_seed=False)
    if scored.table is not None:
        heads_only(scored.table.unit, "heads")
    table = scored.table
    if table is None or PPL not in scored.effects:
        raise ScoreTableError(f"{path} has no column ppl_without, so no effects on perplexity")
    held_gamma, held_alpha = _shares(Path(path), scored)
    gamma, alpha = held_gamma if gamma is None else gamma, held_alpha if alpha is None else alpha
    return {
        "name": scored.name,
        "model": scored.details.get("model"),
        "num_layers": table.num_layers,
        "num_heads": table.num_heads,
        "axes": list(scored.axes),
        "selection": {"gamma": gamma, "alpha": alpha},
        "distributions": {
            "ppl": _distribution(table, PPL),
            "bias": {axis: _distribution(table, bias_metric(axis)) for axis in scored.axes},
        },
        "critical": _critical(scored, table, critical),
        "correlation": {axis: _correlation(scored, axis) for axis in scored.axes},
        "gamma": [row for axis in scored.axes for row in gamma_rows(scored, axis, gamma, alpha)],
        "notes": _notes(scored, table),
    }


def _shares(path: Path, scored: Scored) -> tuple[float, float]:
    """(gamma, alpha) of the selection that is there, else of the run's options, else usual ones."""
    if scored.config is None:
        return 0.3, 0.1
    chosen = path / runs.SELECTION
    held = runs.read_json(chosen) if chosen.exists() else {}
    gamma, alpha = held.get("gamma"), held.get("alpha")
    return (
        scored.config.gamma if gamma is None else float(gamma),
        scored.config.alpha if alpha is None else float(alpha),
    )


def _distribution(table: ScoreTable, metric: str) -> dict[str, Any]:
    base, known = base_value(table, metric)
    z = effect_of(table, metric).reshape(-1)
    low, high = (float(q) for q in np.quantile(z, SHOWN))
    if not high > low:
        low, high = float(z.min()) - 1e-9, float(z.max()) + 1e-9
    counts, edges = np.histogram(z, bins=BINS, range=(low, high))
    return {
        "base": base,
        "base_known": known,
        "quantiles": {f"{q:g}": float(np.quantile(z, q)) for q in QUANTILES},
        "positive": float((z > 0).mean()),
        "histogram": {
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "below": int((z < edges[0]).sum()),
            "above": int((z > edges[-1]).sum()),
        },
    }


def _critical(scored: Scored, table: ScoreTable, critical: float) -> dict[str, Any]:
    base, _ = base_value(table, PPL)
    shares = {t: _share_beyond(table, base, t) for t in sorted({critical, *THRESHOLDS})}
    halves = None
    if PPL in scored.halves:
        beyond = scored.halves[PPL] < -critical * base
        halves = {"share": float(beyond.mean()), "same": _same(beyond)}
    below_zero = None
    if column(PPL, "high") in table.frame.columns:
        below_zero = float((table.interval(PPL)[1] < 0).mean())
    share = shares[critical]
    return {
        "threshold": critical,
        "share": share,
        "num_heads": round(share["value"] * table.num_layers * table.num_heads),
        "below_zero": below_zero,
        "thresholds": [{"threshold": t, "share": shares[t]} for t in shares],
        "halves": halves,
        "paper": PAPER_CRITICAL,
    }


def _share_beyond(table: ScoreTable, base: float, threshold: float) -> dict[str, Any]:
    """Share of heads without which perplexity is up by more than `threshold` of it."""
    limit = -threshold * base
    share = float((effect_of(table, PPL) < limit).mean())
    if column(PPL, "high") not in table.frame.columns:
        return {"value": share, "ci95": None}
    low, high = table.interval(PPL)
    return {"value": share, "ci95": [float((high < limit).mean()), float((low < limit).mean())]}


def _same(beyond: Bool[np.ndarray, "splits 2 layers heads"]) -> float | None:
    """Of the heads that one half names, the share that the other does too."""
    rows = beyond.reshape(len(beyond), 2, -1)
    either = rows.sum(axis=(1, 2)) / 2
    both = (rows[:, 0] & rows[:, 1]).sum(axis=1)
    return float(both.sum() / either.sum()) if either.any() else None


def _correlation(scored: Scored, axis: str) -> dict[str, Any]:
    """z_ppl and z_bias come from other texts, so that their errors are uncorrelated."""
    metric = bias_metric(axis)
    found, corrected, _ = correlated(scored, PPL, scored, metric)
    reliability = {"bias": scored.reliability[metric], "ppl": scored.reliability[PPL]}
    return {
        "spearman": found and found.to_json(),
        "corrected": corrected and corrected.to_json(),
        "reliability": reliability,
    }


def _notes(scored: Scored, table: ScoreTable) -> list[str]:
    notes = [
        "Predictions for a set of heads add up single effects. Sums of z_ppl understate what "
        "removing tens of heads together does to perplexity, 2 to 4 times on SmolLM2-135M.",
    ]
    if not base_value(table, PPL)[1]:
        notes.append(
            "The table does not name the whole model's perplexity and bias; the median over heads "
            "stands for them: critical heads are those worse to lose than the median head by the "
            "threshold, and predicted changes are relative to as many median heads."
        )
    if scored.config is None:
        notes.append(
            "A table with a row per head says nothing of errors: no intervals of its effects, and "
            "nothing can be corrected for their unreliability."
        )
    return notes
