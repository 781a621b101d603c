"""ONNX files compute what the pruned model computes; another head's file does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from levelhead.errors import CheckpointError, MissingExtraError, ModelError
from levelhead.export.files import check_difference, logits_difference
from levelhead.export.onnx import HEADS, LIMIT, _runtime, export_onnx
from levelhead.models.surgery import prune_heads
from levelhead.testing import tiny_model

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

UNEVEN = {0: [0, 3], 1: [0, 1, 2, 3, 4, 5]}
"""Unequal groups, and a whole layer."""


@pytest.mark.slow
def test_uneven_heads_in_onnxruntime_with_another_head_as_control(tmp_path: Path) -> None:
    model, other = (tiny_model("llama", num_layers=2) for _ in range(2))
    prune_heads(model, UNEVEN)
    prune_heads(other, {0: [1, 3], 1: [0, 1, 2, 3, 4, 5]})
    own = model.config._attn_implementation
    done = export_onnx(model, tmp_path / "pruned.onnx")
    assert done.difference < 1e-5
    assert done.num_bytes == (tmp_path / "pruned.onnx").stat().st_size
    assert list(tmp_path.iterdir()) == [tmp_path / "pruned.onnx"]
    run = _runtime(tmp_path / "pruned.onnx")
    assert logits_difference(model, run) == done.difference
    assert logits_difference(other, run) > 0.01
    # The model is as it was, and computes with real tensors.
    assert model.config._attn_implementation == own
    assert torch.isfinite(model(torch.ones(1, 3, dtype=torch.long)).logits).all()
    import onnx

    found = {p.key: p.value for p in onnx.load(tmp_path / "pruned.onnx").metadata_props}
    assert json.loads(found[HEADS]) == {"0": [0, 3], "1": [0, 1, 2, 3, 4, 5]}


def test_a_wrong_file_is_refused_and_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = tiny_model("gpt2", num_layers=1), tiny_model("gpt2", num_layers=1, seed=1)

    class Wrong:
        model = SimpleNamespace(metadata_props={})

        @staticmethod
        def save(path: Path) -> None:
            path.write_bytes(b"")

    monkeypatch.setattr("levelhead.export.onnx._translated", lambda model: Wrong)
    monkeypatch.setattr(
        "levelhead.export.onnx._runtime",
        lambda path: lambda ids, mask: other(ids, attention_mask=mask).logits.detach(),
    )
    with pytest.raises(CheckpointError, match="does not compute"):
        export_onnx(model, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_nan_is_no_agreement() -> None:
    model = tiny_model("gpt2", num_layers=1)
    found = logits_difference(
        model, lambda ids, mask: torch.full((*ids.shape, 9), torch.nan)[..., :1]
    )
    assert found == float("inf")
    with pytest.raises(CheckpointError):
        check_difference(found, LIMIT, "it")


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2", num_layers=1)
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="exists already"):
        export_onnx(model, tmp_path / "there.onnx")
    with pytest.raises(CheckpointError, match="is a folder"):
        export_onnx(model, tmp_path, overwrite=True)
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"
    with pytest.raises(ModelError, match="float32"):
        export_onnx(tiny_model("gpt2", num_layers=1).to(torch.bfloat16), tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"levelhead\[onnx\]"):
        export_onnx(model, tmp_path / "x.onnx")
