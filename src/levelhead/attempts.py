"""Attempts: other selections from the scores of a run, each proven and kept beside the first.

    RUN                  attempt 1, the run itself
    RUN/attempts/2       attempt 2: a run folder of its own, with the scores of the first

An attempt is a run folder, so every command that takes one takes an attempt. And `stale`: which
results in a run folder are of another selection than selection.json names now.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from levelhead import json_files, runs
from levelhead.config import EVALUATE, PRUNE, SCORE, SELECT, RunConfig
from levelhead.config.checks import limited
from levelhead.config.choices import AVERAGE, NO_REPAIR
from levelhead.errors import ConfigError, RunFolderError
from levelhead.journal import sums
from levelhead.price import worst_price
from levelhead.records import HeadSelection
from levelhead.reporting.readiness import judged_ready
from levelhead.reporting.recommendation import recommended
from levelhead.runs import RunFolder
from levelhead.search_result import limit_of, nothing_found, rule
from levelhead.sharing.record import chosen_of, other_units

FOLDER = "attempts"
REPORT_OF = "report.json"
"""In work/: digests of the files that report.html was made of."""
OF_REPORT = (runs.SELECTION, runs.EVALUATION)
SCORED = (runs.SCORES, runs.DETAILS, runs.HALVES, runs.STABILITY, runs.FISHER)
"""What scoring leaves, and every attempt shares."""
Json = dict[str, Any]


def attempts(run: Path) -> Iterator[tuple[int, Path]]:
    """Numbers and folders of a run's attempts in order, the run itself first."""
    yield 1, run
    names = [path for path in (run / FOLDER).glob("*") if path.name.isdecimal()]
    for path in sorted(names, key=lambda path: int(path.name)):
        if runs.is_run(path):
            yield int(path.name), path


def new_attempt(folder: RunFolder, config: RunConfig) -> tuple[int, RunFolder]:
    """The attempt with these options, with the scores of the run: a new one, or the one there is.

    Args:
        folder: the run, or one of its attempts.
        config: the run's, with other options of selection.

    Raises:
        RunFolderError: nothing was scored yet, or what was is damaged.
    """
    run = root_of(folder.path)
    last = 1
    for number, path in attempts(run):
        there = RunFolder.open(path)
        if there.config == config.resolved():
            return number, there
        last = number
    for name in SCORED:
        sums.verify(run / name)
    folder.require(runs.SCORES, f"score --out {run}")
    path = run / FOLDER / str(last + 1)
    made = RunFolder.create(path, config, folder.calibration)
    for name in (*SCORED, runs.CONTINUATIONS):
        if (run / name).exists():
            shutil.copyfile(run / name, path / name)
    return last + 1, made


def root_of(path: Path) -> Path:
    """The run that a folder is an attempt of; the folder itself where it is none."""
    path = Path(path)
    above = path.resolve().parent
    is_attempt = above.name == FOLDER and path.name.isdecimal() and runs.is_run(above.parent)
    return path.parent.parent if is_attempt else path


def refuse_other(folder: RunFolder, selection: HeadSelection) -> None:
    """Refuse to replace a selection that the run's own options do not give.

    Args:
        selection: what they give.

    Raises:
        RunFolderError: selection.json names other heads.
    """
    path = folder.path / runs.SELECTION
    held = _read(path)
    if held is None or chosen_of(held) == chosen_of(selection.chosen_json()):
        return
    other = HeadSelection.from_json(held)
    run = folder.path
    raise RunFolderError(
        f"{path} names {other.described} chosen otherwise (method {rule(held)}) "
        "than this run's own options choose, and `run` would replace them. To go "
        f"on with them: levelhead prune {run}, evaluate {run}, report {run}. To have the run's own "
        f"result beside them, delete {path} first, and try the others as an attempt: "
        f"levelhead retry {run}"
    )


def stale(run: Path) -> dict[str, str]:
    """The stages whose result is of another selection than selection.json, and why; by stage."""
    selection = _read(run / runs.SELECTION)
    found = {}
    if selection is not None:
        manifest = _read(run / runs.MODEL / "levelhead.json")
        repaired = (manifest or {}).get("repair")
        asked = (_read(run / runs.CONFIG) or {}).get("repair", NO_REPAIR)
        if manifest is not None and (units := other_units(manifest, selection)):
            found["prune"] = f"{runs.MODEL}/ has other {units} than {runs.SELECTION} names"
        elif manifest is not None and (repaired or {}).get("method", NO_REPAIR) != asked:
            by = f"repaired ({repaired.get('method')})" if repaired else "not repaired"
            found["prune"] = f"{runs.MODEL}/ is {by}, and the run asks for repair {asked}"
        evaluation = _read(run / runs.EVALUATION)
        if evaluation is not None and chosen_of(evaluation) != chosen_of(selection):
            found["evaluate"] = f"{runs.EVALUATION} is of another selection than {runs.SELECTION}"
        elif evaluation is not None and manifest and evaluation.get("repair") != repaired:
            found["evaluate"] = f"{runs.EVALUATION} is of a model repaired otherwise"
    made_of = _read(run / runs.WORK / REPORT_OF)
    if made_of is not None and made_of != _digests(run) and (run / runs.REPORT).exists():
        found["report"] = f"{runs.REPORT} was made before {' or '.join(OF_REPORT)} changed"
    return found


def record_report(run: Path) -> None:
    """Keep what report.html was made of."""
    runs.write_json(run / runs.WORK / REPORT_OF, _digests(run))


def retried(config: RunConfig, options: Mapping[str, Any]) -> RunConfig:
    """The options of another attempt at a run.

    Raises:
        ConfigError: an option out of range, or one that changes scores.
    """
    allowed = [
        spec.name for spec in fields(RunConfig)
        if {SELECT, PRUNE, EVALUATE} & set(spec.metadata["stages"])
        and SCORE not in spec.metadata["stages"]
    ]  # fmt: skip
    for name in options:
        if name not in allowed:
            raise ConfigError(
                f"{name} changes what is scored or sampled, and an attempt uses the scores that "
                f"there are: start a run with another --out. Of an attempt: {', '.join(allowed)}"
            )
    searches = config.budget is not None and "max_ppl_increase" in options
    asked = dict(options)
    if asked.get("method") == AVERAGE and asked.get("budget") is None:
        asked.setdefault("max_ppl_increase", config.max_ppl_increase)
    if config.method == AVERAGE and {"gamma", "alpha"} & set(asked):
        asked.setdefault("method", "fasp")
    return replace(config, **limited(asked, searches))


def results(path: str | Path) -> Json:
    """What every attempt of a run selected, did and cost, side by side; computes nothing.

    Args:
        path: the run folder.

    Returns:
        `attempts`: a list with, for each, `attempt` (its number), `folder`, `method`, `gamma`,
        `alpha`, `heads` (how many), `selection` (all of it in a line), `stale` (why results are of
        another selection, by stage) and, once it is evaluated, `perplexity_increase` on the worst
        text (`price_text`), and `verdict`, `adjusted_difference` and `own_group_mentions` (their
        difference) of the axis that heads were selected for, `ready` (the report's word) or
        `nothing` (why a search took nothing). `recommended`: `attempt` (None: keep the base model)
        and `why`; None of a single attempt, or where one is not finished.

    Raises:
        RunFolderError: not a run folder.
    """
    run = RunFolder.open(path, old=True).path
    rows = [_result(n, one) for n, one in attempts(run)]
    return {"run": str(run), "attempts": rows, "recommended": recommended(rows)}


def _result(number: int, path: Path) -> Json:
    config = RunFolder.open(path, old=True).config
    selection, evaluation = _read(path / runs.SELECTION), _read(path / runs.EVALUATION)
    found: Json = {
        "attempt": number,
        "folder": str(path),
        "method": config.method,
        "gamma": config.gamma,
        "alpha": config.alpha,
        "budget": config.budget,
        "repair": config.repair,
        "stale": stale(path),
    }
    if selection is not None:
        chosen = HeadSelection.from_json(selection)
        found |= {
            "method": chosen.method,
            "gamma": selection.get("gamma"),
            "alpha": selection.get("alpha"),
            "heads": len(chosen.heads),
            "selected": chosen.described,
        }
    nothing = nothing_found(selection)
    found["selection"] = _described(found, nothing)
    if nothing:
        found["nothing"] = nothing
    if evaluation is not None and "evaluate" not in found["stale"]:
        axis, price = (selection or {}).get("axis", config.axis[0]), worst_price(evaluation)
        if price is not None:
            found |= {"perplexity_increase": price.rise, "price_text": price.text}
        if (one := evaluation["axes"].get(axis)) is not None:  # another axis may be evaluated alone
            mentions = one.get("own_group_mentions")
            found |= {
                "axis": axis,
                "verdict": one["verdict"],
                "adjusted_difference": one["adjusted_difference"],
                "own_group_mentions": mentions and mentions["difference"],
            }
            limit = limit_of(selection, config.to_json())
            if (judged := judged_ready(evaluation, axis, limit)) is not None:
                found["ready"] = judged.word
    return found


def _described(found: Json, nothing: str) -> str:
    """What an attempt chose, in a line."""
    within = "" if found["budget"] is None else f" within {found['budget']:.1%}"
    if nothing or ("selected" not in found and within):
        return f"searched{within}: nothing was taken"
    repaired = "" if found["repair"] == NO_REPAIR else f", repaired ({found['repair']})"
    chosen = found.get("selected", "nothing selected yet")
    return f"{rule(found)}: {chosen}{repaired}{within}"


def _digests(run: Path) -> Json:
    files = [run / name for name in OF_REPORT]
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()
    }


def _read(path: Path) -> Json | None:
    """A JSON object, or None: missing, or damaged, of which others speak."""
    if not path.is_file():
        return None
    try:
        found = json_files.read_json(path, RunFolderError)
    except RunFolderError:
        return None
    return found if isinstance(found, dict) else None
