"""A model without some neurons as a GGUF file: stock shapes, zeros where they were."""

from __future__ import annotations

import pytest
from tests.export.test_gguf import apart, byte_level, model_of, read

from levelhead.errors import CheckpointError
from levelhead.export.gguf import export_gguf
from levelhead.models.neurons import prune_neurons

pytest.importorskip("gguf")


def test_gguf_files_hold_models_without_neurons(tmp_path):
    model, other = model_of("llama"), model_of("llama")
    prune_neurons(model, {0: range(0, 192, 3), 1: [5]})
    prune_neurons(other, {0: range(1, 192, 3), 1: [6]})
    with pytest.raises(CheckpointError, match="zero-fill"):
        export_gguf(model, byte_level(), tmp_path / "m.gguf", zero_fill=False)
    export_gguf(model, byte_level(), tmp_path / "m.gguf", zero_fill=True)
    again = read(tmp_path / "m.gguf")
    assert apart(again, model) < 1e-4
    assert apart(again, other) > 1e-3
