"""Checkpoints: what is kept, what is refused, and what stock transformers makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.rounding import SAME, difference, same_weights
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from levelhead.errors import CheckpointError
from levelhead.models.checkpoint import load, register, save_pruned
from levelhead.models.removed_heads import LevelheadConfig, removed_heads
from levelhead.models.surgery import prune_heads
from levelhead.testing import TINY_FAMILIES, tiny_tokenizer

HEADS = {0: [0, 4], 1: range(6), 2: [1, 2, 3, 5]}


@pytest.fixture
def compact(fresh, tmp_path):
    """The folder of a pruned tiny Llama, and the model."""
    model = fresh("llama")
    prune_heads(model, HEADS)
    return save_pruned(model, tmp_path / "compact", tokenizer=tiny_tokenizer()), model


def test_config_says_what_was_removed(compact):
    folder, _ = compact
    config = json.loads((folder / "config.json").read_text())

    assert config["quantization_config"] == {
        "quant_method": "levelhead",
        "format_version": 1,
        "heads": {"0": [0, 4], "1": [0, 1, 2, 3, 4, 5], "2": [1, 2, 3, 5]},
    }
    assert sorted(path.name for path in folder.parent.iterdir()) == ["compact"]  # nothing left over


def test_whole_layer_tensors_have_no_width(compact):
    weights = load_file(compact[0] / "model.safetensors")
    layer = {key: tuple(t.shape) for key, t in weights.items() if "layers.1.self_attn" in key}
    assert layer == {"model.layers.1.self_attn.o_proj.weight": (48, 0)}


def test_stock_loading_fails_for_every_family(fresh, tmp_path):
    """A process that never imports levelhead; whole layers only, the case that could be silent."""
    for family in TINY_FAMILIES:
        model = fresh(family)
        model.save_pretrained(tmp_path / "whole" / family)
        prune_heads(model, {0: range(6), 2: range(6)})
        save_pruned(model, tmp_path / "pruned" / family)
    script = f"""
import sys
from pathlib import Path
from transformers import AutoModelForCausalLM
for family in sorted(Path({str(tmp_path)!r}, "pruned").iterdir()):
    AutoModelForCausalLM.from_pretrained(family.parent.parent / "whole" / family.name)  # control
    try:
        AutoModelForCausalLM.from_pretrained(family)
    except RuntimeError as error:
        print(family.name, "refused" if "ismatched" in str(error) else error)
    else:
        print(family.name, "LOADED")
assert "levelhead" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{family} refused" for family in sorted(TINY_FAMILIES)]


def test_stock_from_pretrained_reads_it_after_register(compact, logits, difference):
    folder, model = compact
    register()
    register()
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert same_weights(loaded, model)
    assert difference(logits(loaded), logits(model)) < SAME


def test_a_whole_checkpoint_is_pruned_on_the_way_in(fresh, tmp_path, logits, difference):
    register()
    model = fresh("phi3")
    model.save_pretrained(tmp_path)
    prune_heads(model, HEADS)
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=LevelheadConfig(HEADS)
    )
    assert same_weights(loaded, model)
    assert difference(logits(loaded), logits(model)) < SAME
    assert removed_heads(loaded) == removed_heads(model)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_dtype_and_device_map_are_honoured(family, fresh, tmp_path):
    model = fresh(family)
    prune_heads(model, HEADS)
    save_pruned(model, tmp_path / "m")

    assert load(tmp_path / "m").dtype == torch.float32  # as saved
    loaded = load(tmp_path / "m", dtype=torch.bfloat16, device_map={"": "cpu"})
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert load(tmp_path / "m", dtype="float16").dtype == torch.float16
    assert load(tmp_path / "m", device_map="meta").device.type == "meta"
    assert not loaded.training


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_layers_may_be_offloaded(layer, compact, logits, tmp_path, difference):
    """A device map with several places: accelerate's hooks on sliced modules, and on a stub."""
    folder, model = compact
    whole = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    places = dict.fromkeys(whole + [f"model.layers.{i}" for i in range(3)], "cpu")
    places[f"model.layers.{layer}"] = "disk"
    loaded = load(folder, device_map=places, offload_folder=str(tmp_path / "offload"))

    assert loaded.model.layers[layer].mlp.up_proj.weight.device.type == "meta"
    assert difference(logits(loaded), logits(model)) < SAME


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neo"])
def test_loaded_model_is_an_ordinary_model(family, fresh, inputs, tmp_path, logits, difference):
    """Casting, training and saving with the model's own methods."""
    model = fresh(family)
    prune_heads(model, HEADS)
    save_pruned(model, tmp_path / "first")
    loaded = load(tmp_path / "first")
    expected = logits(loaded)
    assert difference(logits(loaded.to(torch.bfloat16).float()), expected) < 0.1
    assert loaded.half().dtype == torch.float16

    loaded = load(tmp_path / "first").train()
    optimizer = torch.optim.AdamW(loaded.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = loaded(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[0]

    loaded.eval().save_pretrained(tmp_path / "second")
    again = load(tmp_path / "second")
    assert same_weights(again, loaded)
    assert difference(logits(again), logits(loaded)) < SAME
    assert difference(logits(again), expected) > 1e-2  # it did train
    assert removed_heads(again) == removed_heads(model)


@pytest.mark.parametrize("form", ["compact", "zeroed"])
def test_ties_generation_config_and_tokenizer_are_kept(form, fresh, tmp_path):
    for family, tied in {"gpt2": True, "gemma2": True, "llama": False}.items():
        model = fresh(family)
        model.generation_config.repetition_penalty = 1.25
        prune_heads(model, HEADS)
        folder = save_pruned(model, tmp_path / family, form, tiny_tokenizer())
        loaded = load(folder)
        shared = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight

        assert shared is tied
        assert ("lm_head.weight" in load_file(folder / "model.safetensors")) is not tied
        assert loaded.generation_config.repetition_penalty == 1.25
        text = "I met women."
        assert AutoTokenizer.from_pretrained(folder).encode(text) == tiny_tokenizer().encode(text)


def test_zeroed_is_stock_with_provenance_only(fresh, tmp_path):
    model = fresh("qwen3")
    whole = set(model.config.to_dict())
    prune_heads(model, HEADS)
    folder = save_pruned(model, tmp_path / "zeroed", "zeroed")
    config = json.loads((folder / "config.json").read_text())

    assert config["levelhead_zeroed_heads"] == {
        "0": [0, 4],
        "1": [0, 1, 2, 3, 4, 5],
        "2": [1, 2, 3, 5],
    }
    assert set(config) - whole == {"levelhead_zeroed_heads"}
    assert removed_heads(load(folder)) == {}
    projection = load_file(folder / "model.safetensors")["model.layers.2.self_attn.o_proj.weight"]
    per_head = projection.unflatten(1, (6, -1)).abs().sum((0, 2))
    assert (per_head == 0).tolist() == [False, True, True, True, False, True]


def test_newer_format_is_refused(compact):
    folder, _ = compact
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["format_version"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="format_version=3, this levelhead reads up to 2"):
        load(folder)


@pytest.mark.parametrize("heads", [{"0": [0, 99]}, {"7": [0]}, {"0": "x"}, [1, 2]])
def test_nonsense_heads_are_refused(heads, compact):
    folder, _ = compact
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["heads"] = heads
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        load(folder)


def test_heads_that_do_not_fit_the_weights_are_refused(compact):
    folder, _ = compact
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["heads"]["0"] = [0]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "levelhead.json").unlink()
    with pytest.raises(CheckpointError, match=r"other shapes than config\.json says"):
        load(folder)


def test_damaged_files_are_refused(compact, tmp_path):
    """Without checksums, too: as a folder that was saved again by other means."""
    folder, _ = compact
    (folder / "levelhead.json").unlink()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()

    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no weights \(model\.safetensors"):
        load(folder)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    del tensors["model.layers.0.self_attn.q_proj.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors .* among them model\.layers\.0"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load(folder)


def test_saving_refuses_what_it_cannot_do(fresh, tmp_path):
    model = fresh("gpt2")
    with pytest.raises(CheckpointError, match="the model is whole"):
        save_pruned(model, tmp_path / "m")
    prune_heads(model, HEADS)
    with pytest.raises(CheckpointError, match="format='tiny' is unknown"):
        save_pruned(model, tmp_path / "m", "tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_kept(fresh, tmp_path):
    model = fresh("gpt2")
    prune_heads(model, HEADS)
    target = tmp_path / "m"
    target.mkdir()
    save_pruned(model, target)  # an empty folder is no obstacle
    with pytest.raises(CheckpointError, match="exists already"):
        save_pruned(model, target)
    (target / "old").write_text("")
    save_pruned(model, target, overwrite=True)
    assert not (target / "old").exists()
    (target / "config.json").write_text("{}")
    (target / "levelhead.json").unlink()
    with pytest.raises(CheckpointError, match="something else than a model"):
        save_pruned(model, target, overwrite=True)


def test_a_failed_save_leaves_nothing(fresh, tmp_path, monkeypatch):
    model = fresh("gpt2")
    prune_heads(model, HEADS)
    save_pruned(model, tmp_path / "m")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "m").iterdir()}

    def fail(folder, **_):
        Path(folder, "half").write_text("")
        raise OSError("disk full")

    monkeypatch.setattr(model, "save_pretrained", fail)
    with pytest.raises(CheckpointError, match="disk full"):
        save_pruned(model, tmp_path / "m", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "m").iterdir()} == before


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma3"])
def test_the_model_inside_loads_by_its_own_auto_class(family, fresh, tmp_path, inputs):
    """`AutoModel`, which has no output matrix and other names of layers."""
    model = fresh(family)
    prune_heads(model, {0: [1], 2: [0, 5]})
    save_pruned(model, tmp_path / "m")
    inside = AutoModel.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        hidden = inside(**inputs).last_hidden_state
        assert difference(hidden, model.base_model(**inputs).last_hidden_state) < SAME
    assert removed_heads(inside) == {0: (1,), 2: (0, 5)}
