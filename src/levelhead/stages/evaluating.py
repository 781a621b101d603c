"""The evaluate stage: the pruned model of a run against its base, on held-out prompts and text."""

from __future__ import annotations

from typing import Any

from levelhead import runs
from levelhead.config import EVALUATE, SCORE
from levelhead.errors import RunFolderError
from levelhead.evaluation import evaluate_run
from levelhead.models.checksums import saved_heads
from levelhead.models.removed_heads import removed_heads
from levelhead.progress import Progress
from levelhead.runs import RunFolder
from levelhead.session import Session
from levelhead.sharing.run_card import write_card
from levelhead.stages.selecting import read_selection
from levelhead.stages.versions import versions


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
    # Formats with a stock config say it beside that.
    gone = removed_heads(pruned) or saved_heads(folder.path / runs.MODEL)
    if gone and gone != selection.by_layer:
        raise RunFolderError(
            f"{folder.path / runs.MODEL} lacks other heads than selection.json names; "
            f"run: levelhead prune {folder.path}"
        )
    evaluation, continuations = evaluate_run(session, pruned, selection, progress)
    data = evaluation.to_json() | {"of": stamp, "versions": versions()}
    scoring = folder.path / runs.DETAILS
    if scoring.exists():
        chosen = (selection.details or {}).get("warnings", [])
        told = [*runs.read_json(scoring)["warnings"], *chosen, *data["warnings"]]
        data["warnings"] = list(dict.fromkeys(told))
    runs.write_continuations(folder.path / runs.CONTINUATIONS, continuations, keep="validation")
    runs.write_json(path, data)
    write_card(folder)
    return data
