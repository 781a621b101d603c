"""A model that somebody sent runs no code and reads nothing outside its folder; with controls."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

import levelhead
from levelhead.cli import cli
from levelhead.config import RunConfig
from levelhead.data import gguf_files
from levelhead.errors import CheckpointError, ConfigError, LevelheadError, ModelError, ScorerError
from levelhead.models.checkpoint import save_pruned
from levelhead.models.loading import load_base, load_config
from levelhead.models.surgery import prune_heads
from levelhead.permissions import may_unpickle, pickles_allowed
from levelhead.testing import save_tiny_checkpoint
from levelhead.toxicity import load_scorer

READERS = {"load_base": lambda path: load_base(path).model, "levelhead.load": levelhead.load}


class Payload:
    """Unpickling it writes a file, as a real one would run anything."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.canary,))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_checkpoint(tmp_path / "model", "llama", num_layers=1, num_heads=2)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def pickled(folder: Path, extra: Any = None) -> Path:
    """The same model with its weights as a pickle only."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights if extra is None else weights | {"x": extra}, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_pickled_weights_need_a_permission(read: Any, model: Path) -> None:
    expected = load_base(model).model.get_parameter("lm_head.weight").clone()
    pickled(model)
    with pytest.raises(LevelheadError, match=r"only as a pickle .* --allow-pickle"):
        read(model)
    assert not may_unpickle()
    with pickles_allowed():
        loaded = read(model)
    assert not may_unpickle()
    assert torch.equal(loaded.get_parameter("lm_head.weight"), expected)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_hostile_pickle_does_not_run_even_if_allowed(
    read: Any, model: Path, canary: Path
) -> None:
    """torch's restricted unpickler reads it; the control reads it as pickles are read."""
    pickled(model, Payload(canary))
    with pytest.raises(LevelheadError):
        read(model)
    with pickles_allowed(), pytest.raises(LevelheadError):
        read(model)
    assert not canary.exists()
    torch.load(model / "pytorch_model.bin", weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("shard", ["evil.bin", "../evil.safetensors", "/tmp/evil.safetensors", 5])  # noqa: S108
def test_an_index_names_safetensors_beside_it_only(shard: Any, model: Path) -> None:
    """transformers follows `..` and reads `.bin` shards of a safetensors index as pickles."""
    names = list(load_file(model / "model.safetensors"))
    shutil.move(model / "model.safetensors", model.parent / "evil.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    for read in READERS.values():
        with pytest.raises(LevelheadError, match=r"only \.safetensors files beside it are read"):
            read(model)
    if shard == "../evil.safetensors":  # control: it would be followed
        assert AutoModelForCausalLM.from_pretrained(model, use_safetensors=True) is not None


def test_a_pickle_named_by_the_config_is_not_read(model: Path, canary: Path) -> None:
    pickled(model, Payload(canary)).joinpath("pytorch_model.bin").rename(
        model / "adapter_model.bin"
    )
    edit_config(model, transformers_weights="adapter_model.bin")
    for read in READERS.values():
        with pytest.raises(LevelheadError, match="only safetensors files beside it are read"):
            read(model)
    assert not canary.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"attn_implementation": "someone/kernels"},
        {"attn_implementation": {"": "someone/kernels@main"}},
        {"text_config": {"experts_implementation": "someone/kernels:f"}},
        {"configuration_files": ["config.4.0.0.json"]},
    ],
)
def test_a_config_names_no_code_and_no_other_config(fields: dict[str, Any], model: Path) -> None:
    load_config(model)  # control
    edit_config(model, **fields)
    for read in (*READERS.values(), load_config):
        with pytest.raises(LevelheadError, match=r"asks for code from the hub|other config files"):
            read(model)


def test_an_adapter_of_peft_is_not_applied_silently(model: Path) -> None:
    """With peft installed transformers would load it, and its base from the hub."""
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/model"}')
    for read in READERS.values():
        with pytest.raises(LevelheadError, match="holds an adapter of peft"):
            read(model)


CODE = """
from pathlib import Path
Path({canary!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
class Config(LlamaConfig): pass
class Model(LlamaForCausalLM): config_class = Config
"""


@pytest.fixture
def with_code(model: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose config names code in it that writes the canary."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(model.parent / "modules"))
    (model / "evil.py").write_text(CODE.format(canary=str(canary)))
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    edit_config(model, auto_map=auto)
    path = model / "tokenizer_config.json"
    tokens = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Model", None]}}
    path.write_text(json.dumps(tokens))
    return model


def test_code_of_a_known_family_is_not_run(
    with_code: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model loads with transformers' own code, and nobody is asked."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for read in READERS.values():
        assert type(read(with_code)).__name__ == "LlamaForCausalLM"
    load_config(with_code)
    assert not canary.exists()
    AutoConfig.from_pretrained(with_code, trust_remote_code=True)  # the control
    assert canary.exists()
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


def test_code_of_an_unknown_family_is_refused(
    with_code: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    edit_config(with_code, model_type="evil")
    with pytest.raises(ModelError, match="'evil' is not supported"):
        load_base(with_code)
    with pytest.raises(CheckpointError, match="cannot be read"):
        levelhead.load(with_code)
    with pytest.raises(ScorerError):
        load_scorer(str(with_code))
    assert not canary.exists()


def test_code_beside_a_gguf_file_is_not_run(
    with_code: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    edit_config(with_code, model_type="evil")
    (with_code / "model.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(64))
    with pytest.raises(LevelheadError):
        gguf_files.gguf_model_path(with_code / "model.gguf")
    assert not canary.exists()


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    words = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{"pad_token": "[PAD]", "unk_token": "[UNK]"},
    ).save_pretrained(tmp_path / "classifier")
    config = BertConfig(
        vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, id2label={0: "fine", 1: "toxic"}, label2id={"fine": 0, "toxic": 1},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


def test_a_hostile_classifier_runs_nothing(classifier: Path, canary: Path) -> None:
    load_scorer(str(classifier))  # control
    pickled(classifier, Payload(canary))
    with pytest.raises(ScorerError, match=r"only as a pickle .* --allow-pickle"):
        load_scorer(str(classifier))
    with pickles_allowed(), pytest.raises(ScorerError):
        load_scorer(str(classifier))
    (classifier / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(canary)))
    with pickles_allowed(), pytest.raises(ScorerError):
        load_scorer(str(classifier))
    assert not canary.exists()


def test_an_adapter_names_no_network_share(model: Path) -> None:
    """Opening one would send it a login, on Windows."""
    base = load_base(model).model
    prune_heads(base, {0: (1,)})
    folder = save_pruned(base, model.parent / "adapter", "adapter")
    path = folder / "levelhead_adapter.json"
    data = json.loads(path.read_text())
    for base_name in ("\\\\server\\share", "//server/share", "", None, 5):
        path.write_text(json.dumps(data | {"base": base_name}))
        with pytest.raises(CheckpointError, match="is damaged"):
            levelhead.load(folder)


def test_no_file_can_allow_pickles(tmp_path: Path) -> None:
    """It is no option of a run: config.json of a run folder cannot grant it."""
    assert "allow_pickle" not in RunConfig().to_json()
    with pytest.raises(ConfigError, match="unknown option 'allow_pickle'"):
        RunConfig.from_json({"allow_pickle": True})


def test_the_flag_allows_it_for_one_command(model: Path, tmp_path: Path) -> None:
    pickled(model)
    heads = tmp_path / "heads.json"
    heads.write_text('{"heads": [[0, 1]]}')
    command = ["prune", str(model), "--heads", str(heads), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, command)
    assert isinstance(refused.exception, ModelError)
    allowed = CliRunner().invoke(cli, [*command, "--allow-pickle"])
    assert allowed.exit_code == 0, allowed.output
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not may_unpickle()


def test_every_command_that_loads_a_model_has_the_flag() -> None:
    without = {
        n for n, c in cli.commands.items() if "allow_pickle" not in {p.name for p in c.params}
    }
    assert {"select", "report", "heads", "diagnose", "fetch-model", "push"} <= without
    assert without & {"run", "score", "prune", "evaluate", "compare", "export"} == set()
