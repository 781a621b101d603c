"""Every format of every family computes what gating computes, also in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from tests.rounding import FAR, SAME, difference
from transformers import AutoModelForCausalLM

from levelhead.errors import CheckpointError
from levelhead.models.architectures import architecture_named
from levelhead.models.checkpoint import FORMATS, load, save_pruned
from levelhead.models.gates import ablate
from levelhead.models.surgery import prune_heads
from levelhead.testing import TINY_FAMILIES, tiny_model

# The tiny models have 3 layers of 6 heads; grouped ones share a key/value head between 3.
ANY: dict[str, dict[int, list[int]]] = {
    "uneven": {0: [0, 4], 1: [5], 2: [1, 2, 3, 5]},
    "whole layer": {0: [0, 1, 2, 3, 4, 5], 2: [3, 4, 5]},
    "one head": {1: [2]},
    "unequal groups": {0: [0], 1: [3, 4], 2: [1, 5]},
}
EQUAL: dict[str, dict[int, list[int]]] = {
    "one of a group": {0: [0, 3], 1: [2, 5], 2: [1, 4]},
    "a whole group": {0: [0, 1, 2], 1: [3, 4, 5], 2: [0, 1, 2]},
}
WHOLE = {"whole layer": {0: [0, 1, 2, 3, 4, 5]}}
OTHER = {0: [1, 2], 1: [0], 2: [4]}
OTHER_LAYER = {1: [0, 1, 2, 3, 4, 5]}
STOCK_CANNOT = {
    "gpt2", "gpt_neo", "gptj", "gpt_neox", "opt", "stablelm", "bloom", "falcon",
}  # fmt: skip


def sets_of(family: str, form: str) -> dict[str, dict[int, list[int]]]:
    """The sets of heads that a format can hold in a family."""
    if architecture_named(family).whole_layers_only:
        return {} if form == "uniform" else WHOLE
    if form == "uniform":
        return {} if family in STOCK_CANNOT else EQUAL
    return ANY


def prepare(
    tmp_path: Path, family: str, form: str, sets: Any, inputs: Any, logits: Any
) -> list[Any]:
    """Save sets of heads of a family in a format; the jobs for a fresh process."""
    base = tmp_path / "base" / family
    tiny_model(family).save_pretrained(base)
    partial = not architecture_named(family).whole_layers_only
    jobs = []
    for name, heads in sets.items():
        auto: Any = AutoModelForCausalLM
        model = auto.from_pretrained(base)
        with ablate(model, heads):
            expected = logits(model)
        with ablate(model, OTHER if partial else OTHER_LAYER):
            wrong = logits(model)
        prune_heads(model, heads)
        folder = save_pruned(model, tmp_path / form / family / name.replace(" ", "-"), form)
        again = logits(load(folder))
        assert difference(logits(model), expected) < SAME, (family, name)
        assert difference(again, expected) < SAME, (family, name)
        known = folder.with_suffix(".known")
        values = {"expected": expected, "wrong": wrong}
        save_file(
            values | {"ids": inputs["input_ids"], "mask": inputs["attention_mask"]}, str(known)
        )
        jobs.append({"format": form, "folder": str(folder), "expected": str(known)})
    return jobs


def run_fresh(tmp_path: Path, jobs: list[Any]) -> None:
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("fresh_process.py")
    call = [sys.executable, str(script), str(tmp_path / "jobs.json"), str(tmp_path / "modules")]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(jobs) > 0
    for job, (same, other) in zip(jobs, found, strict=True):
        assert same < SAME, job
        assert other > FAR, job  # control: the wrong heads would be seen


def test_every_format_in_a_fresh_process(tmp_path, inputs, logits):
    """One family with grouped queries; all of them are in the slow tier."""
    jobs = []
    for form in ("zeroed", "uniform", "remote-code", "compact", "adapter"):
        chosen = {name: ANY[name] for name in ("whole layer", "unequal groups")}
        chosen = EQUAL if form == "uniform" else chosen
        jobs += prepare(tmp_path, "phi3", form, chosen, inputs, logits)
    run_fresh(tmp_path, jobs)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_every_family_in_a_fresh_process(form, tmp_path, inputs, logits):
    jobs = [
        job
        for family in TINY_FAMILIES
        for job in prepare(tmp_path, family, form, sets_of(family, form), inputs, logits)
    ]
    run_fresh(tmp_path, jobs)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_which_families_uniform_can_hold(family, fresh, tmp_path):
    """Those that cannot say why; their other formats are in the matrix."""
    if architecture_named(family).whole_layers_only:
        return
    model = fresh(family)
    prune_heads(model, EQUAL["one of a group"])
    if family in STOCK_CANNOT:
        reason = "stock config of .* cannot say .*width of a head.*hidden size.*save it as compact"
        with pytest.raises(CheckpointError, match=reason):
            save_pruned(model, tmp_path / "m", "uniform")
        assert list(tmp_path.iterdir()) == []
    else:
        folder = save_pruned(model, tmp_path / "m", "uniform")
        text = json.loads((folder / "config.json").read_text())
        assert "quantization_config" not in text
        text = text.get("text_config", text)
        assert text["num_attention_heads"] == 4
        assert load(folder).num_parameters() == model.num_parameters()


def test_llama_needs_a_hidden_size_that_divides(fresh, tmp_path):
    model = fresh("llama", num_key_value_heads=6)
    prune_heads(model, {layer: [0] for layer in range(3)})  # 48 columns, 5 heads
    with pytest.raises(
        CheckpointError, match=r"hidden size \(48\) is not a multiple .*heads \(5\)"
    ):
        save_pruned(model, tmp_path / "m", "uniform")
    model = fresh("mistral", num_key_value_heads=6)
    prune_heads(model, {layer: [0] for layer in range(3)})
    save_pruned(model, tmp_path / "m", "uniform")


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({0: [0, 3], 1: [1]}, "1 in layer 1; 2 in layer 0; .*--per-layer-equal"),
        ({0: [0, 3], 1: [1, 4], 2: [0, 1]}, "layer 2 the groups of query heads.* no longer of one"),
        ({0: [0, 1, 2], 1: [3, 4, 5], 2: [0, 3, 4]}, "groups of query heads"),
        ({0: range(6), 1: range(6), 2: range(6)}, "cannot have 0 heads"),
    ],
)
@pytest.mark.filterwarnings("ignore:every head of every layer")
def test_uniform_refuses_what_a_stock_config_cannot_say(heads, message, fresh, tmp_path):
    model = fresh("mistral")
    prune_heads(model, heads)
    with pytest.raises(CheckpointError, match=message):
        save_pruned(model, tmp_path / "m", "uniform")
    assert list(tmp_path.iterdir()) == []


def test_unequal_numbers_of_key_value_heads_are_refused(fresh, tmp_path):
    """Four groups of two: layer 0 keeps four of them, layer 1 keeps two whole ones."""
    model = fresh("mistral", num_heads=8, num_key_value_heads=4, num_layers=2, hidden_size=64)
    prune_heads(model, {0: [0, 2, 4, 6], 1: [0, 1, 2, 3]})
    with pytest.raises(CheckpointError, match="left are 4 in layer 0; 2 in layer 1"):
        save_pruned(model, tmp_path / "m", "uniform")


def test_a_config_that_means_something_else_is_noticed(fresh, tmp_path, monkeypatch):
    """Right shapes are not enough: the stock model must give the same logits."""
    from levelhead.models import uniform

    model = fresh("gemma2")
    prune_heads(model, EQUAL["one of a group"])
    right = uniform._smaller_config

    def wrong(*args):
        config = right(*args)
        config.query_pre_attn_scalar *= 2
        return config

    monkeypatch.setattr(uniform, "_smaller_config", wrong)
    with pytest.raises(CheckpointError, match="computes something else"):
        save_pruned(model, tmp_path / "m", "uniform")
