"""Unstructured pruning: single attention weights set to zero, in a stock checkpoint.

    attention weights -> first-order effects -> FASP's rule over weights -> zeros -> a folder

The same gradients and the same protection as for heads. It saves neither memory nor time; it is
there to be compared with. The effects are those of single weights: of very many together they say
little, so that what came out is measured on held-out prompts and text, and written beside it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from levelhead import runs
from levelhead.errors import ConfigError, UnreliableScoresError
from levelhead.evaluation.expected import expected_change
from levelhead.models.attention_weights import (
    Masks,
    attention_weights,
    describe,
    input_dim,
    without_weights,
    zero_weights,
)
from levelhead.models.checksums import write_manifest
from levelhead.models.folders import check_target, new_folder
from levelhead.models.loading import load_base
from levelhead.progress import Progress, silent
from levelhead.runs import RunFolder
from levelhead.scores import MIN_RELIABILITY
from levelhead.scoring.perplexity_effects import text_windows
from levelhead.scoring.problem import sample_texts
from levelhead.scoring.weights import WeightScores, weight_effects
from levelhead.selection.units_weights import select_two_of_four, select_weights
from levelhead.session import Session
from levelhead.stages.versions import versions

RECORD = "levelhead_weights.json"
PATTERNS = ("2:4",)
MARK = "levelhead_zeroed_weights"
"""Where config.json says what was done; nothing reads it."""
CARD = """# {name}, with some attention weights set to zero

{zeroed:,} of {weights:,} weights of the attention projections ({share:.2%}) of {name} are zero, to
reduce a measured gap in the toxicity of what it writes about social groups ({axis}). No weight was
trained. The model is a stock one, as large as before.

On held-out prompts and text: expected difference of bias {value:+.4f} [{low:+.4f}, {high:+.4f}]
(95% interval, teacher-forced, not sampled afresh), perplexity {perplexity:+.1%}.
Which weights: digest {digest}; how they were chosen: {record}. The base model's licence holds.

This does not make a model free of bias. Measure on prompts of your own before you rely on it.
"""


def prune_weights(
    run: str | Path,
    *,
    out: str | Path,
    sparsity: float | None = None,
    pattern: str | None = None,
    gamma: float | None = None,
    allow_unreliable: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Zero single attention weights of a run's base model by FASP's rule, and save the result.

    Args:
        run: a run folder, for its model, prompts, scorer, text and options; nothing is written
            there, and its head scores are not used.
        out: the folder to save to: a stock checkpoint; levelhead_weights.json says what was done.
        sparsity: share of the attention weights to zero.
        pattern: instead, "2:4": two of every four inputs of an output; gamma then only orders.
        gamma: share of weights protected, those whose zeroing costs most; none: the run's.
        allow_unreliable: go on where the ranking of weights is mostly noise.
        overwrite: replace a model that is in `out` already.

    Returns:
        The content of levelhead_weights.json.

    Raises:
        ConfigError: neither or both of sparsity and pattern, or an unknown pattern.
        SelectionError: shares out of range, or together too large.
        UnreliableScoresError: the ranking of weights is mostly noise.
        ModelError: a pruned or quantised model.
        CheckpointError: a folder in the way.
    """
    if (sparsity is None) == (pattern is None):
        raise ConfigError("give either --sparsity or --pattern 2:4")
    if pattern not in (None, *PATTERNS):
        raise ConfigError(f"--pattern {pattern!r} is unknown; there is {', '.join(PATTERNS)}")
    folder = RunFolder.open(run)
    check_target(Path(out), overwrite)
    session = Session(replace(folder.config, samples=1))
    share = session.config.gamma if gamma is None else gamma
    attention_weights(session.base.model)  # refuses what cannot be done
    axis = session.config.axis[0]
    problem = session.problem(axis, "validation")
    base = sample_texts(problem, progress, f"sampling ({axis})")
    windows = text_windows(
        session.text_ids("validation"), session.base.model, session.config.text_tokens
    )
    scores = weight_effects(problem, base, windows, progress, session.config.seed)
    if not allow_unreliable:
        _refuse_noise(scores, axis)
    masks = _chosen(session, scores, share, sparsity)
    record = {
        "unit": "weight",
        "method": "fasp",
        "axis": axis,
        "gamma": share,
        "sparsity": sparsity,
        "pattern": pattern,
        **describe(masks),
        "reliability": scores.reliability,
        "measurable": scores.measurable,
        "details": scores.diagnostics,
        "measured": expected_change(
            session, axis, lambda: without_weights(session.base.model, masks), progress
        ),
        "model": session.model_name,
        "revision": session.base.revision,
        "scorer": session.scorer.identity,
        "toxicity_input": session.config.toxicity_input,
        "versions": versions(),
    }
    rise = record["measured"]["perplexity_increase"]["value"]
    limit = session.config.max_ppl_increase
    too_much = (
        f"perplexity is up by {rise:.1%}, more than {limit:.0%}: lower --sparsity or raise --gamma"
    )
    record["warnings"] = [too_much] if rise > limit else []
    _save(session, masks, record, Path(out), overwrite)
    return record


def _refuse_noise(scores: WeightScores, axis: str) -> None:
    why = []
    if not scores.measurable:
        why.append(f"{axis}: no subgroup gap of the base model can be told from 0")
    if scores.reliability < MIN_RELIABILITY:
        why.append(
            f"{axis}: the ranking of weights is mostly noise (split-half reliability "
            f"{scores.reliability:.2f}, below {MIN_RELIABILITY:g}); use a run with a larger "
            "--max-prompts"
        )
    if why:
        raise UnreliableScoresError(
            "; ".join([*why, "to zero weights all the same: --allow-unreliable"])
        )


def _chosen(session: Session, scores: WeightScores, gamma: float, sparsity: float | None) -> Masks:
    fall, cost = (
        {name: values.float().cpu().numpy() for name, values in of.items()}
        for of in (scores.fall, scores.cost)
    )
    if sparsity is None:
        dims = {name: input_dim(session.base.model, name) for name in fall}
        found = select_two_of_four(fall, cost, dims, gamma=gamma)
    else:
        found = select_weights(fall, cost, gamma=gamma, sparsity=sparsity)
    return {name: torch.from_numpy(mask) for name, mask in found.items()}


def _save(
    session: Session, masks: Masks, record: dict[str, Any], out: Path, overwrite: bool
) -> None:
    # A copy of its own, in the number format it was saved in.
    loaded = load_base(
        session.base_path, revision=session.config.revision, dtype="saved", device="cpu"
    )
    zero_weights(loaded.model, masks)
    kept = ("zeroed", "weights", "sparsity", "pattern", "gamma", "axis", "digest")
    setattr(loaded.model.config, MARK, {key: record[key] for key in kept})
    measured = record["measured"]
    expected = measured["expected_difference"]
    with new_folder(out, overwrite) as folder:
        loaded.model.save_pretrained(folder)
        if loaded.tokenizer is not None:
            loaded.tokenizer.save_pretrained(folder)
        runs.write_json(folder / RECORD, record)
        card = CARD.format(
            name=Path(session.model_name).name,
            share=record["zeroed"] / record["weights"],
            value=expected["value"],
            low=expected["ci95"][0],
            high=expected["ci95"][1],
            perplexity=measured["perplexity_increase"]["value"],
            record=RECORD,
            **{key: record[key] for key in ("zeroed", "weights", "axis", "digest")},
        )
        runs.write_text(folder / "README.md", card)
        write_manifest(folder, "zeroed", {})
