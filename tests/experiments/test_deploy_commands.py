"""The commands about the pruned model at work: what they print, write and end with."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from click.testing import CliRunner
from tests.experiments.test_tasks import _offline, folder

import levelhead
from levelhead.cli import cli
from levelhead.errors import CheckpointError, ConfigError, RunFolderError
from levelhead.experiments import bench_model as bench

__all__ = ["_offline", "folder"]


def invoke(*arguments: object, code: int = 0) -> Any:
    done = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    return done


def test_tasks(run: Path, folder: Path) -> None:
    pytest.importorskip("lm_eval")
    shown = invoke("evaluate", run, "--tasks", "toy", "--include-path", folder, "--limit", 4)
    assert "pruned - base" in shown.stdout
    assert "toy" in shown.stdout
    assert "±" in shown.stdout
    assert "plan: toy, the first 4 items of each, with 2 models" in shown.stderr
    told = invoke("evaluate", run / "model", "--tasks", "toy,", "--include-path", folder, "--json")
    assert json.loads(told.stdout)["tasks"]["toy"]["items"] == 10


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--limit", "4"], "--limit has no meaning without --tasks"),
        (["--tasks", "toy", "--seed", "3"], "--seed has no meaning with --tasks"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(flags: list[str], message: str, run: Path) -> None:
    assert message in invoke("evaluate", run, *flags, code=2).stderr


def test_bench_model(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--rounds", 6, "--prompt-tokens", 8, "--new-tokens", 2, "--no-memory")
    seconds = [[[2.0, 4.0], [1.0, 4.0], [2.0, 4.0]]] * 6
    monkeypatch.setattr(bench, "_timed", lambda *args: bench.np.array(seconds))
    shown = invoke("bench-model", run, *options).stdout
    assert "2.000 [2.000, 2.000]" in shown
    assert "parameters" in shown
    found = json.loads(invoke("bench-model", run, *options, "--json").stdout)
    assert found["ratios"]["decode"]["value"] == 1
    for row in seconds:
        row[2] = [3.0, 4.0]
    shown = invoke("bench-model", run, *options, code=1)
    assert "do not trust" in " ".join(shown.stderr.split())


def test_export_refuses_before_it_writes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ONNX files are float32"):
        levelhead.export_model(run, to="onnx", out=tmp_path / "x", dtype="float16")
    with pytest.raises(ConfigError, match="'tflite' is unknown"):
        levelhead.export_model(run, to="tflite", out=tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"compact \(uneven\)"):
        levelhead.export_model(run, to="gguf", out=tmp_path / "x")
    half = copytree(run, tmp_path / "half")
    (half / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="first run: levelhead prune"):
        levelhead.export_model(half, to="gguf", out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_export(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from levelhead.export import model as module
    from levelhead.export.files import Exported

    given: dict[str, Any] = {}

    def written(model: Any, out: Path, **options: Any) -> Exported:
        given.update(options, parameters=model.num_parameters())
        return Exported(path=out, num_bytes=1234, difference=5e-7)

    monkeypatch.setattr(module, "export_onnx", written)
    shown = invoke("export", run, "--to", "onnx", "--out", tmp_path / "x.onnx", "--overwrite")
    assert "1,234 bytes; logits differ from torch by at most 5.0e-07" in shown.stdout
    pruned = levelhead.load(run / "model")
    assert given == {"overwrite": True, "parameters": pruned.num_parameters()}


def test_push_says_what_is_sent(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def create_repo(self, repo_id: str, **_: Any) -> Any:
            class Url(str):
                repo_id = "me/pruned"

            return Url("https://hub/me/pruned")

        def upload_folder(self, **options: Any) -> None:
            sent.append(options)

    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    shown = invoke("push", run, "me/pruned")
    assert shown.stdout == "https://hub/me/pruned\n"
    assert "to me/pruned: " in shown.stderr
    assert "README.md" in shown.stderr
    assert sent[0]["repo_id"] == "me/pruned"
    assert "model.safetensors" in sent[0]["allow_patterns"]
