"""Whole runs of neurons and of attention layers, on a tiny model whose biased neuron is known."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest
from tests.pipeline.conftest import write_inputs
from tests.rounding import SAME
from tests.units.conftest import NEURON
from transformers import AutoModelForCausalLM

import levelhead
from levelhead.errors import ConfigError, RunFolderError
from levelhead.metrics.perplexity import perplexity
from levelhead.models.neuron_gates import ablate_neurons
from levelhead.models.removed_heads import removed_heads, removed_neurons
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.session import Session
from levelhead.testing import save_tiny_checkpoint


@pytest.fixture(scope="module")
def options(planted_neuron, tmp_path_factory):
    folder = write_inputs(tmp_path_factory.mktemp("inputs"), planted_neuron)
    return {
        "model": str(folder / "model"),
        "axis": ("gender",),
        "prompts": str(folder / "prompts.csv"),
        "text": str(folder / "text.txt"),
        "toxicity": "profanity-check",
        "samples": 2,
        "new_tokens": 6,
        "text_tokens": 600,
        "gamma": 0.2,
        "alpha": 0.05,
        "reliability": 0.0,
    }


@pytest.fixture(scope="module")
def neurons(options, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "neurons"
    return out, levelhead.run(out=out, unit="neuron", **options)


def test_a_run_of_neurons_removes_the_planted_one(neurons):
    out, evaluation = neurons
    selection = json.loads((out / "selection.json").read_text())
    assert selection["unit"] == evaluation["unit"] == "neuron"
    assert selection["neurons"] == evaluation["neurons"]
    assert "heads" not in selection
    model = levelhead.load(out / "model")
    gone = removed_neurons(model)
    assert sum(map(len, gone.values())) == int(0.05 * 288)
    assert NEURON[1] in gone[NEURON[0]]
    assert evaluation["axes"]["gender"]["difference"]["value"] < -0.1
    assert evaluation["headline"].startswith("Removing 14 neurons reduces")
    table = (
        levelhead.ScoreTable.read(out / "scores.csv") if hasattr(levelhead, "ScoreTable") else None
    )
    assert table is None or table.unit == "neuron"
    header, *rows = (out / "scores.csv").read_text().splitlines()
    assert header.startswith("layer,neuron,")
    assert len(rows) == 288


def test_its_report_and_card_say_the_unit(neurons):
    out, _ = neurons
    page = (out / "report.html").read_text()
    assert "14 of 288 neurons pruned" in page
    assert "Head map" not in page
    card = (out / "model/README.md").read_text()
    assert "14 MLP neurons" in card
    assert "Removed neurons" in card
    assert levelhead.report(out, "md").exists()


@pytest.mark.slow
def test_it_goes_on_where_it_stopped_and_selects_again(neurons, options):
    out, evaluation = neurons
    before = (out / "scores.csv").stat().st_mtime_ns
    assert levelhead.run(out=out, unit="neuron", **options) == evaluation
    assert (out / "scores.csv").stat().st_mtime_ns == before
    other = levelhead.select(out, alpha=0.02, gamma=0.2)
    assert other.unit == "neuron"
    with pytest.raises(RunFolderError, match=r"selection\.json"):
        levelhead.evaluate(out)
    levelhead.select(out, alpha=0.05, gamma=0.2)


def test_neurons_are_saved_as_a_stock_checkpoint(neurons, tmp_path):
    out, _ = neurons
    levelhead.prune(out, out=tmp_path / "zeroed", format="zeroed")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "zeroed")
    gone = removed_neurons(levelhead.load(out / "model"))
    for layer, neurons_gone in gone.items():
        down = stock.model.layers[layer].mlp.down_proj.weight
        assert (down[:, list(neurons_gone)] == 0).all()


@pytest.mark.slow
def test_a_run_of_layers_removes_the_layer_that_carries_the_name(options, planted_neuron, tmp_path):
    given = options | {"alpha": 0.34, "gamma": 0.0}
    evaluation = levelhead.run(out=tmp_path / "layers", unit="layer", **given)
    layer = planted_neuron.head[0]
    assert removed_heads(levelhead.load(tmp_path / "layers/model")) == {layer: tuple(range(6))}
    selection = json.loads((tmp_path / "layers/selection.json").read_text())
    assert (selection["unit"], selection["layers"]) == ("layer", [layer])
    assert evaluation["headline"].startswith("Removing 1 attention layer reduces")
    assert (tmp_path / "layers/scores.csv").read_text().startswith("layer,ppl_without")
    assert "1 of 3 layers pruned" in (tmp_path / "layers/report.html").read_text()


def test_neurons_of_experts_are_refused_before_any_work(options, tmp_path):
    save_tiny_checkpoint(tmp_path / "moe", "mixtral")
    with pytest.raises(
        levelhead.UserError if hasattr(levelhead, "UserError") else Exception
    ) as told:
        levelhead.run(
            out=tmp_path / "run", unit="neuron", **options | {"model": str(tmp_path / "moe")}
        )
    assert "mixture of experts" in str(told.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def heads(options, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "heads"
    levelhead.score(out=out, **options | {"alpha": 0.06})
    return out


@pytest.mark.slow
def test_runs_of_neurons_are_compared_with_runs_of_heads(neurons, heads):
    out, _ = neurons
    found = levelhead.compare(
        heads, out, methods=("fasp",), alphas=(0.0, 0.06), gammas=(0.2,), sample_at=(), seeds=1
    )
    points = {p["run"]: p for p in found["points"] if p["alpha"] and p["gamma"]}
    assert points["heads"]["num_heads"] == 1
    assert "unit" not in points["heads"]
    own = points["neurons"]
    assert own["unit"] == "neuron"
    assert "heads" not in own
    gone = HeadSelection.from_json({"neurons": own["neurons"]})
    assert NEURON in gone.heads
    assert own["num_heads"] == len(gone.heads) == 17
    change = {name: p["axes"]["gender"]["expected_difference"] for name, p in points.items()}
    assert change["neurons"]["ci95"][1] < 0
    # What the comparison judged is the model without these neurons: by its perplexity.
    session = Session(RunFolder.open(heads).config)
    ids = session.text_ids("test")[:4096]
    whole = levelhead.load(session.base_path)
    bos = session.tokenizer.bos_token_id
    with ablate_neurons(whole, gone.by_layer):
        assert own["perplexity"] == pytest.approx(
            perplexity(whole, ids, bos_token_id=bos).perplexity, rel=SAME
        )
    assert own["perplexity"] != pytest.approx(points["heads"]["perplexity"], rel=1e-4)
    assert levelhead.report(heads).exists()


def test_neurons_are_judged_elsewhere_beside_random_ones(neurons, tmp_path):
    run = Path(copytree(neurons[0], tmp_path / "run"))
    found = levelhead.transfer(run, controls=1)
    assert found["selected"] == "14 neurons"
    rows = {(r["where"], r["set"]): r for r in found["rows"]}
    own, other = (rows["held-out templates", name] for name in ("selected", "random 1"))
    assert own["predicted"] == "fall"
    assert own["expected_difference"]["value"] < other["expected_difference"]["value"] - 0.01


def test_commands_that_know_heads_only_say_so(neurons):
    out, _ = neurons
    for command in (levelhead.interactions, levelhead.agree, levelhead.heads):
        with pytest.raises(ConfigError, match="knows attention heads only"):
            command(out)


@pytest.mark.slow
def test_examples_of_neurons_are_those_of_the_pruned_model(neurons):
    out, _ = neurons
    found = levelhead.examples(out, groups=2, samples=1)
    assert found["prompts"]
