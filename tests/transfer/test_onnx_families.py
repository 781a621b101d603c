"""Every supported family as an ONNX file, its heads or neurons removed unevenly."""

from __future__ import annotations

from pathlib import Path

import pytest

from levelhead.export.onnx import export_onnx
from levelhead.models.architectures import ARCHITECTURES
from levelhead.models.neuron_layouts import LAYOUTS
from levelhead.models.neurons import prune_neurons
from levelhead.models.surgery import prune_heads
from levelhead.testing import tiny_model

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

WHOLE_LAYER = [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "layers_only"),
    [(name, bool(a.whole_layers_only)) for a in ARCHITECTURES for name in a.model_types],
)
def test_every_family(family: str, layers_only: bool, tmp_path: Path) -> None:
    model = tiny_model(family, num_layers=2)
    prune_heads(model, {1: WHOLE_LAYER} if layers_only else {0: [0, 3], 1: WHOLE_LAYER})
    assert export_onnx(model, tmp_path / "x.onnx").difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", LAYOUTS)
def test_every_family_without_neurons(family: str, tmp_path: Path) -> None:
    model = tiny_model(family, num_layers=2)
    before = model.num_parameters()
    prune_neurons(model, {0: [0, 3, 7], 1: range(5)})
    assert model.num_parameters() < before
    assert export_onnx(model, tmp_path / "x.onnx").difference < 1e-5
