"""levelhead prune: every format from the command line, and lists of heads that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import levelhead
from levelhead import cli, runs
from levelhead.config import EXPORTS, FORMATS
from levelhead.errors import CheckpointError, ConfigError, RunFolderError, SelectionError
from levelhead.models.checksums import saved_heads
from levelhead.models.loading import LoadedModel
from levelhead.models.removed_heads import removed_heads
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.stages import pruning
from levelhead.testing import save_tiny_checkpoint

EQUAL = [[0, 0], [0, 3], [1, 2], [1, 5], [2, 1], [2, 4]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("base") / "model", "llama")


def prune(model: Path, heads: object, out: Path, *flags: str) -> Result:
    listed = out.parent / "heads.json"
    listed.write_text(json.dumps({"heads": heads}))
    arguments = ["prune", str(model), "--heads", str(listed), "--out", str(out), *flags]
    return CliRunner().invoke(cli.cli, arguments)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "lora"])
def test_every_format_is_written_and_read(form: str, model: Path, tmp_path: Path) -> None:
    result = prune(model, EQUAL, tmp_path / "out", "--format", form)
    assert result.exit_code == 0, result.output
    assert saved_heads(tmp_path / "out") == {0: (0, 3), 1: (2, 5), 2: (1, 4)}
    loaded = levelhead.load(tmp_path / "out")
    whole = levelhead.load(model)
    assert (loaded.num_parameters() < whole.num_parameters()) is (form != "zeroed")
    assert (tmp_path / "out" / "tokenizer.json").exists() is (form != "adapter")


@pytest.mark.parametrize(
    ("heads", "flags", "message"),
    [
        ([], [], "the list of heads is empty"),
        ([[0, 6]], [], "head 6 of layer 0 does not exist: the model has heads 0 to 5"),
        ([[3, 0]], [], "layer 3 does not exist: the model has layers 0 to 2"),
        ([[1, 2], [1, 2]], [], "listed more than once"),
        ([[1, -2]], [], "whole numbers from 0"),
        ([[1, 2]], ["--format", "uniform"], "0 in layers 0, 2; 1 in layer 1"),
    ],
)
def test_lists_that_cannot_be(
    heads: object, flags: list[str], message: str, model: Path, tmp_path: Path
) -> None:
    result = prune(model, heads, tmp_path / "out", *flags)
    assert isinstance(result.exception, SelectionError | CheckpointError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_list_of_heads_with_two_of_its_key_is_refused(model: Path, tmp_path: Path) -> None:
    """Python keeps the last and says nothing."""
    listed = tmp_path / "heads.json"
    listed.write_text('{"heads": [[0, 1]], "heads": [[1, 2]]}')
    with pytest.raises(RunFolderError, match=r"heads\.json: the key .heads. appears more"):
        levelhead.prune(str(model), listed, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", EXPORTS)
def test_files_for_other_engines(
    form: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pruned model in float32 goes to the writer of that format, which checks its file."""
    written: list[tuple[Any, ...]] = []

    def write(loaded: LoadedModel, to: str, out: Path, *, overwrite: bool) -> None:
        written.append((removed_heads(loaded.model), loaded.model.dtype, to, Path(out), overwrite))

    monkeypatch.setattr(pruning, "write_export", write)
    out = tmp_path / f"out.{form}"
    assert prune(model, EQUAL, out, "--format", form).exit_code == 0
    gone = {0: (0, 3), 1: (2, 5), 2: (1, 4)}
    assert written == [(gone, torch.float32, form, out, False)]
    listed = HeadSelection.from_json({"heads": EQUAL})
    with pytest.raises(ConfigError, match="name it with --out"):
        levelhead.prune(model, listed, format=form)


@pytest.mark.slow
def test_a_real_onnx_file(model: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert prune(model, EQUAL, tmp_path / "x.onnx", "--format", "onnx").exit_code == 0
    assert runtime.InferenceSession(tmp_path / "x.onnx").get_outputs()[0].name == "logits"


def test_a_card_says_what_is_gone_and_that_nothing_was_measured(
    model: Path, tmp_path: Path
) -> None:
    assert prune(model, EQUAL, tmp_path / "out").exit_code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "6 attention heads in 3 layers" in card
    assert "- 1: 2, 5" in card
    assert "Nothing yet" in card
    assert str(model) not in card


def test_what_is_in_the_way_is_said_before_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    for flags, message in (([], "exists already"), (["--overwrite"], "something else than a")):
        result = prune(tmp_path / "no-model", [[0, 0]], tmp_path / "out", *flags)
        assert message in str(result.exception)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


def test_all_heads_of_all_layers_are_a_warning(model: Path, tmp_path: Path) -> None:
    heads = [[layer, head] for layer in range(3) for head in range(6)]
    result = prune(model, heads, tmp_path / "out")
    assert result.exit_code == 0
    assert "warning: every head of every layer is removed" in result.output
    assert "warning" not in prune(model, heads[:-1], tmp_path / "other").output  # control


def test_weights_may_be_split_over_files(model: Path, tmp_path: Path) -> None:
    result = prune(model, [[0, 0]], tmp_path / "out", "--max-shard-size", "100KB")
    assert result.exit_code == 0
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert removed_heads(levelhead.load(tmp_path / "out")) == {0: (0,)}


def test_per_layer_equal_selections_fit_uniform(tmp_path: Path) -> None:
    """From a score table to a stock model; the plain rule's heads are refused."""
    effects = [[float(6 * layer + head) for head in range(6)] for layer in range(3)]
    table = ScoreTable.build({"bias_without_gender": effects}, 3, 6)
    (tmp_path / "scores.csv").write_text(table.to_csv())
    options = {"num_key_value_heads": 6, "num_heads": 6}
    model = save_tiny_checkpoint(tmp_path / "model", "mistral", **options)
    arguments = [str(tmp_path / "scores.csv"), "--method", "bias_only", "--alpha", "0.34"]

    for flags, fits in (([], False), (["--per-layer-equal"], True)):
        said = CliRunner().invoke(cli.cli, ["select", *arguments, "--json", *flags])
        heads = json.loads(said.stdout)["heads"]
        result = prune(model, heads, tmp_path / f"out-{fits}", "--format", "uniform")
        assert (result.exit_code == 0) is fits, result.output
    assert len(heads) == 6
    config = json.loads((tmp_path / "out-True" / "config.json").read_text())
    assert (config["num_attention_heads"], config["num_hidden_layers"]) == (4, 3)


def test_a_run_with_other_heads_than_its_stock_model_is_refused(
    inputs: Path, options: dict[str, object], tmp_path: Path
) -> None:
    """Zeroed and uniform models say in levelhead.json what their config cannot."""
    from levelhead.config import RunConfig
    from levelhead.errors import RunFolderError

    config = RunConfig(model=str(inputs / "model"), **options)  # type: ignore[arg-type]
    folder = RunFolder.create(tmp_path / "run", config)
    selection = HeadSelection.of([(0, 1), (2, 3)])
    runs.write_text(folder.path / "selection.json", json.dumps(selection.to_json()))
    levelhead.prune(folder.path, format="zeroed")
    assert saved_heads(folder.path / "model") == {0: (1,), 2: (3,)}
    other = HeadSelection.of([(0, 1), (2, 4)])
    runs.write_text(folder.path / "selection.json", json.dumps(other.to_json()))
    with pytest.raises(RunFolderError, match="lacks other heads than selection"):
        levelhead.evaluate(folder.path)
    with pytest.raises(ConfigError, match="an adapter needs another --out"):
        levelhead.prune(folder.path, format="adapter")
    levelhead.prune(folder.path, format="adapter", out=tmp_path / "adapter")
    assert removed_heads(levelhead.load(tmp_path / "adapter")) == other.by_layer
