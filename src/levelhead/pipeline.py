"""The stages of a run as plain functions: score, select, prune, evaluate, report, and all in order.

prompts -> continuations -> head scores -> selection -> pruned model -> evaluation -> report
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack, cast

from transformers import PreTrainedModel

from levelhead import runs
from levelhead.attempts import new_attempt, refuse_other, results, retried
from levelhead.choosing import select
from levelhead.config import RunConfig, RunOptions
from levelhead.diagnosis import diagnose
from levelhead.errors import ConfigError, SelectionError
from levelhead.experiments.agree import agree
from levelhead.experiments.axes import axes
from levelhead.experiments.bench_model import bench_model
from levelhead.experiments.compare import compare
from levelhead.experiments.examples import examples
from levelhead.experiments.glance import glance as heads
from levelhead.experiments.interactions import interactions
from levelhead.experiments.reproduce import reproduce
from levelhead.experiments.rescore import rescore
from levelhead.experiments.scorers import scorers
from levelhead.experiments.tasks import tasks
from levelhead.experiments.transfer import transfer
from levelhead.export.model import TARGETS, Target, export_model
from levelhead.journal import watch
from levelhead.models.checkpoint import Format, load
from levelhead.models.repair import NONE
from levelhead.pages import report
from levelhead.progress import Progress, Stages, silent, unseen
from levelhead.proving import Attempt, proven, second_attempt
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.session import Session
from levelhead.sharing.hub import push
from levelhead.sharing.run_card import write_card
from levelhead.stages.averaging import Averages
from levelhead.stages.evaluating import evaluate_stage
from levelhead.stages.joint import judge_with
from levelhead.stages.pruning import (
    prune_stage,
    prune_to_file,
    prune_to_folder,
    take_repair,
)
from levelhead.stages.run_session import prune_session, with_kept
from levelhead.stages.scoring import Announce, score_stage, start
from levelhead.stages.selecting import read_selection, refuse_noise, select_stage
from levelhead.stages.weights import prune_weights
from levelhead.verification import verify

__all__ = [
    "agree",
    "axes",
    "bench_model",
    "compare",
    "diagnose",
    "evaluate",
    "examples",
    "export_model",
    "heads",
    "interactions",
    "load",
    "prune",
    "prune_weights",
    "push",
    "report",
    "reproduce",
    "rescore",
    "results",
    "retry",
    "run",
    "score",
    "scorers",
    "select",
    "tasks",
    "transfer",
    "verify",
]


def run(
    model: str | None = None,
    *,
    out: str | Path,
    progress: Progress = silent,
    announce: Announce | None = None,
    stages: Stages = unseen,
    allow_unreliable: bool = False,
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
        stages: entered around every stage, with its name.
        allow_unreliable: prune even where the ranking of heads is mostly noise, as for `select`.
        options: the fields of `RunConfig`.

    Returns:
        The content of `evaluation.json`: what pruning did on held-out prompts and text.

    Raises:
        UserError: bad input, before any long work.
        UnreliableScoresError: the ranking is mostly noise, or a search found nothing that reduces
            the measured gap; what was scored stays.
    """
    config = RunConfig.of(model, **options)
    session = Session(config)
    folder = start(session, out, announce, prunes=True)
    with runs.working(folder.path, "run"):
        folder = RunFolder.create(out, session.config)  # nobody else's meanwhile
        folder = take_repair(folder, session.config.repair)
        with_kept(session, folder)
        with stages("score"):
            score_stage(session, folder, watch.watched(progress))
        if not allow_unreliable:
            refuse_noise(folder, session.config)
        watched = watch.watched(progress)
        judge = judge_with(session, watched)
        averages = Averages(session, watched, judge)
        keep = partial(refuse_other, folder)
        with stages("select"):
            selection = select_stage(
                folder, session.config, judge=judge, keep=keep, averages=averages
            )
            made = [Attempt(session=session, folder=folder, selection=selection)]
            if session.config.two_attempts and (second := second_attempt(made[0], averages)):
                made.append(second)
        return proven(made, watched, stages)


@runs.writes("retry")
def retry(
    path: str | Path,
    *,
    progress: Progress = silent,
    announce: Announce | None = None,
    stages: Stages = unseen,
    allow_unreliable: bool = False,
    **options: Unpack[RunOptions],
) -> dict[str, Any]:
    """Try another selection from the same scores: select, prune, evaluate, report.

    It is kept beside the first result, as `attempts/2` and so on in the run folder; the run itself
    is attempt 1. The same options again go on with, or return, the attempt that there is.

    Args:
        path: the run folder.
        progress: where to report progress.
        announce: called with the plan before long work starts.
        stages: as for `run`.
        allow_unreliable: as for `run`.
        options: fields of `RunConfig` that select and evaluate; those not given are the run's own.

    Returns:
        The content of the attempt's `evaluation.json`, with `attempt` (its number) and `folder`.

    Raises:
        ConfigError: an option that only scoring has.
        RunFolderError: nothing scored yet.
        SelectionError: shares that cannot be satisfied.
        UnreliableScoresError: as `run`; nothing is written.
    """
    folder = RunFolder.open(path)
    config = retried(folder.config, options)
    if not allow_unreliable:
        refuse_noise(folder, config)
    session = Session(config)
    plan = session.plan()
    number, attempt = new_attempt(folder, config)
    if announce:
        announce(plan)
    with_kept(session, attempt)
    with runs.working(attempt.path, "retry"):
        judge = judge_with(session, progress)
        with stages("select"):
            averages = Averages(session, progress, judge)
            selection = select_stage(attempt, session.config, judge=judge, averages=averages)
        made = [Attempt(session=session, folder=attempt, selection=selection)]
        evaluation = proven(made, progress, stages)
    if (Path(path) / runs.REPORT).exists():
        report(path)
    return evaluation | {"attempt": number, "folder": str(attempt.path)}


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
    config = RunConfig.of(model, **options)
    session = Session(config)
    folder = start(session, out, announce)
    with runs.working(folder.path, "score"):
        folder = RunFolder.create(out, session.config)  # nobody else's meanwhile
        return score_stage(session, folder, watch.watched(progress))


@runs.writes("prune")
def prune(
    model: str | Path | None = None,
    heads: str | Path | HeadSelection | None = None,
    *,
    out: str | Path | None = None,
    format: Format | Target | Literal["lora"] = "compact",  # noqa: A002 - the flag's name
    revision: str | None = None,
    overwrite: bool = False,
    repair: str | None = None,
    text: str | None = None,
    progress: Progress = silent,
    **options: Any,
) -> PreTrainedModel:
    """Remove heads physically and save the smaller model.

    Args:
        model: a run folder, or the model to prune (none: the embedded one).
        heads: a selection, or a file in selection.json's form; none: the run folder's own.
        out: where to save; none: `model/` of the run folder, else nowhere.
        format: compact, zeroed, uniform, remote-code or adapter, with a model card in the folder;
            or lora, a PEFT adapter, of a selection of method average; or a file for another engine:
            onnx or gguf. docs/formats.md tells which.
        revision: of a model on the hub; a run folder has its own.
        overwrite: replace a model that is in `out` already.
        repair: "none", or "least-squares": what is kept of a layer takes over what was removed, as
            far as it can on the calibration text; or "group-averaged": but for what differs
            between subgroups, on validation prompts of the run that `model`, or the file of heads,
            belongs to. None: the run's own. A run folder whose model/ is written keeps it.
        text: that text, as `text` of a run (its validation part); none: the run's own.
        progress: where to report progress of a repair.
        options: of transformers' `save_pretrained`, such as max_shard_size="2GB"; of a file, those
            of `export_model`.

    Returns:
        The pruned model.

    Raises:
        SelectionError: no heads, or some that the model does not have.
        CheckpointError: a format that these heads or this family cannot have, a folder in the
            way, a full disk.
        ConfigError: onnx or gguf without `out`, an unknown `repair`, or group averages where no
            run says of which prompts.
        TextError: a calibration text that is too short.
        MissingExtraError: the extra `onnx` or `gguf` is not installed.
    """
    found = model is not None and runs.is_run(Path(model))
    folder = RunFolder.open(cast(str, model), old=True) if found else None
    if format in TARGETS and out is None:
        raise ConfigError(f"--format {format} writes one file: name it with --out FILE")
    asked: Any = {"repair": repair, "text": text}
    asked = {name: value for name, value in asked.items() if value is not None}
    if text is not None and (repair or (folder.config.repair if folder else NONE)) == NONE:
        raise ConfigError("--text is what a repair is fitted to; give --repair too")
    if folder is not None and heads is None and out is None:
        session = with_kept(Session(replace(folder.config, **asked)), folder)
        folder = take_repair(folder, session.config.repair)
        return prune_stage(session, folder, cast(Format, format), progress, **options)
    own = heads is None
    if heads is None:
        if folder is None:
            raise SelectionError("no heads given; name a file in selection.json's form (--heads)")
        heads = folder.require(runs.SELECTION, f"select {folder.path}")
    selection = heads if isinstance(heads, HeadSelection) else read_selection(Path(heads))
    session = prune_session(folder, heads, model, revision, asked)
    options |= {"overwrite": overwrite, "progress": progress}
    if format in TARGETS:
        return prune_to_file(session, selection, str(out), format, **options)
    pruned = prune_to_folder(session, selection, out, cast(Format, format), **options)
    if folder is not None and own and out is not None:
        write_card(folder, Path(out))  # the run knows more about it
    return pruned


@runs.writes("evaluate")
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
    evaluation = evaluate_stage(session, folder, progress)
    if (folder.path / runs.REPORT).exists():
        report(folder.path)  # else it would go on showing what was measured before
    return evaluation
