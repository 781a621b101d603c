"""The embedded model, pruned, as GGUF and ONNX: the same logits (about two minutes)."""

from pathlib import Path

import pytest

from levelhead.data.embedded import embedded_model_path
from levelhead.errors import ModelError
from levelhead.export.gguf import export_gguf
from levelhead.export.onnx import export_onnx
from levelhead.models.loading import LoadedModel, load_base
from levelhead.models.surgery import prune_heads

pytestmark = pytest.mark.slow
HEADS = {3: [4], 7: [5, 6], 12: list(range(9)), 20: [0]}


@pytest.fixture(scope="module")
def pruned() -> LoadedModel:
    try:
        loaded = load_base(embedded_model_path(), dtype="float32", device="cpu")
    except ModelError as error:
        pytest.skip(str(error))
    prune_heads(loaded.model, HEADS)
    return loaded


def test_gguf(pruned: LoadedModel, tmp_path: Path) -> None:
    assert pruned.tokenizer is not None
    done = export_gguf(pruned.model, pruned.tokenizer, tmp_path / "x.gguf", zero_fill=True)
    assert done.difference < 1e-4


def test_onnx(pruned: LoadedModel, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert export_onnx(pruned.model, tmp_path / "x.onnx").difference < 1e-4
