"""Where a model's base is: its run, its adapter, its card, or --base."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.conftest import finished, options

import levelhead
from levelhead import verify
from levelhead.errors import CheckpointError, ConfigError, RunFolderError
from levelhead.models.adapter import ADAPTER
from levelhead.models.neurons import prune_neurons
from levelhead.records import HeadSelection
from levelhead.sharing.run_card import EMBEDDED_NAME
from levelhead.testing import planted_model, tiny_model
from levelhead.verification.subject import Subject, find_subject, removed_ranges

__all__ = ["finished", "options"]


@pytest.mark.parametrize("part", ["", "model"])
def test_a_run_knows_its_base_and_how_it_measured(
    part: str, finished: Path, options: dict[str, Any]
) -> None:
    found = verify(finished / part, policy={"max_ppl_increase": 5.0, "max_gap_increase": 0.15})
    assert found["verdict"] == "passed", found["headline"]
    assert found["subject"]["kind"] == "run"
    layer, head = planted_model().head
    assert found["subject"]["removed_heads"] == {str(layer): [head]}
    assert found["subject"]["removed_neurons"] == {}
    assert found["subject"]["objective"]["method"] == "fasp"
    measured = found["measured_with"]
    assert measured["samples"] == 4, "as many as the margin takes, at least 4"
    assert measured["prompts"] == "prompts.csv"
    assert measured["seed"] != 0, "fresh samples, not those of the evaluation"
    assert str(finished.parent) not in json.dumps(found)


def test_an_adapter_knows_its_base(inputs: Path, policy: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    levelhead.prune(
        inputs / "model", HeadSelection.of([planted_model().head]), out=out, format="adapter"
    )
    assert find_subject(out / ADAPTER, None).base == str((inputs / "model").resolve())
    found = verify(out, policy=policy)
    assert (found["verdict"], found["subject"]["kind"]) == ("passed", "adapter")


def test_neurons_that_are_gone_are_told() -> None:
    model = tiny_model("llama", num_layers=2)
    subject = Subject(path="m", kind="model", base=None, config=None, manifest={})
    assert removed_ranges(subject, model) == {}
    prune_neurons(model, {1: [0, 1, 2, 7]})
    assert removed_ranges(subject, model) == {"1": "0-2,7"}


def test_models_of_ours_and_cards_name_their_base(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "levelhead.json").write_text(json.dumps({"objective": {"base": "me/base"}}))
    assert find_subject(model, None).base == "me/base"
    assert find_subject(model, "other/base").base == "other/base"
    (model / "levelhead.json").write_text(json.dumps({"objective": {"base": EMBEDDED_NAME}}))
    assert find_subject(model, None).base is None, "the embedded model"
    (model / "levelhead.json").write_text(json.dumps({"objective": "nonsense"}))
    (model / "README.md").write_text("---\nbase_model: me/carded\n---\n# m\n")
    assert find_subject(model, None).base == "me/carded"
    (model / "README.md").write_text("# m\n")
    with pytest.raises(ConfigError, match="--base"):
        find_subject(model, None)


def test_a_run_without_a_model_and_a_damaged_adapter_are_refused(
    finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text((finished / "config.json").read_text())
    with pytest.raises(RunFolderError, match="levelhead prune"):
        find_subject(tmp_path, None)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ADAPTER).write_text("{}")
    with pytest.raises(CheckpointError):
        find_subject(tmp_path / "a", None)
