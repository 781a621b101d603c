"""The stages of a run as plain functions: score, select, prune, evaluate, report, and all in order.

    prompts -> continuations -> head scores -> selection -> pruned model -> evaluation -> report

Each reads and writes one run folder. The only orchestrator: nothing below it knows the folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from transformers import AutoConfig, PreTrainedModel

from levelhead import __version__, runs
from levelhead.config import EVALUATE, SCORE, RunConfig, RunOptions
from levelhead.errors import RunFolderError, SelectionError
from levelhead.evaluation import evaluate_run
from levelhead.models.checkpoint import Format, load, register, save_pruned
from levelhead.models.loading import load_base
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import prune_heads
from levelhead.progress import Progress, silent
from levelhead.records import HeadSelection
from levelhead.report.render import render_report
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

__all__ = ["evaluate", "load", "prune", "report", "run", "score", "select"]

Announce = Callable[[Plan], None]
"""Called with the plan when every input has been checked, before long work starts."""


def run(
    model: str | None = None,
    *,
    out: str | Path,
    progress: Progress = silent,
    announce: Announce | None = None,
    **options: Unpack[RunOptions],
) -> dict[str, Any]:
    """Score, select, prune, evaluate and report, in one run folder.

    A folder that holds a part of the same run is gone on with: finished stages are not repeated.

    Args:
        model: hub id, local folder or GGUF file of a causal language model; none: the embedded
            SmolLM2-135M-Instruct.
        out: the run folder, to be made.
        progress: where to report progress.
        announce: called with the plan before long work starts.
        options: the fields of `RunConfig`.

    Returns:
        The content of `evaluation.json`: what pruning did on held-out prompts and text.

    Raises:
        UserError: bad input, before any long work.
    """
    config = RunConfig(model=model, **options)
    session = Session(config)
    folder = _start(session, out, announce)
    _score(session, folder, progress)
    selection = _select(folder, session.config)
    if not _holds_pruned(folder, selection):
        _prune(session, folder, "compact")
    evaluation = _evaluate(session, folder, progress)
    report(folder.path)
    return evaluation


def score(
    model: str | None = None,
    *,
    out: str | Path,
    progress: Progress = silent,
    announce: Announce | None = None,
    **options: Unpack[RunOptions],
) -> ScoreTable:
    """Score every head: writes config.json, continuations.jsonl, scores.csv and details.json.

    Arguments and errors as for `run`.

    Returns:
        The table of head scores.
    """
    session = Session(RunConfig(model=model, **options))
    folder = _start(session, out, announce)
    return _score(session, folder, progress)


def select(
    scores: str | Path | ScoreTable,
    *,
    axis: str | None = None,
    method: str = "fasp",
    gamma: float = 0.3,
    alpha: float = 0.1,
    seed: int = 0,
) -> HeadSelection:
    """Choose the heads to prune.

    Args:
        scores: a run folder (selection.json is written there), a score table's CSV, or a table.
        axis: the axis whose bias is to be reduced; none: the first that the scores have.
        method: fasp, bias_only, ppl_only or random.
        gamma: share of heads protected for language modelling.
        alpha: share of heads pruned.
        seed: of method random.

    Raises:
        SelectionError: shares that cannot be satisfied, or an alpha that prunes nothing.
        ScoreTableError: the table lacks the axis or a column.
    """
    if isinstance(scores, ScoreTable):
        return _chosen(scores, axis, method, gamma, alpha, seed)
    if not runs.is_run(Path(scores)):
        table = Path(scores)
        if table.is_dir():
            raise RunFolderError(f"{table} is neither a run folder nor a score table (CSV)")
        return _chosen(ScoreTable.read(table), axis, method, gamma, alpha, seed)
    folder = RunFolder.open(scores)
    config = replace(
        folder.config,
        axis=(axis,) if axis else folder.config.axis,
        method=method,
        gamma=gamma,
        alpha=alpha,
        seed=seed,
    )
    return _select(folder, config)


def prune(
    model: str | Path | None = None,
    heads: str | Path | HeadSelection | None = None,
    *,
    out: str | Path | None = None,
    format: Format = "compact",  # noqa: A002 - the flag's name
    overwrite: bool = False,
) -> PreTrainedModel:
    """Remove heads physically and save the smaller model.

    Args:
        model: a run folder, or the model to prune (none: the embedded one).
        heads: a selection, or a file in selection.json's form; a run folder has its own.
        out: where to save; none: `model/` of the run folder, else nowhere.
        format: "compact", or "zeroed" (stock architecture, loads anywhere, no smaller).
        overwrite: replace a model that is in `out` already.

    Returns:
        The pruned model.

    Raises:
        SelectionError: heads that the model does not have.
        CheckpointError: a folder in the way.
    """
    if model is not None and runs.is_run(Path(model)) and heads is None:
        folder = RunFolder.open(model)
        session = Session(folder.config)
        if out is None:
            return _prune(session, folder, format)
        selection = _read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
    else:
        if heads is None:
            raise SelectionError("no heads given; name a file in selection.json's form (--heads)")
        selection = heads if isinstance(heads, HeadSelection) else _read_selection(Path(heads))
        session = Session(RunConfig(model=None if model is None else str(model)))
    loaded = load_base(session.base_path, dtype="saved", need_tokenizer=False)
    prune_heads(loaded.model, selection.by_layer)
    if out is not None:
        save_pruned(loaded.model, out, format, loaded.tokenizer, overwrite=overwrite)
    return loaded.model


def evaluate(
    path: str | Path, *, progress: Progress = silent, **options: Unpack[RunOptions]
) -> dict[str, Any]:
    """Compare the pruned model of a run folder with its base; writes evaluation.json.

    Args:
        path: the run folder.
        options: fields of `RunConfig` to evaluate with; those not given are the run's own.

    Returns:
        As `run`.

    Raises:
        RunFolderError: not a run folder, or nothing pruned in it yet.
    """
    folder = RunFolder.open(path)
    folder.require(runs.MODEL, f"prune {path}")
    session = Session(replace(folder.config, **options))
    return _evaluate(session, folder, progress)


def report(path: str | Path) -> Path:
    """Write report.html of a run folder from what its stages left; computes nothing.

    Returns:
        The page's path.
    """
    folder = RunFolder.open(path)
    page = render_report(
        evaluation=runs.read_json(folder.require(runs.EVALUATION, f"evaluate {path}")),
        table=ScoreTable.read(folder.require(runs.SCORES, f"score --out {path}")),
        selection=_read_selection(folder.require(runs.SELECTION, f"select {path}")),
        config=folder.config.to_json(),
        details=runs.read_json(folder.require(runs.DETAILS, f"score --out {path}")),
    )
    target = folder.path / runs.REPORT
    runs.write_text(target, page)
    return target


def _start(session: Session, out: str | Path, announce: Announce | None) -> RunFolder:
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


def _score(session: Session, folder: RunFolder, progress: Progress) -> ScoreTable:
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
        session.base.model, windows, progress, config.seed
    )
    table = score_table(perplexity, axes)
    runs.write_text(path, table.to_csv())
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
    return table


def _chosen(
    table: ScoreTable, axis: str | None, method: str, gamma: float, alpha: float, seed: int
) -> HeadSelection:
    if axis is None:
        if not table.axes:
            raise SelectionError("the score table has no bias_without_AXIS column to select by")
        axis = table.axes[0]
    return select_heads(table, axis=axis, method=method, gamma=gamma, alpha=alpha, seed=seed)


def _select(folder: RunFolder, config: RunConfig) -> HeadSelection:
    table = ScoreTable.read(folder.require(runs.SCORES, f"score --out {folder.path}"))
    axis = config.axis[0]
    chosen = _chosen(table, axis, config.method, config.gamma, config.alpha, config.seed)
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


def _read_selection(path: Path) -> HeadSelection:
    try:
        return HeadSelection.from_json(runs.read_json(path))
    except SelectionError as error:
        raise SelectionError(f"{path}: {error}") from error


def _prune(session: Session, folder: RunFolder, format: Format) -> PreTrainedModel:  # noqa: A002
    selection = _read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
    target = folder.path / runs.MODEL
    # A copy of its own, in the number format it was saved in: the session's base stays as it is.
    loaded = load_base(
        session.base_path, revision=session.config.revision, dtype="saved", device="cpu"
    )
    prune_heads(loaded.model, selection.by_layer)
    save_pruned(loaded.model, target, format, loaded.tokenizer, overwrite=True)
    return loaded.model


def _evaluate(session: Session, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    selection = _read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
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
    runs.write_continuations(folder.path / runs.CONTINUATIONS, continuations, keep="validation")
    runs.write_json(path, data)
    return data


def _holds_pruned(folder: RunFolder, selection: HeadSelection) -> bool:
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
