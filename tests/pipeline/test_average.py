"""Method average through a whole tiny run whose biased head is known."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tests.pipeline.conftest import BUDGET
from transformers import AutoModelForCausalLM

import levelhead
from levelhead import cli, runs
from levelhead.config import RunConfig
from levelhead.errors import (
    CheckpointError,
    ConfigError,
    PromptError,
    RunFolderError,
    SelectionError,
    TextError,
)
from levelhead.models.average_edit import average_of, edit_of
from levelhead.records import HeadSelection
from levelhead.stages.selecting import read_selection
from levelhead.testing import planted_model

pytestmark = pytest.mark.usefixtures("wide_limit")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def averaging(options: dict[str, Any]) -> dict[str, Any]:
    left = {name: value for name, value in options.items() if name != "alpha"}
    return left | {"method": "average", "max_ppl_increase": BUDGET}


@pytest.fixture(scope="module")
def first(
    inputs: Path,
    averaging: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    wide_limit: None,
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "averaged"
    levelhead.run(str(inputs / "model"), out=out, **averaging)
    return out


@pytest.fixture
def done(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "run"))


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(2, 14)[None]
    with torch.no_grad():
        return torch.as_tensor(model(input_ids=ids).logits)


def test_the_planted_gap_is_reduced_and_no_head_goes(done: Path, inputs: Path) -> None:
    selection, evaluation = read(done / "selection.json"), read(done / "evaluation.json")
    assert (selection["method"], selection["heads"]) == ("average", [])
    assert selection["lambda"] > 0
    assert selection["layers"] == selection["average"]["layers"]
    assert selection["search"]["on"] == "validation"
    taken = selection["search"]["judged"][selection["search"]["chosen"]]
    assert taken["change"] == selection["change"] == evaluation["change"]
    assert taken["at_most"] <= BUDGET
    assert evaluation["axes"]["gender"]["verdict"] == "lower"
    assert evaluation["budget"]["limit"] == BUDGET
    assert evaluation["headline"].startswith("Averaging over groups in ")
    sizes = evaluation["parameters"]
    assert sizes["base"] == sizes["pruned"]
    saved = AutoModelForCausalLM.from_pretrained(done / "model")
    assert average_of(saved) == selection["average"]
    whole = AutoModelForCausalLM.from_pretrained(inputs / "model")
    edit_of(read_selection(done / "selection.json")).apply(whole)
    assert torch.equal(logits(whole), logits(saved))


def test_protected_heads_keep_every_bit(done: Path, inputs: Path) -> None:
    selection = read(done / "selection.json")
    held = selection["average"]["protected_heads"]
    assert sum(map(len, held.values())) == len(
        [one for one in selection["protected"] if one[0] in selection["layers"]]
    )
    assert held, "gamma of the run protects some"
    changes = edit_of(read_selection(done / "selection.json")).changes
    for layer, heads in held.items():
        dense = changes[int(layer)].dense
        width = dense.shape[1] // planted_model().model.config.num_attention_heads
        for head in heads:
            assert not dense[:, head * width : (head + 1) * width].any()


def test_the_same_run_again_has_nothing_to_do(
    done: Path, inputs: Path, averaging: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (done / "model").iterdir()}
    held = read(done / "evaluation.json")
    assert levelhead.run(str(inputs / "model"), out=done, **averaging) == held
    assert {p: p.stat().st_mtime_ns for p in (done / "model").iterdir()} == before


def test_report_card_and_results_say_what_was_done(done: Path) -> None:
    page = levelhead.report(done).read_text(encoding="utf-8")
    assert "What was averaged over groups" in page
    assert "The search for a change" in page
    card = (done / "model" / "README.md").read_text(encoding="utf-8")
    assert "No head is removed" in card
    assert "## What was changed" in card
    record = read(done / "model" / "levelhead_record.json")
    assert record["average"]["digest"] == read(done / "selection.json")["change"]
    assert "removed_heads" not in record
    row = levelhead.results(done)["attempts"][0]
    assert row["method"] == "average"
    assert "averaged over groups" in row["selected"]
    assert row["stale"] == {}


# peft calls by the old name what transformers has renamed.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_lora_adapter_holds_the_same_change(done: Path, inputs: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    out = tmp_path / "adapter"
    said = CliRunner().invoke(cli.cli, ["prune", str(done), "--format", "lora", "--out", str(out)])
    assert said.exit_code == 0, said.output
    assert read(out / "adapter_config.json")["peft_type"] == "LORA"
    assert "PeftModel.from_pretrained" in (out / "README.md").read_text(encoding="utf-8")
    whole = AutoModelForCausalLM.from_pretrained(inputs / "model")
    merged = peft.PeftModel.from_pretrained(whole, out).merge_and_unload()
    saved = AutoModelForCausalLM.from_pretrained(done / "model")
    torch.testing.assert_close(logits(merged), logits(saved), atol=1e-4, rtol=1e-4)


def test_formats_that_lack_heads_are_refused(done: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'uniform' is for heads that are gone.*lora"):
        levelhead.prune(done, out=tmp_path / "no", format="uniform")
    with pytest.raises(ConfigError, match="an adapter needs another --out"):
        levelhead.prune(done, format="lora")
    heads = HeadSelection.of([(0, 0)])
    with pytest.raises(CheckpointError, match="for selections of method average"):
        levelhead.prune(done, heads, out=tmp_path / "no", format="lora")
    assert not (tmp_path / "no").exists()


def test_another_change_or_none_in_the_file_is_refused(done: Path) -> None:
    path = done / runs.CHANGE
    selection = read_selection(done / "selection.json")
    arrays = edit_of(selection).arrays()
    name = next(iter(arrays))
    runs.write_arrays(path, arrays | {name: arrays[name] + 1})
    with pytest.raises(SelectionError, match="another change of weights than was selected"):
        levelhead.prune(done)
    path.unlink()
    with pytest.raises(SelectionError, match=r"cannot read the change.*select again"):
        levelhead.prune(done)
    record = {**(selection.average or {}), "digest": "0" * 64}
    runs.write_json(done / "selection.json", read(done / "selection.json") | {"average": record})
    with pytest.raises(RunFolderError, match="lacks other heads than"):
        levelhead.evaluate(done)


def test_heads_beside_it_are_an_attempt(done: Path) -> None:
    """And the other way round: a search for heads after averaging."""
    levelhead.retry(done, gamma=0.2, alpha=0.06)
    rows = levelhead.results(done)["attempts"]
    assert [row["method"] for row in rows] == ["average", "fasp"]
    config = RunConfig.from_json(
        {k: v for k, v in read(Path(rows[1]["folder"]) / "config.json").items()
         if k in RunConfig.__dataclass_fields__}
    )  # fmt: skip
    assert config.budget is None


def test_transfer_and_verify_take_it(done: Path) -> None:
    found = levelhead.transfer(done, controls=2)
    assert {row["set"] for row in found["rows"]} == {"selected"}
    assert "averaged over groups" in found["selected"]
    assert all(row["predicted"] == "fall" for row in found["rows"])


def test_compare_puts_it_beside_heads(done: Path) -> None:
    found = levelhead.compare(
        done, methods=("fasp",), alphas=(0.06,), gammas=(0.2,), sample_at=(0.06,), seeds=1
    )
    rows = {row["method"]: row for row in found["table"]}
    assert set(rows) == {"fasp", "average"}
    (change,) = found["changes"]
    assert change["change"] == read(done / "selection.json")["change"]
    assert change["axes"]["gender"]["sampled"]["verdict"] == "lower"
    page = levelhead.report(done).read_text(encoding="utf-8")
    assert "All methods at alpha 0.06, gender" in page
    said = CliRunner().invoke(
        cli.cli, ["compare", str(done), "--method", "fasp", "--alphas", "0.06", "--gammas", "0.2",
                  "--sample-at", "0.06", "--seeds", "1"],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert f"lambda {change['lambda']:g}" in said.output
    with pytest.raises(SelectionError, match="'average'"):
        levelhead.compare(done, methods=("average",))


def test_what_is_to_stay_is_counted_and_pulls_the_change_back(done: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.txt"
    facts.write_text("I think women are quiet. I think men are quiet.\n" * 20, encoding="utf-8")
    options: Any = {"method": "average", "gamma": 0.2, "max_ppl_increase": BUDGET}
    plain = levelhead.select(done, **options).average or {}
    kept = levelhead.select(done, **options, average_keep=str(facts)).average or {}
    of = kept["axes"].pop("kept text")
    assert (of["target"], of["groups"]) == ("own", 0)
    assert of["positions"] > 100
    assert plain["axes"] == kept["axes"]
    assert sum(kept["left"].values()) > sum(plain["left"].values()), "less is taken out"
    read_of: Any = options | {"average_keep": str(facts), "finalists": 1}
    first = levelhead.select(done, **read_of).average
    assert levelhead.select(done, **read_of).average == first, "held"
    facts.write_text("I think women are quiet.\n" * 40, encoding="utf-8")
    assert levelhead.select(done, **read_of).average != first, "the file is another"
    with pytest.raises(TextError, match="no such text"):
        levelhead.select(done, **options, average_keep=str(tmp_path / "none.txt"))


def test_several_axes_are_averaged_at_once(
    inputs: Path, averaging: dict[str, Any], tmp_path: Path
) -> None:
    """A second axis whose words are those of the first, in other subgroups."""
    rows = (inputs / "prompts.csv").read_text(encoding="utf-8").splitlines()
    place = rows[0].split(",").index("axis")
    both = rows + [
        ",".join("again" if n == place else cell for n, cell in enumerate(row.split(",")))
        for row in rows[1:]
    ]
    file = tmp_path / "both.csv"
    file.write_text("\n".join(both) + "\n", encoding="utf-8")
    more = {"prompts": str(file), "axis": ("gender", "again"), "samples": 1}
    evaluation = levelhead.run(
        str(inputs / "model"), out=tmp_path / "run", allow_unreliable=True, **averaging | more
    )
    selection = read(tmp_path / "run" / "selection.json")
    assert set(selection["average"]["axes"]) == {"gender", "again"}
    judged = selection["search"]["judged"][selection["search"]["chosen"]]
    assert set(judged["predicted"]["bias_change"]) == {"gender", "again"}
    assert {one["verdict"] for one in evaluation["axes"].values()} == {"lower"}


def test_by_predictions_alone_the_model_reads_no_change(done: Path) -> None:
    chosen = levelhead.select(
        done, method="average", gamma=0.2, max_ppl_increase=BUDGET, average_what="all"
    )
    assert (chosen.average or {})["rank"] is None
    assert (chosen.average or {})["what"] == "all"
    assert (chosen.details or {})["search"]["on"] == "predictions"
    assert levelhead.results(done)["attempts"][0]["stale"]["prune"].endswith("names")
    said = CliRunner().invoke(
        cli.cli, ["select", str(done), "--method", "average", "--max-ppl-increase", "1"]
    )
    assert said.exit_code == 0, said.output
    assert "averaged over groups" in said.output


def test_what_contradicts_is_refused_before_work(
    inputs: Path, averaging: dict[str, Any], tmp_path: Path, done: Path
) -> None:
    def refused(match: str, error: type[Exception] = ConfigError, **more: Any) -> None:
        with pytest.raises(error, match=match):
            levelhead.run(str(inputs / "model"), out=tmp_path / "no", **{**averaging, **more})
        assert not (tmp_path / "no").exists()

    refused("--alpha is how many heads are pruned", alpha=0.1)
    refused("--soft is for heads that are pruned", soft=True)
    refused("--repair least-squares is for heads", repair="least-squares")
    refused("--unit neuron has no --method average", unit="neuron")
    refused("--average-what 'names' is unknown", average_what="names")
    with pytest.raises(SelectionError, match="give the run folder"):
        levelhead.select(done / "scores.csv", method="average")


def test_prompts_without_counterparts_are_refused_before_work(
    inputs: Path, averaging: dict[str, Any], tmp_path: Path
) -> None:
    rows = (inputs / "prompts.csv").read_text(encoding="utf-8").splitlines()
    head = rows[0].split(",")
    assert "template" in head
    place = head.index("template")
    alone = [rows[0]]
    for number, row in enumerate(rows[1:]):
        cells = row.split(",")
        cells[place] = f"t{number}"
        alone.append(",".join(cells))
    file = tmp_path / "alone.csv"
    file.write_text("\n".join(alone) + "\n", encoding="utf-8")
    with pytest.raises(PromptError, match="no matched groups among"):
        levelhead.run(
            str(inputs / "model"), out=tmp_path / "no", **averaging | {"prompts": str(file)}
        )
    assert not (tmp_path / "no").exists()


def test_arrays_are_written_as_they_are_whatever_lies_in_memory(tmp_path: Path) -> None:
    turned = np.arange(12, dtype=np.float32).reshape(3, 4).T
    runs.write_arrays(tmp_path / "a.safetensors", {"turned": turned})
    assert np.array_equal(runs.read_arrays(tmp_path / "a.safetensors")["turned"], turned)
