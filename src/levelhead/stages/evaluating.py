"""The evaluate stage: the pruned model of a run against its base, on held-out prompts and text."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from levelhead import journal, runs
from levelhead.config import EVALUATE, SCORE
from levelhead.errors import RunFolderError
from levelhead.evaluation import evaluate_run
from levelhead.evaluation.base import BaseAxis
from levelhead.evaluation.divergence import check_text
from levelhead.journal import sums, watch
from levelhead.models.average_edit import average_of
from levelhead.models.repair import NONE, repair_of, saved_repair
from levelhead.models.stored import stored_parameters
from levelhead.models.units import removed_units, same_average, same_gates, same_units, saved_units
from levelhead.progress import Progress
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.session import Session
from levelhead.sharing.run_card import write_card
from levelhead.stages.fingerprints import fingerprint, stamp
from levelhead.stages.looks import Look, next_look
from levelhead.stages.pruning import recorded_files
from levelhead.stages.selecting import read_selection
from levelhead.stages.versions import versions


def evaluate_stage(
    session: Session,
    folder: RunFolder,
    progress: Progress,
    bases: dict[str, BaseAxis] | None = None,
) -> dict[str, Any]:
    """evaluation.json, measured where it is not there yet.

    Args:
        bases: the base model's side by axis, of another attempt at the same run; what is missing is
            computed and put there.
    """
    selection = read_selection(folder.require(runs.SELECTION, f"select {folder.path}"))
    path = folder.path / runs.EVALUATION
    of = stamp(session, "test", session.evaluated_axes, SCORE, EVALUATE)
    of |= selection.chosen_json()
    of["price_texts"] = [session.text("test", name).sha256 for name in session.config.price_texts]
    repair = saved_repair(folder.path / runs.MODEL)
    if (repair or {}).get("method", NONE) != session.config.repair:
        by = f"repaired ({repair['method']})" if repair else "not repaired"
        raise RunFolderError(
            f"{folder.path / runs.MODEL} is {by}, and the run asks for repair "
            f"{session.config.repair}; run: levelhead prune {folder.path}"
        )
    if repair is not None:
        of["repair"] = repair
    held: dict[str, Any] | None = None
    if path.exists():
        if sums.is_whole(path):
            held = runs.read_json(path)
            if held is not None and held.get("of") == of:
                return _with_size(held, folder)
        else:
            message = f"{path} is not as it was written; the model is evaluated again"
            watch.event("damaged", level="warning", files=[path.name], message=message)
    look = next_look(session.config, held, of)
    check_text(session, "test")
    sums.verify(folder.path / runs.CONTINUATIONS)
    for file in recorded_files(folder):
        sums.verify(file)
    pruned = session.load(str(folder.path / runs.MODEL)).model
    if repair_of(pruned) != repair:
        raise RunFolderError(
            f"config.json and levelhead.json of {folder.path / runs.MODEL} differ in how it was "
            f"repaired; run: levelhead prune {folder.path}"
        )
    # Formats with a stock config say it beside that.
    unit = selection.unit
    gone = removed_units(pruned, unit) or saved_units(folder.path / runs.MODEL, unit)
    scaled = same_gates(folder.path / runs.MODEL, selection)
    said = (average_of(pruned) or {}).get("digest")  # in config.json, the record beside it apart
    averaged = same_average(folder.path / runs.MODEL, selection)
    scaled = scaled and averaged and said == (selection.average or {}).get("digest")
    if not scaled or (selection.gates is None and gone and not same_units(gone, selection)):
        raise RunFolderError(
            f"{folder.path / runs.MODEL} lacks other heads than selection.json names; "
            f"run: levelhead prune {folder.path}"
        )
    with journal.stage(folder.path, "evaluate", fingerprint(session, of, pruned)):
        return _evaluate(session, folder, pruned, selection, progress, of, look, bases)


def _with_size(held: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """A finished evaluation with the size of the model as it is saved: formats differ in it."""
    stored = stored_parameters(folder.path / runs.MODEL)
    parameters, size = held["parameters"], held["bytes"]
    if stored is None or stored == parameters["pruned"]:
        return held
    each = size["pruned"] / parameters["pruned"]
    held["parameters"], held["bytes"] = (
        parameters | {"pruned": stored},
        size | {"pruned": round(stored * each)},
    )
    runs.write_json(folder.path / runs.EVALUATION, held)
    write_card(folder)
    return held


def _evaluate(
    session: Session,
    folder: RunFolder,
    pruned: PreTrainedModel,
    selection: HeadSelection,
    progress: Progress,
    of: dict[str, Any],
    look: Look,
    bases: dict[str, BaseAxis] | None,
) -> dict[str, Any]:
    path = folder.path / runs.EVALUATION
    evaluation, continuations = evaluate_run(
        session, pruned, selection, progress, error=look.level, bases=bases
    )
    verdicts = {axis: one.verdict for axis, one in evaluation.axes.items()}
    data = evaluation.to_json() | {
        "looks": look.to_json(session.config.seed, verdicts),
        "of": of,
        "versions": versions(),
    }
    scoring = folder.path / runs.DETAILS
    if scoring.exists():
        chosen = (selection.details or {}).get("warnings", [])
        fitted = (repair_of(pruned) or {}).get("warnings", [])
        told = [*runs.read_json(scoring)["warnings"], *chosen, *fitted, *data["warnings"]]
        data["warnings"] = list(dict.fromkeys(told))
    runs.write_continuations(folder.path / runs.CONTINUATIONS, continuations, keep="validation")
    runs.write_json(path, data)
    write_card(folder)
    return _with_size(data, folder)
