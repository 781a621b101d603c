"""Standard tasks on a local folder, offline: values by hand, paired differences, clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from levelhead.errors import ConfigError, MissingExtraError
from levelhead.experiments.tasks import RESULT, compared, tasks
from levelhead.models.loading import load_base

pytest.importorskip("lm_eval")
WORDS = (
    "women",
    "men",
    "people",
    "friends",
    "family",
    "Muslims",
    "Jews",
    "lesbian",
    "gay",
    "queer",
)
CHOICES = ("good", "bad")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multiple-choice task with its data beside it, and one whose data are missing."""
    path = tmp_path_factory.mktemp("tasks")
    rows = [
        {"context": f"the {word} are", "choices": list(CHOICES), "label": i % 2}
        for i, word in enumerate(WORDS)
    ]
    (path / "toy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    form = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    validation: {data}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{context}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
    (path / "toy.yaml").write_text(form.format(name="toy", data=path / "toy.jsonl"))
    (path / "lost.yaml").write_text(form.format(name="lost", data=path / "nowhere.jsonl"))
    return path


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def right(model_folder: Path) -> np.ndarray:
    """Which items a model gets right, computed without lm-eval."""
    loaded = load_base(model_folder, dtype="float32", device="cpu")
    assert loaded.tokenizer is not None
    encode: Any = loaded.tokenizer
    found = []
    for i, word in enumerate(WORDS):
        start = encode(f"the {word} are", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = loaded.model(torch.tensor([start])).logits[0, -1]
        ids = [encode(c, add_special_tokens=False)["input_ids"] for c in CHOICES]
        assert [len(one) for one in ids] == [1, 1]
        found.append(float(logits[ids[0][0]] < logits[ids[1][0]]) == i % 2)
    return np.array(found, dtype=float)


def test_values_and_paired_difference_on_a_local_folder(run: Path, folder: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1][0]
    plans = []
    found = tasks(run, ["toy"], include_path=folder, announce=plans.append, device="cpu")
    expected = {
        "base": right(Path(found["models"]["base"])), "pruned": right(run / "model"),
    }  # fmt: skip
    entry = found["tasks"]["toy"]["acc"]
    for which, answers in expected.items():
        assert entry[which]["value"] == pytest.approx(answers.mean())
        assert entry[which]["stderr"] == pytest.approx(answers.std(ddof=1) / np.sqrt(len(WORDS)))
    change = expected["pruned"] - expected["base"]
    assert entry["difference"]["value"] == pytest.approx(change.mean())
    assert entry["higher_is_better"] is True
    assert found["tasks"]["toy"]["items"] == len(WORDS)
    assert json.loads((run / RESULT).read_text()) == found
    assert plans[0].tasks == ("toy",)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1][0] == before[1]


def test_one_model_alone_and_fewer_items(inputs: Path, folder: Path) -> None:
    found = tasks(inputs / "model", ["toy"], include_path=folder, limit=4)
    entry = found["tasks"]["toy"]["acc"]
    assert set(entry) == {"higher_is_better", "pruned"}
    assert entry["pruned"]["value"] == right(inputs / "model")[:4].mean()


def _answer(values: list[float], value: float) -> dict[str, Any]:
    return {
        "results": {"t": {"alias": "t", "acc,none": value, "acc_stderr,none": 0.1}},
        "samples": {
            "t": [
                {"doc_id": i, "filter": "none", "acc": v} for i, v in reversed([*enumerate(values)])
            ]
        },
    }


def test_pairing_uses_the_items() -> None:
    base = [0.0, 1.0, 0.0, 1.0] * 10
    pruned = [0.0, 1.0, 0.0, 0.0] * 10  # worse on a quarter of the items, the same elsewhere
    answers = {"base": _answer(base, 0.5), "pruned": _answer(pruned, 0.25)}
    entry = compared(answers)["t"]["acc"]["difference"]
    assert entry["value"] == pytest.approx(-0.25)
    low, high = entry["ci95"]
    assert low < -0.25 < high < 0
    # Two independent samples of 40 would not tell these apart so clearly: the interval is paired.
    assert (high - low) / 2 < 2.02 * np.hypot(0.5, 0.433) / np.sqrt(40) * 0.8
    # A metric that is no mean over items has no interval.
    answers["pruned"] = _answer(pruned, 0.3)
    assert compared(answers)["t"]["acc"]["difference"] == {
        "value": pytest.approx(-0.2), "ci95": None,
    }  # fmt: skip


def test_bad_input(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no task given"):
        tasks(run, [])
    with pytest.raises(ConfigError, match="is not a folder"):
        tasks(run, ["toy"], include_path=folder / "nope")
    with pytest.raises(ConfigError, match=r"'lost' cannot be loaded.*include-path"):
        tasks(run, ["lost"], include_path=folder)
    with pytest.raises(ConfigError, match="--limit 1 "):
        tasks(run, ["toy"], include_path=folder, limit=1)
    with pytest.raises(ConfigError, match="leave out --base"):
        tasks(run, ["toy"], include_path=folder, base=run)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"levelhead\[lm-eval\]"):
        tasks(run, ["toy"])


@pytest.mark.slow
def test_a_misspelt_task_is_named_with_what_is_near(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"no task 'helaswag'; did you mean .*hellaswag"):
        tasks(run, ["helaswag"])
