"""Neurons gated, zeroed, pruned, saved and reloaded are one function, for every known family."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from functools import cache

import pytest
import torch
from safetensors.torch import save_file
from tests.rounding import FAR, SAME, difference
from transformers import AutoModelForCausalLM

from levelhead.errors import CheckpointError, ModelError, SelectionError, UserError
from levelhead.models.checkpoint import load, save_pruned
from levelhead.models.neuron_gates import ablate_neurons, gated_neurons
from levelhead.models.neuron_layouts import EXPERTS, LAYOUTS, neuron_counts
from levelhead.models.neurons import prune_neurons, zero_neurons
from levelhead.models.removed_heads import (
    LevelheadConfig,
    model_is_pruned,
    removed_heads,
    removed_neurons,
)
from levelhead.models.surgery import prune_heads
from levelhead.records import ranges_of, ranges_text
from levelhead.testing import tiny_model

FAMILIES = [family for family in LAYOUTS if family != "olmo2"]
QUICK = ["gpt2", "gpt_neo", "gptj", "llama", "phi3", "opt", "gpt_neox", "bloom", "gemma3"]


@cache
def shared(family):
    return tiny_model(family)


def fresh(family):
    return copy.deepcopy(shared(family))


def chosen(model, shift=0):
    """A third of layer 0's neurons, all of layer 1's, one of layer 2's."""
    _, count = neuron_counts(model)
    some = [3 * i + shift for i in range(count // 3) if 3 * i + shift != 1 or shift]
    return {0: some, 1: range(count), 2: [5 + shift]} if not shift else {0: some, 2: [5 + shift]}


IDS = torch.randint(4, 200, (3, 10), generator=torch.Generator().manual_seed(5))


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in FAMILIES],
)
def test_all_ways_to_remove_neurons_agree(family, tmp_path):
    whole, zeroed, pruned, other = (fresh(family) for _ in range(4))
    gone = chosen(whole)
    with ablate_neurons(whole, gone):
        expected = logits(whole)
    zero_neurons(zeroed, gone)
    prune_neurons(pruned, gone)
    prune_neurons(other, chosen(other, shift=1))
    save_pruned(pruned, tmp_path / "compact")
    save_pruned(pruned, tmp_path / "zeroed", "zeroed")
    reloaded = load(tmp_path / "compact")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "zeroed")

    for model in (zeroed, pruned, reloaded, stock):
        assert difference(logits(model), expected) < SAME
    assert difference(logits(other), expected) > FAR
    assert difference(logits(whole), expected) > FAR  # the gates are gone
    assert removed_neurons(reloaded) == removed_neurons(pruned)
    assert {layer: list(n) for layer, n in gone.items()} == {
        layer: list(n) for layer, n in removed_neurons(pruned).items()
    }
    assert not model_is_pruned(stock)
    assert reloaded.num_parameters() < whole.num_parameters() == stock.num_parameters()
    assert neuron_counts(reloaded) == neuron_counts(whole)
    # Numbers are those of the whole model.
    with ablate_neurons(reloaded, {0: [1]}), ablate_neurons(whole, gone | {0: [1, *gone[0]]}):
        assert difference(logits(reloaded), logits(whole)) < SAME


@pytest.mark.slow
def test_pruned_neurons_load_in_a_fresh_process_and_not_without_levelhead(tmp_path):
    jobs = []
    for family in ("gpt2", "phi3"):
        pruned, other = fresh(family), fresh(family)
        prune_neurons(pruned, chosen(pruned))
        prune_neurons(other, chosen(other, shift=1))
        save_pruned(pruned, tmp_path / family)
        known = {"expected": logits(pruned), "wrong": logits(other), "ids": IDS}
        save_file(known, tmp_path / f"{family}.safetensors")
        jobs.append([str(tmp_path / family), str(tmp_path / f"{family}.safetensors")])
    code = """
import json, sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging
logging.disable_progress_bar(); logging.set_verbosity_error()
found = []
jobs = json.loads(sys.argv[1])
try:
    AutoModelForCausalLM.from_pretrained(jobs[0][0])
    found.append("loaded")
except Exception:
    found.append("refused")
import levelhead
for folder, file in jobs:
    known = load_file(file)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(input_ids=known["ids"]).logits
    scale = known["expected"].abs().max()
    found.append([float((logits - known[k]).abs().max() / scale) for k in ("expected", "wrong")])
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(jobs)], capture_output=True, text=True, check=True
    )
    refused, *found = json.loads(done.stdout.splitlines()[-1])
    assert refused == "refused"
    assert all(same < SAME and far > FAR for same, far in found)


@pytest.mark.parametrize("family", EXPERTS)
def test_mixtures_of_experts_are_refused_with_the_reason(family):
    with pytest.raises(UserError, match="mixture of experts"):
        prune_neurons(shared(family), {0: [0]})


def test_heads_and_neurons_can_both_go(tmp_path):
    model, whole = fresh("llama"), fresh("llama")
    prune_neurons(model, {0: [1, 2]})
    prune_heads(model, {1: [3]})
    save_pruned(model, tmp_path / "both")
    again = load(tmp_path / "both")
    assert removed_heads(again) == {1: (3,)}
    assert removed_neurons(again) == {0: (1, 2)}
    assert difference(logits(again), logits(model)) < SAME
    assert difference(logits(again), logits(whole)) > FAR


def test_older_levelheads_refuse_the_checkpoint_and_read_those_of_heads_alone():
    assert LevelheadConfig({0: [1]}).format_version == 1
    assert "neurons" not in LevelheadConfig({0: [1]}).to_dict()
    assert LevelheadConfig({}, neurons={0: "1-3"}).format_version == 2


@pytest.mark.parametrize(
    ("stored", "error"),
    [
        ({"neurons": {"0": "3-1"}}, "ranges"),
        ({"neurons": {"0": "0-99999999"}}, "ranges"),
        ({"neurons": ["0"]}, "ranges"),
        ({"format_version": 3}, "newer levelhead"),
    ],
)
def test_damaged_records_are_refused(stored, error):
    with pytest.raises(CheckpointError, match=error):
        LevelheadConfig(**stored)


def test_a_config_that_names_neurons_the_model_lacks_is_refused(tmp_path):
    model = fresh("llama")
    prune_neurons(model, {0: [1, 2]})
    save_pruned(model, tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    config["quantization_config"]["neurons"] = {"0": "1,999"}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    (tmp_path / "m/levelhead.json").unlink()
    with pytest.raises(CheckpointError, match="neuron 999 of layer 0"):
        load(tmp_path / "m")


@pytest.mark.parametrize("form", ["uniform", "remote-code", "adapter"])
def test_formats_that_know_heads_only_say_so(form, tmp_path):
    model = fresh("llama")
    prune_neurons(model, {0: [1]})
    with pytest.raises(CheckpointError, match="compact or zeroed"):
        save_pruned(model, tmp_path / "out", form)


def test_bad_neurons_are_refused():
    model = fresh("llama")
    with pytest.raises(SelectionError, match="neuron 96 of layer 0"):
        prune_neurons(model, {0: [96]})
    with pytest.raises(ValueError, match="expected"), gated_neurons(model, torch.ones(2, 2)):
        pass
    prune_neurons(model, {0: [95]})
    with pytest.raises(ModelError, match="lost neurons already"):
        prune_neurons(model, {0: [1]})


@pytest.mark.parametrize("numbers", [(), (0,), (0, 1, 2), (3, 5, 6, 9), (0, 2, 4)])
def test_ranges_read_back(numbers):
    assert ranges_of(ranges_text(numbers)) == numbers


@pytest.mark.parametrize("text", ["1,1", "a", "-3", "2-1", "1,,2", "1-2000000", "٣"])
def test_what_is_no_list_of_ranges_is_refused(text):
    with pytest.raises(SelectionError):
        ranges_of(text)
