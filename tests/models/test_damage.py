"""Never silently wrong: what is damaged, changed, newer or of another base is refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tests.rounding import SAME, same_weights
from transformers import AutoModelForCausalLM

import levelhead
from levelhead.errors import CheckpointError, ModelError
from levelhead.models import folders
from levelhead.models.adapter import ADAPTER, base_hashes
from levelhead.models.checkpoint import FORMATS, load, save_pruned
from levelhead.models.checksums import MANIFEST, read_manifest, saved_heads
from levelhead.models.loading import load_base
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import prune_heads
from levelhead.testing import tiny_model

HEADS = {0: [0, 3], 1: [2, 5], 2: [1, 4]}
STORED = {layer: tuple(heads) for layer, heads in HEADS.items()}


@pytest.fixture
def loaded(tmp_path):
    """A whole tiny Llama, loaded from `tmp_path / "base"`."""
    tiny_model("llama").save_pretrained(tmp_path / "base")
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(tmp_path / "base")


@pytest.fixture
def pruned(loaded):
    prune_heads(loaded, HEADS)
    return loaded


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def flip_a_byte(path: Path, offset: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_what_was_removed(form, pruned, tmp_path):
    folder = save_pruned(pruned, tmp_path / "m", form)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest["format"] == form
    assert saved_heads(folder) == STORED
    if form != "adapter":
        assert {"config.json", "model.safetensors"} <= set(manifest["sha256"])
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("base", "m")] == []


@pytest.mark.parametrize("form", ["compact", "zeroed", "uniform", "remote-code"])
def test_one_changed_bit_is_noticed(form, pruned, tmp_path):
    """A value, not the header: safetensors itself finds nothing wrong."""
    folder = save_pruned(pruned, tmp_path / "m", form)
    flip_a_byte(folder / "model.safetensors")
    load_file(folder / "model.safetensors")  # control
    for read in (load, load_base):
        with pytest.raises(CheckpointError, match=r"model\.safetensors .* checksum differs"):
            read(folder)
    if form == "compact":  # the stock way, through the plug-in
        with pytest.raises(CheckpointError, match="Copy or download it again"):
            AutoModelForCausalLM.from_pretrained(folder)
    (folder / MANIFEST).unlink()  # the remedy that the message names
    assert load(folder).num_parameters() > 0


@pytest.mark.parametrize("file", ["model-00002", "config.json"])
def test_missing_parts_are_noticed(file, pruned, tmp_path):
    folder = save_pruned(pruned, tmp_path / "m", max_shard_size="100KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert {path.name for path in shards} < set(read_manifest(folder)["sha256"])
    assert torch.equal(load(folder).lm_head.weight, pruned.lm_head.weight)
    next(folder.glob(f"{file}*")).unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002|has no config\.json"):
        load(folder)


@pytest.mark.parametrize("length", [0, 4, 300, -8])
def test_a_truncated_file_is_noticed(length, pruned, tmp_path):
    folder = save_pruned(pruned, tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="checksum differs"):
        load(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder)


def test_other_heads_in_the_config_are_noticed(pruned, tmp_path):
    """Same shapes, other groups: nothing but the checksum can tell."""
    folder = save_pruned(pruned, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["heads"]["0"] = [1, 4]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json of .* checksum differs"):
        load(folder)


def test_a_card_may_be_edited_and_text_may_get_other_line_ends(pruned, tmp_path):
    folder = save_pruned(pruned, tmp_path / "m")
    (folder / "README.md").write_text("mine")
    config = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(config.replace(b"\n", b"\r\n"))
    assert removed_heads(load(folder)) == STORED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format_version": 2, "sha256": {}}', "format_version=2, this levelhead reads up to 1"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format_version": 1}', "is damaged"),
        ('{"format_version": 1, "sha256": {"../x": "0"}}', "is damaged"),
        ('{"format_version": "1", "sha256": {}}', "is damaged"),
    ],
)
def test_checksums_that_cannot_be_read(content, message, pruned, tmp_path):
    folder = save_pruned(pruned, tmp_path / "m")
    (folder / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_saved_again_by_its_own_means(pruned, tmp_path, logits):
    """Cast, sharded, without checksums: an ordinary model."""
    first = save_pruned(pruned, tmp_path / "m")
    expected = logits(load(first))
    again = AutoModelForCausalLM.from_pretrained(first).to(torch.bfloat16)
    again.save_pretrained(tmp_path / "again", max_shard_size="50KB")
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 2
    assert not (tmp_path / "again" / MANIFEST).exists()
    second = load(tmp_path / "again")
    assert second.dtype == torch.bfloat16
    values = again.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in second.state_dict().items())
    wide = load(tmp_path / "again", dtype=torch.float32, device_map={"": "cpu"})
    assert 0 < float((logits(wide) - expected).abs().max() / expected.abs().max()) < 0.05
    assert removed_heads(wide) == STORED


@pytest.mark.usefixtures("offline")
def test_a_hub_checkpoint_is_compared_too(pruned, tmp_path):
    """In the layout of the hub's cache, offline."""
    cache = tmp_path / "cache"
    repository, commit = cache / "models--someone--pruned", "a" * 40
    folder = save_pruned(pruned, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    options = {"cache_dir": str(cache), "local_files_only": True}

    assert removed_heads(load("someone/pruned", **options)) == STORED
    assert removed_heads(load("someone/pruned", revision=commit, **options)) == STORED
    with pytest.raises(CheckpointError, match="cannot be read"):
        load("someone/pruned", revision="b" * 40, **options)
    flip_a_byte(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="checksum differs"):
        load("someone/pruned", **options)


def test_an_adapter_is_small_and_is_applied_to_its_base(pruned, tmp_path, logits, difference):
    folder = save_pruned(pruned, tmp_path / "m", "adapter")
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, ADAPTER]
    assert (folder / ADAPTER).stat().st_size < 1000
    for path in (folder, folder / ADAPTER, str(folder / ADAPTER)):
        again = load(path)
        assert same_weights(again, pruned)
        assert difference(logits(again), logits(pruned)) < SAME
    assert load(folder, dtype="bfloat16").dtype == torch.bfloat16
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="is not there; say where it is with base="):
        load(folder)
    found = levelhead.load(folder, base=tmp_path / "moved")
    assert same_weights(found, pruned)
    assert removed_heads(found) == STORED
    with pytest.raises(ModelError, match="holds an adapter, not a model"):
        load_base(folder)


@pytest.mark.usefixtures("offline")
def test_an_adapter_of_a_hub_model_names_its_commit(tmp_path, logits, monkeypatch, difference):
    repository, commit = tmp_path / "models--someone--base", "c" * 40
    tiny_model("llama").save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    options = {"cache_dir": str(tmp_path), "local_files_only": True}
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained("someone/base", **options)
    prune_heads(model, HEADS)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = save_pruned(model, tmp_path / "m", "adapter")
    stored = json.loads((folder / ADAPTER).read_text())

    assert (stored["base"], stored["revision"]) == ("someone/base", commit)
    assert same_weights(load(folder, **options), model)
    assert difference(logits(load(folder, **options)), logits(model)) < SAME


def test_an_adapter_of_a_model_that_was_trained_since_is_refused(pruned, tmp_path):
    save_pruned(pruned, tmp_path / "m", "adapter")  # control
    with torch.no_grad():
        pruned.model.norm.weight[0] += 1
    with pytest.raises(CheckpointError, match="was changed since it was loaded"):
        save_pruned(pruned, tmp_path / "m", "adapter", overwrite=True)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"seed": 1}, "weights of"),  # as a fine-tuned sibling: same config, names and shapes
        ({"num_layers": 4}, "config and weights of"),
    ],
)
def test_an_adapter_is_refused_on_another_model(options, what, pruned, tmp_path):
    folder = save_pruned(pruned, tmp_path / "m", "adapter")
    tiny_model("llama", **options).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=f"made for another model: {what}"):
        load(folder, base=tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load(folder, base=tmp_path)


def test_the_hash_of_a_base_is_of_what_it_is_not_of_how_it_is_stored(pruned, tmp_path):
    whole = tiny_model("llama")
    whole.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    whole.config.use_cache = False
    whole.save_pretrained(tmp_path / "other-config")
    base = base_hashes(str(tmp_path / "base"), {})

    assert base_hashes(str(tmp_path / "sharded"), {}) == base
    assert base_hashes(str(tmp_path / "other-config"), {})[0] != base[0]
    shard = min((tmp_path / "sharded").glob("model-*.safetensors"))
    weights = load_file(shard)
    weights[min(weights)].view(-1)[0] += 1
    save_file(weights, shard, {"format": "pt"})
    assert base_hashes(str(tmp_path / "sharded"), {})[1] != base[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version=2, this levelhead reads up to 1"),
        ({"heads": {"0": [1]}}, "changed by hand"),
        ({"heads": [1]}, "is damaged"),
        ({"base": "another/model"}, "changed by hand"),
        ({"format": "lora"}, "not an adapter of levelhead"),
    ],
)
def test_an_adapter_that_was_changed_is_refused(change, message, pruned, tmp_path):
    folder = save_pruned(pruned, tmp_path / "m", "adapter")
    data = json.loads((folder / ADAPTER).read_text()) | change
    (folder / ADAPTER).write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=message):
        load(folder)
    (folder / ADAPTER).write_text("{")
    with pytest.raises(CheckpointError, match="not an adapter of levelhead"):
        load(folder)


def test_what_is_no_checkpoint_is_refused(pruned, tmp_path):
    (tmp_path / "weights.bin").write_text("")
    with pytest.raises(CheckpointError, match="neither the folder of a saved model nor an adapter"):
        load(tmp_path / "weights.bin")
    with pytest.raises(CheckpointError, match="base= is for adapters only"):
        load(save_pruned(pruned, tmp_path / "m"), base=tmp_path / "base")
    made_here = tiny_model("gpt2")
    prune_heads(made_here, {0: [0]})
    with pytest.raises(CheckpointError, match="was not loaded from a folder or the hub"):
        save_pruned(made_here, tmp_path / "a", "adapter")


NO_SPACE = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    SafetensorError(
        'Error while serializing: I/O error: Os { message: "No space left" } (os error 28)'
    ),
]


@pytest.mark.parametrize("error", NO_SPACE, ids=["full", "quota", "safetensors"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_what_was_there(existing, error, pruned, tmp_path, monkeypatch):
    target = tmp_path / "m"
    if existing:
        save_pruned(pruned, target)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(folder: Path, **_: Any) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(pruned, "save_pretrained", full)
    with pytest.raises(CheckpointError, match=r"no space left .* MB are free.*Free some space"):
        save_pruned(pruned, target, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert target.exists() is existing


def test_a_failed_rename_leaves_what_was_there(pruned, tmp_path, monkeypatch):
    target = save_pruned(pruned, tmp_path / "m")
    rename = Path.rename

    def fail(self: Path, other: Path) -> Path:
        if self.name == "new":
            raise PermissionError(errno.EACCES, "not now")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_pruned(pruned, target, overwrite=True)
    assert removed_heads(load(target)) == STORED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "m"]


def test_an_interrupted_save_never_looks_complete(pruned, tmp_path, monkeypatch):
    """At every moment before the end there is no folder under the final name."""
    seen = []
    monkeypatch.setattr(folders, "_flush", lambda folder: seen.append((tmp_path / "m").exists()))
    right = pruned.save_pretrained
    monkeypatch.setattr(
        pruned,
        "save_pretrained",
        lambda folder, **options: (seen.append((tmp_path / "m").exists()), right(folder)),
    )
    save_pruned(pruned, tmp_path / "m")
    assert seen == [False, False]
    assert load(tmp_path / "m") is not None

    def interrupt(folder: Path, **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pruned, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_pruned(pruned, tmp_path / "n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "m"]


def test_files_are_as_readable_as_their_folder(pruned, tmp_path):
    folder = save_pruned(pruned, tmp_path / "m")
    mode = folder.stat().st_mode & 0o666
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {mode}


def test_places_that_cannot_be_written(pruned, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="exists already"):
        save_pruned(pruned, tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_pruned(pruned, tmp_path / "file" / "below")


@pytest.mark.parametrize("form", ["compact", "zeroed", "remote-code", "adapter"])
def test_all_heads_of_all_layers_may_go_with_a_warning(form, loaded, tmp_path, logits, difference):
    heads = {layer: range(6) for layer in range(3)}
    prune_heads(loaded, heads)
    with pytest.warns(UserWarning, match="no longer sees other tokens"):
        folder = save_pruned(loaded, tmp_path / "m", form)
    assert difference(logits(load(folder)), logits(loaded)) < SAME
