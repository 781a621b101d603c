"""What was removed, by which objective, and the measured gaps: with every saved model."""

import json
from pathlib import Path

import pytest
import torch

import levelhead
from levelhead import runs
from levelhead.models.checkpoint import FORMATS
from levelhead.records import HeadSelection
from levelhead.sharing.record import RECORD, digest, objective_of, pruning_record
from levelhead.testing import planted_model

SELECTION = HeadSelection.of(
    [(1, 2)], method="fasp", gamma=0.2, alpha=0.06, details={"axis": "gender", "reliable": True}
)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_finished_run_has_objective_and_measured_gaps(run: Path) -> None:
    record = read(run / "model" / RECORD)
    selection, evaluation = read(run / "selection.json"), read(run / "evaluation.json")
    gone = [[int(n), h] for n, heads in record["removed_heads"].items() for h in heads]
    assert gone == selection["heads"]
    objective = record["objective"]
    for key in ("method", "gamma", "alpha", "axis", "reliable"):
        assert objective[key] == selection[key], key
    assert objective["scorer"] == evaluation["scorer"]
    assert objective["base"] is None, "a folder of this machine: its path says where people work"
    measured = record["measured"]["axes"]["gender"]
    for model in ("base", "pruned"):
        assert measured[model] == evaluation["axes"]["gender"][model]
    for key in (
        "verdict", "judged", "masked", "adjusted_difference", "common_factor", "plain", "echo",
        "own_group_mentions", "second_scorer",
    ):  # fmt: skip
        assert measured[key] == evaluation["axes"]["gender"][key], key
    assert record["digest"] == digest(record)
    assert record["digest"] in (run / "model" / "README.md").read_text()
    assert str(run.parent) not in json.dumps(record)


def test_config_and_levelhead_json_hold_the_same_objective(run: Path) -> None:
    objective = read(run / "model" / "levelhead.json")["objective"]
    config = read(run / "model" / "config.json")
    assert config["quantization_config"]["objective"] == objective
    assert read(run / "model" / RECORD)["objective"] == objective
    model = levelhead.load(run / "model")
    again = run.parent / "again"
    model.save_pretrained(again)
    assert read(again / "config.json")["quantization_config"]["objective"] == objective


@pytest.mark.parametrize("form", [f for f in FORMATS if f not in ("uniform", "adapter")])
def test_every_format_says_it_and_loads(form: str, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / form
    levelhead.prune(inputs / "model", SELECTION, out=out, format=form)
    objective = read(out / "levelhead.json")["objective"]
    config = read(out / "config.json")
    stored = config.get("quantization_config", {}).get("objective")
    assert (stored or config["levelhead_objective"]) == objective
    assert objective["method"] == "fasp"
    record = read(out / RECORD)
    assert record["measured"] is None
    assert record["objective"] == objective
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        same = levelhead.load(out)(ids).logits - levelhead.load(out)(ids).logits
    assert same.abs().max() == 0


def test_checkpoints_without_an_objective_still_load(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "old"
    levelhead.prune(inputs / "model", SELECTION, out=out)
    (out / RECORD).unlink()
    (out / "levelhead.json").unlink()
    config = read(out / "config.json")
    del config["quantization_config"]["objective"]
    runs.write_text(out / "config.json", json.dumps(config))
    assert levelhead.load(out).config.quantization_config.by_layer == {1: (2,)}


@pytest.mark.parametrize("nonsense", ["text", [1], 7, None])
def test_nonsense_in_the_place_of_an_objective_does_no_harm(
    nonsense: object, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "odd"
    levelhead.prune(inputs / "model", SELECTION, out=out)
    (out / "levelhead.json").unlink()
    config = read(out / "config.json")
    config["quantization_config"]["objective"] = nonsense
    runs.write_text(out / "config.json", json.dumps(config))
    assert levelhead.load(out).config.quantization_config.by_layer == {1: (2,)}


def test_a_changed_record_has_another_digest() -> None:
    objective = objective_of(SELECTION.to_json(), "me/base", None)
    record = pruning_record(SELECTION.to_json(), objective)
    assert record["digest"] == digest(record) == digest(json.loads(json.dumps(record)))
    for change in ({"removed_heads": {"1": [3]}}, {"objective": {**objective, "alpha": 0.5}}):
        assert digest(record | change) != record["digest"]
    other = HeadSelection.of([planted_model().head, (0, 0)], method="fasp")
    assert objective_of(other.to_json(), "me/base", None)["digest"] != objective["digest"]
