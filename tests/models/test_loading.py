"""Loading for scoring, and every way it can fail."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tests.rounding import SAME, same_weights
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, PreTrainedTokenizerFast, T5Config

from levelhead.errors import CheckpointError, ConfigError, ModelError, UnsupportedArchitectureError
from levelhead.models.architectures import architecture_of, head_counts, head_dim
from levelhead.models.checkpoint import save_pruned
from levelhead.models.identity import fingerprint
from levelhead.models.loading import check_finite, ensure_pad_token, load_base, resolve_device
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import prune_heads, zero_heads
from levelhead.testing import (
    IDENTITY_WORDS,
    TINY_FAMILIES,
    UNKNOWN,
    WHOLE_LAYER_FAMILIES,
    save_tiny_checkpoint,
    tiny_model,
    tiny_tokenizer,
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.mark.parametrize("family", [*TINY_FAMILIES, *WHOLE_LAYER_FAMILIES])
def test_every_family_loads_from_a_folder(family, tmp_path, logits, difference):
    folder = save_tiny_checkpoint(tmp_path / family, family)
    loaded = load_base(folder, device="cpu")

    assert same_weights(loaded.model, tiny_model(family))
    assert difference(logits(loaded.model), logits(tiny_model(family))) < SAME
    assert loaded.fingerprint == fingerprint(tiny_model(family))
    assert loaded.name == str(folder)
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer.padding_side == "left"
    assert head_counts(loaded.model) == (3, 6)
    wide = family.startswith(("gemma", "qwen3", "gpt_oss", "cohere2"))
    assert head_dim(loaded.model) == (16 if wide else 8)


def test_dtype(llama):
    assert load_base(llama, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16
    assert load_base(llama, device="cpu", dtype=torch.float16).model.dtype == torch.float16


def test_checkpoint_in_half_precision_becomes_float32_on_the_cpu(fresh, tmp_path):
    fresh("gpt2").to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = load_base(tmp_path, device="cpu", need_tokenizer=False)
    assert loaded.model.dtype == torch.float32
    loaded = load_base(tmp_path, device="cpu", dtype="saved", need_tokenizer=False)
    assert loaded.model.dtype == torch.bfloat16


def test_pruned_checkpoint_loads_too(fresh, tmp_path, logits, difference):
    model = fresh("mistral")
    prune_heads(model, {1: [0, 5]})
    save_pruned(model, tmp_path / "m", tokenizer=tiny_tokenizer())
    loaded = load_base(tmp_path / "m", device="cpu")

    assert removed_heads(loaded.model) == {1: (0, 5)}
    assert same_weights(loaded.model, model)
    assert difference(logits(loaded.model), logits(model)) < SAME
    assert loaded.fingerprint == fingerprint(model)


def test_fingerprint_tells_models_apart(fresh):
    prints = [fingerprint(fresh("llama")), fingerprint(tiny_model("llama", seed=1))]
    for act in (zero_heads, prune_heads):
        model = fresh("llama")
        act(model, {2: [3]})
        prints.append(fingerprint(model))
    prints.append(fingerprint(fresh("llama").to(torch.bfloat16)))
    prints.append(fingerprint(fresh("mistral")))

    assert len(set(prints)) == len(prints)
    assert prints[0] == fingerprint(tiny_model("llama"))


def test_unknown_family_is_found_before_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "retnet"}))
    with pytest.raises(UnsupportedArchitectureError) as caught:
        load_base(tmp_path)
    message = str(caught.value)
    assert "'retnet'" in message
    assert "CONTRIBUTING.md, recipe 1" in message
    assert all(family in message for family in TINY_FAMILIES)
    with pytest.raises(UnsupportedArchitectureError, match="'t5'"):
        architecture_of(T5Config())
    assert architecture_of(GPT2Config()).name.startswith("GPT-2")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "no.gguf"])
def test_places_that_do_not_exist(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=name):
        load_base(name)


def test_no_network_says_what_works_without(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"cannot be reached .* local folder .* levelhead demo"):
        load_base("nobody/has-this-model")


def test_folder_without_config_or_weights(llama, tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_base(tmp_path)
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    with pytest.raises(ModelError, match="safetensors or GGUF only"):
        load_base(tmp_path, need_tokenizer=False)


def test_pickled_weights_are_not_read(fresh, tmp_path):
    model = fresh("gpt2")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_base(tmp_path, need_tokenizer=False)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_missing_tokenizer(family, fresh, tmp_path):
    """Some tokenizer classes make an empty vocabulary out of nothing: that is none, too."""
    fresh(family).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_base(tmp_path)
    assert load_base(tmp_path, need_tokenizer=False).tokenizer is None


def test_a_tokenizer_of_another_script_is_one(llama, tmp_path):
    """It knows no Latin letter, and so not the words of any probe in English."""
    shutil.copytree(llama, tmp_path / "m")
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "▁女人": 1, "▁是": 2}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    known = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=UNKNOWN)
    known.save_pretrained(tmp_path / "m")
    loaded = load_base(tmp_path / "m", device="cpu")
    assert loaded.tokenizer("女人 是")["input_ids"] == [1, 2]


def test_missing_pad_token_is_chosen_from_the_vocabulary():
    tokenizer = tiny_tokenizer()
    size = len(tokenizer)
    tokenizer.pad_token = None
    ensure_pad_token(tokenizer)
    assert tokenizer.pad_token == tokenizer.eos_token
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.unk_token = tokenizer.bos_token = None
    ensure_pad_token(tokenizer)
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer) == size
    tokenizer.pad_token = IDENTITY_WORDS[0]
    ensure_pad_token(tokenizer)
    assert tokenizer.pad_token == IDENTITY_WORDS[0]


def test_model_that_yields_nan(fresh, tmp_path):
    model = fresh("gpt_neox")
    check_finite(model)
    with torch.no_grad():
        model.gpt_neox.final_layer_norm.weight[0] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="NaN or infinite logits in float32"):
        load_base(tmp_path, device="cpu", need_tokenizer=False)


def test_missing_weights_are_not_made_up(llama, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(llama / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"lacks 1 tensors .* model\.layers\.1\.mlp\.up_proj"):
        load_base(tmp_path, need_tokenizer=False)


def test_newer_pruned_format(fresh, tmp_path):
    model = fresh("gpt2")
    prune_heads(model, {0: [1]})
    save_pruned(model, tmp_path / "m")
    text = (tmp_path / "m" / "config.json").read_text()
    text = text.replace('"format_version": 1', '"format_version": 9')
    (tmp_path / "m" / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="format_version=9"):
        load_base(tmp_path / "m", need_tokenizer=False)


def test_options_out_of_range(llama):
    with pytest.raises(ConfigError, match="device='tpu' is unknown"):
        load_base(llama, device="tpu")
    with pytest.raises(ConfigError, match="dtype='int4' is unknown"):
        load_base(llama, dtype="int4")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device='cuda'"):
            resolve_device("cuda")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
