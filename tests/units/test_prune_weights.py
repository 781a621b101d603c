"""`levelhead prune-weights`: single attention weights are zeroed, saved as stock, and recorded."""

from __future__ import annotations

import json

import pytest
import torch
from tests.units.test_unit_runs import options  # noqa: F401 - a fixture
from transformers import AutoModelForCausalLM

import levelhead
from levelhead.cli.app import cli
from levelhead.config import RunConfig
from levelhead.errors import CheckpointError, ConfigError, SelectionError, UnreliableScoresError
from levelhead.models.attention_weights import attention_weights, describe
from levelhead.runs import RunFolder
from levelhead.stages.weights import RECORD


@pytest.fixture(scope="module")
def run(options, tmp_path_factory):  # noqa: F811
    """A run folder without results: its options are all that is asked for."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    RunFolder.create(folder, RunConfig.of(**options))
    return folder


@pytest.fixture(scope="module")
def pruned(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "model"
    return out, levelhead.prune_weights(
        run, out=out, sparsity=0.02, gamma=0.5, allow_unreliable=True
    )


def masks_of(folder, base):
    stock = AutoModelForCausalLM.from_pretrained(folder)
    whole = levelhead.load(base)
    before, after = attention_weights(whole), attention_weights(stock)
    return {n: (after[n] == 0) & (before[n] != 0) for n in before}, stock, whole


def test_the_saved_model_is_stock_with_the_recorded_zeros(pruned, options):  # noqa: F811
    out, record = pruned
    masks, stock, whole = masks_of(out, options["model"])
    total = sum(mask.numel() for mask in masks.values())
    # Some weights of the planted model are zero already, and cost nothing to zero.
    assert sum(int(m.sum()) for m in masks.values()) <= record["zeroed"] == int(0.02 * total)
    others = {n for n, _ in stock.named_parameters()} - set(masks)
    assert all(torch.equal(stock.get_parameter(n), whole.get_parameter(n)) for n in others)
    assert stock.num_parameters() == whole.num_parameters()
    assert json.loads((out / RECORD).read_text()) == record
    assert stock.config.levelhead_zeroed_weights["digest"] == record["digest"]
    assert "some attention weights set to zero" in (out / "README.md").read_text()
    assert (out / "levelhead.json").exists()


def test_the_fall_of_bias_is_what_the_saved_model_shows(pruned):
    _, record = pruned
    expected = record["measured"]["expected_difference"]
    assert expected["ci95"][1] < 0
    assert record["measured"]["perplexity_increase"]["value"] != 0


@pytest.mark.slow
def test_two_of_four(run, tmp_path):
    record = levelhead.prune_weights(run, out=tmp_path / "m", pattern="2:4", allow_unreliable=True)
    assert record["zeroed"] == record["weights"] // 2
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    for weight in attention_weights(stock).values():
        assert ((weight == 0).reshape(-1, 4).sum(1) >= 2).all()


def test_bad_input_is_refused_before_any_work(run, tmp_path):
    for given, error, said in [
        ({}, ConfigError, "either --sparsity or --pattern"),
        ({"sparsity": 0.1, "pattern": "2:4"}, ConfigError, "either"),
        ({"pattern": "1:4"}, ConfigError, "unknown"),
    ]:
        with pytest.raises(error, match=said):
            levelhead.prune_weights(run, out=tmp_path / "m", **given)
    with pytest.raises(CheckpointError, match="exists already"):
        levelhead.prune_weights(run, out=run, sparsity=0.1)
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_a_ranking_that_is_noise_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr("levelhead.stages.weights.MIN_RELIABILITY", 1.0)
    with pytest.raises(UnreliableScoresError, match="mostly noise"):
        levelhead.prune_weights(run, out=tmp_path / "m", sparsity=0.02)
    with pytest.raises(SelectionError, match="lower one of them"):
        levelhead.prune_weights(
            run, out=tmp_path / "m", sparsity=0.6, gamma=0.5, allow_unreliable=True
        )


def test_the_command_prints_what_was_measured(pruned, run, tmp_path, monkeypatch):
    from click.testing import CliRunner

    _, record = pruned
    monkeypatch.setattr("levelhead.pipeline.prune_weights", lambda *_, **__: record)
    found = CliRunner().invoke(
        cli, ["prune-weights", str(run), "--sparsity", "0.02", "--out", str(tmp_path / "m")]
    )
    assert found.exit_code == 0
    assert "attention weights are zero" in found.output
    assert describe({"a": torch.ones(2, 2, dtype=torch.bool)})["zeroed"] == 4
