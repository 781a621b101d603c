"""What was removed from a model, by which objective, and what that did: a record with a digest.

    levelhead.json, config.json    `objective`: the rule, small, from the moment of pruning
    levelhead_record.json          that, the removed units, and once evaluated the measured gaps

The digest finds a record that was changed by accident or by hand without care. It proves nothing
about who made it: whoever can change the record can compute the digest anew. `levelhead verify`
measures instead. Everything here is a pure function of a run's files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from levelhead import runs
from levelhead.price import prices, short_title
from levelhead.runs import RunFolder

RECORD = "levelhead_record.json"
FORMAT = 1
MARK = "levelhead_record"
_AXIS = (
    "verdict", "judged", "masked", "base", "pruned", "difference", "adjusted_difference",
    "expected_difference", "toxicity_difference", "common_factor", "floor", "relative_bias",
    "plain", "echo", "own_group_mentions", "second_scorer", "prompts", "samples", "templates",
)  # fmt: skip
"""Of each axis of evaluation.json."""
Json = Mapping[str, Any]


def objective_of(
    selection: Json,
    base: str | None,
    revision: str | None,
    *,
    config: Json | None = None,
    details: Json | None = None,
) -> dict[str, Any]:
    """The rule that chose what to remove, small enough for a config.json.

    Args:
        selection: selection.json.
        base: the base model's name on the hub; None for one that is on this machine only.
        revision: of the base on the hub.
        config: config.json of the run, where there is one.
        details: details.json of the run, where there is one.

    Returns:
        `method`, `gamma`, `alpha`, `axis`, `unit`, `scorer` (its identity), `toxicity_input`,
        `reliable`, `base`, `revision`, and the `digest` of these and of what is removed.
    """
    run, known = config or {}, details or {}
    found = {
        "method": selection.get("method", "listed"),
        "gamma": selection.get("gamma"),
        "alpha": selection.get("alpha"),
        "axis": selection.get("axis"),
        "unit": selection.get("unit", "head"),
        "scorer": known.get("scorer"),
        "toxicity_input": run.get("toxicity_input"),
        "reliable": selection.get("reliable"),
        "base": base,
        "revision": revision,
    }
    return found | {"digest": digest({"objective": found, **removed_of(selection)})}


def removed_of(selection: Json) -> dict[str, Any]:
    """{"removed_heads": {layer: heads}} of a selection (and "gates"), or {"removed_neurons"}.

    Of method average: {"average": what is changed, in which layers, by which rule}.
    """
    if "average" in selection:
        return {"average": dict(selection["average"])}
    if "neurons" in selection:
        return {"removed_neurons": dict(selection["neurons"])}
    layers: dict[str, list[int]] = {}
    for layer, head in sorted(map(tuple, selection["heads"])):
        layers.setdefault(str(layer), []).append(int(head))
    gates = {"gates": selection["gates"]} if selection.get("gates") else {}
    return {"removed_heads": layers, **gates}


def chosen_of(data: Json) -> Any:
    """The change, gates, neurons or heads that a file of a run names."""
    if "change" in data:
        return {"change": data["change"]}
    return data.get("gates", data.get("neurons", data.get("heads")))


def other_units(manifest: Json, selection: Json) -> str:
    """What a saved model (its levelhead.json) has otherwise than a selection names.

    Returns:
        "heads", "neurons", "gates" or "weights"; empty where they agree, or the model is of a
        levelhead that did not write down what it removed.
    """
    change = (selection.get("average") or {}).get("digest")
    if (manifest.get("average") or {}).get("digest") != change:
        return "weights"
    if change is not None:
        return ""
    if "neurons" in selection:
        return "" if manifest.get("removed_neurons") == selection["neurons"] else "neurons"
    if "gates" in selection or "gates" in manifest:
        return "" if manifest.get("gates") == selection.get("gates") else "gates"
    held = manifest.get("removed_heads")
    if held is None:
        return ""
    gone = sorted([int(layer), int(head)] for layer, heads in held.items() for head in heads)
    return "" if gone == sorted(map(list, selection["heads"])) else "heads"


def pruning_record(
    selection: Json, objective: Json, evaluation: Json | None = None, repair: Json | None = None
) -> dict[str, Any]:
    """The content of levelhead_record.json.

    Args:
        selection: selection.json.
        objective: `objective_of` it.
        evaluation: evaluation.json of the same heads; None: nothing was measured, which the
            record then says by `measured` being null.
        repair: how what was kept was repaired (levelhead.json), where it was.
    """
    found: dict[str, Any] = {
        MARK: FORMAT,
        **removed_of(selection),
        "objective": dict(objective),
        "measured": None if evaluation is None else _measured(evaluation),
    }
    if repair:
        found["repair"] = dict(repair)
    return found | {"digest": digest(found)}


def write_record(folder: RunFolder, model: Path, hub_name: str | None) -> dict[str, Any]:
    """Write levelhead_record.json beside a run's pruned model; returns its content.

    Args:
        folder: the run, in which heads are selected.
        model: the folder of its pruned model.
        hub_name: the base's name on the hub, if it has one.
    """
    selection = runs.read_json(folder.require(runs.SELECTION, f"select {folder.path}"))
    evaluation = _optional(folder.path / runs.EVALUATION)
    repair = (_optional(model / "levelhead.json") or {}).get("repair")
    if evaluation is not None and not is_of(evaluation, selection, repair):
        evaluation = None
    objective = run_objective(folder, selection, hub_name)
    record = pruning_record(selection, objective, evaluation, repair)
    runs.write_json(model / RECORD, record)
    return record


def run_objective(folder: RunFolder, selection: Json, hub_name: str | None) -> dict[str, Any]:
    """`objective_of` a run's selection."""
    details = _optional(folder.path / runs.DETAILS)
    return objective_of(
        selection,
        hub_name,
        (details or {}).get("revision") or folder.config.revision,
        config=folder.config.to_json(),
        details=details,
    )


def is_of(evaluation: Json, selection: Json, repair: Json | None) -> bool:
    """Whether an evaluation is of this selection, repaired in this way (None: not at all)."""
    return chosen_of(evaluation) == chosen_of(selection) and evaluation.get("repair") == repair


def digest(content: Json) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no white space, UTF-8, without `digest`."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    text = json.dumps(
        rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _measured(evaluation: Json) -> dict[str, Any]:
    text = evaluation["perplexity"]
    return {
        "axes": {
            axis: {key: found[key] for key in _AXIS if key in found}
            for axis, found in evaluation["axes"].items()
        },
        "perplexity": {key: text.get(key) for key in ("base", "pruned", "increase", "tokens")},
        "price": [
            {"text": short_title(one)} | {key: one.get(key) for key in ("increase", "kl", "tokens")}
            for one in prices(evaluation)
        ],
        "scorer": evaluation["scorer"],
        "toxicity_input": evaluation["toxicity_input"],
        "versions": evaluation.get("versions"),
    }


def _optional(path: Path) -> Any:
    return runs.read_json(path) if path.exists() else None
