"""Methods joint and fisher_only, finalists and soft pruning, through a whole tiny run."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

import levelhead
from levelhead import cli, runs
from levelhead.errors import RunFolderError, SelectionError
from levelhead.models.gates import gated
from levelhead.testing import planted_model


@pytest.fixture(scope="module")
def done(inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with method joint; not to be written to."""
    out = tmp_path_factory.mktemp("joint") / "run"
    given = options | {"method": "joint", "alpha": 0.2, "finalists": 2, "reliability": 0}
    levelhead.run(str(inputs / "model"), out=out, **given)
    return out


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    return Path(copytree(done, tmp_path / "run"))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_joint_runs_end_to_end_and_says_what_it_predicted(done: Path) -> None:
    selection, frontier = read(done / runs.SELECTION), read(done / runs.FRONTIER)
    assert selection["method"] == "joint"
    assert len(selection["heads"]) == 3
    assert set(selection["predicted"]) == {"kl", "perplexity_increase"}
    assert selection["measured"]["kl"]["value"] > 0
    assert 0 < selection["agreement"]["overlap"] <= 1
    assert selection["agreement"]["overlap_chance"] == pytest.approx(3 / 15)
    about = read(done / runs.DETAILS)["perplexity"]
    assert about["set_level"] > 0
    assert about["calibration_sets"] == 8
    assert "measured" in frontier["fasp"]
    read_sets = [row for row in frontier["joint"] if "measured" in row]
    assert 1 <= len(read_sets) <= 2
    assert sorted(selection["heads"]) in [sorted(row["heads"]) for row in read_sets]
    text = read(done / runs.EVALUATION)["perplexity"]
    assert text["predicted"] == selection["predicted"]
    assert text["kl"]["value"] >= 0
    assert text["nll_increase"] == pytest.approx(np.log(text["pruned"] / text["base"]))
    protected = {tuple(head) for head in selection["protected"]}
    assert len(protected) == 3
    assert not protected & {tuple(head) for head in selection["heads"]}


def test_selecting_again_takes_no_model_and_agrees_with_the_frontier(run: Path) -> None:
    before = read(run / runs.FRONTIER)
    chosen = levelhead.select(run, method="joint", gamma=0.2, alpha=0.2, allow_unreliable=True)
    after = read(run / runs.FRONTIER)
    assert [row["heads"] for row in after["joint"]] == [row["heads"] for row in before["joint"]]
    assert list(map(list, chosen.heads)) in [sorted(row["heads"]) for row in after["joint"]]
    single = levelhead.select(
        run, method="joint", gamma=0.2, alpha=0.2, kl_weight=1e6, allow_unreliable=True
    )
    assert [row["lambda"] for row in read(run / runs.FRONTIER)["joint"]] == [1e6]
    cheapest = levelhead.select(run, method="fisher_only", alpha=0.2)
    known = [(s.details or {})["predicted"]["kl"] for s in (cheapest, single, chosen)]
    assert known[0] <= known[1] + 1e-9
    assert known[1] <= known[2] + 1e-9
    few = levelhead.select(
        run, method="joint", gamma=0.2, alpha=0.4, max_ppl_increase=0.0, allow_unreliable=True
    )
    assert len(few.heads) <= 7


def test_the_command_line_takes_its_options(run: Path) -> None:
    base = ["select", str(run), "--method", "joint", "--gamma", "0.2", "--alpha", "0.2"]
    base += ["--allow-unreliable", "--json"]
    plain = CliRunner().invoke(cli.cli, base)
    assert plain.exit_code == 0, plain.output
    said = json.loads(plain.stdout)
    assert len(said["heads"]) == 3
    assert said["predicted"]["kl"] > 0
    assert 0 <= said["agreement"]["overlap"] <= 1
    people = CliRunner().invoke(cli.cli, base[:-1])
    assert f"predicted cost: KL {said['predicted']['kl']:.3f} nats per token" in people.output
    wrong = CliRunner().invoke(cli.cli, [*base, "--weights", "1,2"])
    assert wrong.exit_code != 0
    soft = CliRunner().invoke(cli.cli, [*base, "--soft", "--lambda", "0.1", "--weights", "2"])
    assert soft.exit_code == 0, soft.output
    assert np.array(json.loads(soft.stdout)["gates"]).shape == (3, 6)
    other = ["select", str(run), "--method", "ppl_only", "--lambda", "1"]
    refused = CliRunner().invoke(cli.cli, other)
    assert refused.exit_code != 0
    assert "--lambda is for --method joint, not ppl_only" in str(refused.exception)


def test_soft_pruning_leaves_a_stock_model_with_folded_gates(run: Path, inputs: Path) -> None:
    shares = {"method": "joint", "gamma": 0.2, "alpha": 0.2, "allow_unreliable": True}
    hard = levelhead.select(run, **shares)
    soft = levelhead.select(run, soft=True, **shares)
    gates = np.array(soft.gates)
    kl = [(s.details or {})["predicted"]["kl"] for s in (soft, hard)]
    assert kl[0] <= kl[1] * 1.01
    protected = np.array(read(run / runs.SELECTION)["protected"])
    assert (gates[tuple(protected.T)] == 1).all()
    with pytest.raises(RunFolderError, match=r"other heads than selection\.json names"):
        levelhead.evaluate(run)  # control: model/ still lacks the hard set
    levelhead.prune(run)
    config = read(run / "model" / "config.json")
    assert "quantization_config" not in config
    assert read(run / "model" / "levelhead.json")["gates"] == gates.tolist()
    stock = AutoModelForCausalLM.from_pretrained(run / "model")
    base = AutoModelForCausalLM.from_pretrained(inputs / "model")
    assert stock.num_parameters() == base.num_parameters()
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        scaled = stock(ids).logits
        with gated(base, torch.tensor(gates, dtype=torch.float32)):
            assert (base(ids).logits - scaled).abs().max() < 1e-4
        assert (base(ids).logits - scaled).abs().max() > 1e-3
    found = levelhead.evaluate(run)
    assert found["gates"] == gates.tolist()
    assert "scaled heads" in found["headline"]


def test_soft_pruning_of_what_has_no_bias_is_refused(run: Path) -> None:
    with pytest.raises(SelectionError, match="soft pruning takes method fasp or joint"):
        levelhead.select(run, method="ppl_only", alpha=0.2, soft=True)


def test_the_planted_head_is_in_every_set(done: Path) -> None:
    assert list(planted_model().head) in read(done / runs.SELECTION)["heads"]
