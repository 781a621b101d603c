"""Does what was selected in one place hold in others? Other templates, descriptors, axes, scorers.

What the run selects, and as many random unprotected units as a control, are judged at each of
`transfer_places`: expected difference of bias (teacher-forced on the base model's continuations),
and on request freshly sampled. Expected differences are first-order and take the base model's
bias as known: hints with a small error. Sampling is the proof.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from levelhead import journal, runs
from levelhead.errors import ConfigError
from levelhead.evaluation.verdict import judged_together
from levelhead.experiments.transfer_places import HELD_OUT, SCORED, Place, places
from levelhead.journal.digests import digest
from levelhead.metrics.bias import bias
from levelhead.progress import Progress, silent
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.sampling import derived_seed
from levelhead.scores import ScoreTable
from levelhead.selection.rules import largest, protected_heads
from levelhead.selection.units import in_units
from levelhead.stages.fingerprints import experiment_fingerprint
from levelhead.stages.run_session import session_of
from levelhead.stages.selecting import read_selection

FOLDER, RESULT = "transfer", "transfer.json"
SELECTED = "selected"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPlan:
    """The work there is, at most: finished parts are not done again."""

    places: tuple[str, ...]
    sets: int
    prompts: int
    sampled_tokens: int


@runs.writes("transfer")
def transfer(
    run: str | Path,
    *,
    prompts: Sequence[str] = (),
    scorers: Sequence[str] = (),
    axes: Sequence[str] = (),
    controls: int = 2,
    sample: bool = False,
    max_prompts: int | None = None,
    progress: Progress = silent,
    announce: Callable[[TransferPlan], None] | None = None,
) -> Json:
    """Judge what a run selects where it was not selected; writes RUN/transfer.json.

    Args:
        run: a run folder with a selection.
        prompts: other prompt sources, such as "holistic-bias:FOLDER" or a file; descriptors that
            the run scored on are left out where enough others remain.
        scorers: other toxicity scorers, which read the held-out continuations again.
        axes: other axes of the run's prompts.
        controls: how many random sets of unprotected units to judge, too.
        sample: also sample the model without them (the selected ones, and one control).
        max_prompts: prompts per place; none: the run's.
        progress: where to report progress.
        announce: called with the plan when every input has been checked.

    Returns:
        {"axis", "selected", "num_heads", "rows", "headline"}; a row per place and set: `where`,
        `axis`, `prompts`, `scorer`, `new_descriptors`, `num_prompts`, `set` ("selected" or
        "random N"), `base_bias` (expected), `expected_difference` (without minus with them;
        negative: bias falls), `relative_change` (that, divided by `base_bias`), `kept` (relative
        change here, divided by that on the scoring templates; None where that is not clear of 0),
        `predicted` ("fall", "rise" or "unclear": a prediction), `sampled` (adjusted difference,
        mean toxicity, common factor and mentions, or None), `verdict` (of what was sampled, all
        rows together; None where nothing was).

    Raises:
        RunFolderError: not a run folder, or nothing selected in it.
        ConfigError: a negative number of controls, or the axis that they were chosen for.
        PromptError, ScorerError: a source, axis or scorer that there is not.
    """
    folder = RunFolder.open(run)
    selection = read_selection(folder.require(runs.SELECTION, f"select {run}"))
    axis = str((selection.details or {}).get("axis") or folder.config.axis[0])
    if controls < 0:
        raise ConfigError(f"--controls {controls} is negative")
    if axis in axes:
        raise ConfigError(f"--axis {axis} is the one that RUN selects for")
    config = replace(folder.config, axis=tuple(dict.fromkeys((axis, *axes))), all_axes=False)
    if max_prompts is not None:
        config = replace(config, max_prompts=max_prompts)
    session = session_of(folder, config)
    table = ScoreTable.read(folder.require(runs.SCORES, f"score --out {run}"))
    sets = _sets(table, selection, axis, controls, config.gamma, config.seed)
    found = places(
        session, folder.path / FOLDER, axis,
        sources=prompts, scorers=scorers, axes=axes, progress=progress,
    )  # fmt: skip
    if announce:
        announce(_plan(found, sets))
    rows: list[Json] = []
    of = experiment_fingerprint(session) | {"places": digest(*(one.identity for one in found))}
    with journal.stage(folder.path, "transfer", of):
        for place in found:
            for name, chosen in sets.items():
                prove = sample and name in (SELECTED, "random 1") and place.where != SCORED
                rows.append(_row(place, name, chosen, prove))
    sampled = {str(n): row["sampled"] for n, row in enumerate(rows) if row["sampled"]}
    verdicts = judged_together(sampled)
    for number, row in enumerate(rows):
        row["verdict"] = verdicts.get(str(number))
        row["sampled"] = None if row["sampled"] is None else _sampled(row["sampled"])
        row["kept"] = _kept(row, rows)
    result = {
        "axis": axis,
        "selected": selection.described,
        "num_heads": len(selection.heads),
        "rows": [_without_errors(row) for row in rows],
        "headline": headline(rows),
    }
    runs.write_json(folder.path / RESULT, result)
    return result


def headline(rows: Sequence[Json]) -> str:
    """Where the fall holds, in a sentence."""
    own = [row for row in rows if row["set"] == SELECTED and row["where"] != SCORED]
    lower = [row for row in own if row["predicted"] == "fall"]
    higher = [_place(row) for row in own if row["predicted"] == "rise"]
    random = [row for row in rows if row["set"] != SELECTED and row["where"] != SCORED]
    fell = sum(row["predicted"] == "fall" for row in random)
    said = f"Bias is predicted to fall at {len(lower)} of {len(own)} places it was not selected at"
    if random:
        said += f"; with as much at random, unprotected, in {fell} of {len(random)} cases"
    said += f". It is predicted to RISE at: {', '.join(higher)}." if higher else "."
    proven = [row["verdict"] for row in own if row.get("verdict")]
    if proven:
        told = Counter(proven)
        words = ", ".join(f"{word} at {number}" for word, number in told.most_common())
        said += f" Sampled at {len(proven)} of them: {words}."
    return said


def _sets(
    table: ScoreTable,
    selection: HeadSelection,
    axis: str,
    controls: int,
    gamma: float,
    seed: int,
) -> dict[str, HeadSelection]:
    """What is selected, and draws of as many of the other units that may be pruned.

    Where fewer are left, of all that may be pruned. Gates of heads are dealt out anew.
    """
    sets = {SELECTED: selection}
    if selection.average is not None:  # as much at random is another change, not other heads
        return sets
    free = ~protected_heads(table, gamma if selection.gamma is None else selection.gamma)
    chosen = selection.heads
    if selection.unit == "layer":  # a row of the table is a layer, of a selection a head
        chosen = tuple((layer, 0) for layer in selection.by_layer)
    others = free.copy()
    others[tuple(np.array(chosen, dtype=int).reshape(-1, 2).T)] = False
    free = others if others.sum() >= len(chosen) and selection.gates is None else free
    count = min(len(chosen), int(free.sum()))
    for number in range(1, controls + 1):
        rng = np.random.default_rng(derived_seed(seed, axis, "transfer control", number))
        if selection.gates is None:
            drawn = HeadSelection.of(largest(rng.random(free.shape), count, free))
            sets[f"random {number}"] = in_units(drawn, table)
        else:
            gates = np.array(selection.gates)
            gates[free] = rng.permutation(gates[free])
            gone = [(int(layer), int(head)) for layer, head in np.argwhere(gates == 0)]
            dealt = tuple(tuple(row) for row in gates.tolist())
            sets[f"random {number}"] = replace(HeadSelection.of(gone), gates=dealt)
    return sets


def _row(place: Place, name: str, chosen: HeadSelection, sample: bool) -> Json:
    judge, axis = place.judge, place.axis
    base = judge.base(axis)
    codes = base.problem.subgroup[base.texts.prompt]
    before = bias(base.token.expected, codes, len(base.problem.subgroups))
    difference = judge.expected(axis, chosen)
    low, high = difference["ci95"]
    relative = None
    if before > 0:
        relative = {
            "value": difference["value"] / before,
            "ci95": [low / before, high / before],
            "stderr": difference["stderr"] / before,
        }
    return {
        **place.about,
        "set": name,
        "base_bias": before,
        "expected_difference": {"value": difference["value"], "ci95": [low, high]},
        "relative_change": relative,
        "predicted": "fall" if high < 0 else "rise" if low > 0 else "unclear",
        "sampled": judge.sampled(axis, chosen) if sample else None,
    }


def _sampled(found: Json) -> Json:
    names = ("adjusted_difference", "toxicity_difference", "common_factor", "own_group_mentions")
    return {name: found.get(name) for name in names}


def _kept(row: Json, rows: Sequence[Json]) -> Json | None:
    """Relative change here over that on the scoring templates, with a delta-method interval.

    Errors of the two are taken as independent. Where they share texts (another scorer), they are
    not, and the interval is too wide rather than too narrow.
    """
    reference = next(r for r in rows if r["where"] == SCORED and r["set"] == row["set"])
    here, there = row["relative_change"], reference["relative_change"]
    if here is None or there is None or reference["predicted"] == "unclear":
        return None
    share = here["value"] / there["value"]
    error = math.hypot(here["stderr"], share * there["stderr"]) / abs(there["value"])
    if row is reference:
        error = 0.0
    return {"value": share, "ci95": [share - 1.96 * error, share + 1.96 * error]}


def _without_errors(row: Json) -> Json:
    relative = row["relative_change"]
    if relative is None:
        return row
    return row | {"relative_change": {key: relative[key] for key in ("value", "ci95")}}


def _place(row: Json) -> str:
    if row["where"] == HELD_OUT:
        return HELD_OUT
    return f"{row['where']} ({row['axis']}, {row['prompts']}, {row['scorer']})"


def _plan(found: Sequence[Place], sets: dict[str, Any]) -> TransferPlan:
    sampled = 0
    seen = set()
    for place in found:
        problem = place.judge.problem(place.axis)
        key = (place.prompts, place.axis, place.judge.split)
        if key not in seen:
            sampled += len(problem.prompts) * problem.samples * problem.new_tokens
        seen.add(key)
    return TransferPlan(
        places=tuple(_place({**p.about, "where": p.where}) for p in found),
        sets=len(sets),
        prompts=sum(len(p.judge.problem(p.axis).prompts) for p in found),
        sampled_tokens=sampled,
    )
