"""What each stage of a run does in a run folder; `pipeline` is their public face.

A stage whose output is there, from the same options, model and heads, is not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, PreTrainedModel

from levelhead import __version__, runs
from levelhead.config import EVALUATE, SCORE, RunConfig
from levelhead.errors import RunFolderError, SelectionError, UnreliableScoresError
from levelhead.evaluation import evaluate_run
from levelhead.models.checkpoint import Format, register, save_pruned
from levelhead.models.loading import load_base
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import prune_heads
from levelhead.progress import Progress
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.scoring import BIAS_ESTIMATORS, PPL_ESTIMATORS
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.perplexity_effects import text_windows
from levelhead.scoring.problem import sample_texts
from levelhead.scoring.score_table import is_reliable, score_details, score_table
from levelhead.selection import select_heads
from levelhead.selection.rules import check_shares, protected_heads
from levelhead.session import Plan, Session

Announce = Callable[[Plan], None]
"""Called with the plan when every input has been checked, before long work starts."""


def start(session: Session, out: str | Path, announce: Announce | None) -> RunFolder:
    """Check everything that can be wrong, then make or reopen the folder."""
    config = session.config
    check_shares(config.method, config.gamma, config.alpha)
    RunFolder.check(out, config)
    plan = session.plan()
    check_shares(config.method, config.gamma, config.alpha, plan.heads)
    folder = RunFolder.create(out, config)
    if announce:
        announce(plan)
    return folder


def score_stage(session: Session, folder: RunFolder, progress: Progress) -> ScoreTable:
    config = session.config
    path = folder.path / runs.SCORES
    stamp = {"fingerprint": config.fingerprint(SCORE), "model": session.base.fingerprint}
    if path.exists() and runs.read_json(folder.path / runs.DETAILS).get("of") == stamp:
        return ScoreTable.read(path)
    problems = [session.problem(axis, "validation") for axis in config.axis]
    samples = [sample_texts(p, progress, f"sampling ({p.axis})") for p in problems]
    rows = [c for p, s in zip(problems, samples, strict=True) for c in s.records(p)]
    runs.write_continuations(folder.path / runs.CONTINUATIONS, rows)
    axes = [
        axis_effects(problem, sample, BIAS_ESTIMATORS[config.estimator](problem, sample, progress))
        for problem, sample in zip(problems, samples, strict=True)
    ]
    windows = text_windows(session.text_ids("validation"), session.base.model, config.text_tokens)
    perplexity = PPL_ESTIMATORS[config.ppl_estimator](
        session.base.model, windows, progress, config.seed, config.gamma
    )
    table = score_table(perplexity, axes)
    text = session.text("validation")
    details = score_details(perplexity, axes) | {
        "of": stamp,
        "model": session.model_name,
        "revision": session.base.revision,
        "scorer": session.scorer.identity,
        "text": {"name": text.name, "sha256": text.sha256, "licence": text.licence},
        "versions": _versions(),
    }
    runs.write_json(folder.path / runs.DETAILS, details)
    runs.write_text(path, table.to_csv())  # last: where it is, the stage is done
    return table


def chosen_heads(
    table: ScoreTable, axis: str | None, method: str, gamma: float, alpha: float, seed: int
) -> HeadSelection:
    if axis is None:
        if not table.axes:
            raise SelectionError("the score table has no bias_without_AXIS column to select by")
        axis = table.axes[0]
    return select_heads(table, axis=axis, method=method, gamma=gamma, alpha=alpha, seed=seed)


def refuse_noise(folder: RunFolder, axis: str) -> None:
    """Raise UnreliableScoresError where a run's ranking of an axis is mostly noise."""
    details = runs.read_json(folder.require(runs.DETAILS, f"score --out {folder.path}"))
    if axis in details["axes"] and not is_reliable(details, axis):
        why = [w for w in details["warnings"] if w.startswith(f"{axis}:")]
        raise UnreliableScoresError(
            "; ".join([*why, "to choose heads all the same: --allow-unreliable"])
        )


def select_stage(folder: RunFolder, config: RunConfig) -> HeadSelection:
    table = ScoreTable.read(folder.require(runs.SCORES, f"score --out {folder.path}"))
    axis = config.axis[0]
    chosen = chosen_heads(table, axis, config.method, config.gamma, config.alpha, config.seed)
    details = runs.read_json(folder.require(runs.DETAILS, f"score --out {folder.path}"))
    protects = config.method == "fasp"
    kept = np.argwhere(protected_heads(table, config.gamma)).tolist() if protects else []
    selection = replace(
        chosen,
        details={
            "axis": axis,
            "reliable": is_reliable(details, axis),
            "protected": kept,
        },
    )
    runs.write_json(folder.path / runs.SELECTION, selection.to_json())
    return selection


def read_selection(path: Path) -> HeadSelection:
    try:
        return HeadSelection.from_json(runs.read_json(path))
    except SelectionError as error:
        raise SelectionError(f"{path}: {error}") from error


def prune_stage(session: Session, folder: RunFolder, format: Format) -> PreTrainedModel:  # noqa: A002
    selection = read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
    target = folder.path / runs.MODEL
    # A copy of its own, in the number format it was saved in: the session's base stays as it is.
    loaded = load_base(
        session.base_path, revision=session.config.revision, dtype="saved", device="cpu"
    )
    prune_heads(loaded.model, selection.by_layer)
    save_pruned(loaded.model, target, format, loaded.tokenizer, overwrite=True)
    return loaded.model


def evaluate_stage(session: Session, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    selection = read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
    path = folder.path / runs.EVALUATION
    stamp = {
        "fingerprint": session.config.fingerprint(SCORE, EVALUATE),
        "model": session.base.fingerprint,
        "heads": [list(head) for head in selection.heads],
    }
    if path.exists():
        held: dict[str, Any] = runs.read_json(path)
        if held.get("of") == stamp:
            return held
    pruned = session.load(str(folder.path / runs.MODEL)).model
    if removed_heads(pruned) and removed_heads(pruned) != selection.by_layer:
        raise RunFolderError(
            f"{folder.path / runs.MODEL} lacks other heads than selection.json names; "
            f"run: levelhead prune {folder.path}"
        )
    evaluation, continuations = evaluate_run(session, pruned, selection, progress)
    data = evaluation.to_json() | {"of": stamp, "versions": _versions()}
    scoring = folder.path / runs.DETAILS
    if scoring.exists():
        data["warnings"] = [*runs.read_json(scoring)["warnings"], *data["warnings"]]
    runs.write_continuations(folder.path / runs.CONTINUATIONS, continuations, keep="validation")
    runs.write_json(path, data)
    return data


def holds_pruned(folder: RunFolder, selection: HeadSelection) -> bool:
    """Whether model/ lacks these very heads already."""
    path = folder.path / runs.MODEL
    if not (path / "config.json").exists():
        return False
    read: Any = AutoConfig.from_pretrained
    register()
    return bool(removed_heads(read(path)) == selection.by_layer)


def _versions() -> dict[str, str]:
    """What the numbers were computed with."""
    names = ("torch", "transformers", "numpy", "scipy")
    return {"levelhead": __version__} | {name: version(name) for name in names}
