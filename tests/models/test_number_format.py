"""`--dtype auto` on a CPU: bfloat16 only where it is clearly faster, and never for small models."""

from __future__ import annotations

import math

import pytest
from transformers import LlamaConfig

from levelhead.models import number_format
from levelhead.models.number_format import calibrated, decided, linear_shapes, measured_speedup
from levelhead.testing import TINY_FAMILIES, WHOLE_LAYER_FAMILIES, tiny_model

LARGE = LlamaConfig(
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    vocab_size=16_000,
)


@pytest.mark.parametrize("family", [*TINY_FAMILIES, *WHOLE_LAYER_FAMILIES])
def test_small_models_are_float32_and_not_timed(family, monkeypatch):
    monkeypatch.setattr(number_format, "measured_speedup", _not_to_be_called)
    found = calibrated(tiny_model(family).config)
    assert (found.dtype, found.speedup) == ("float32", None)
    assert "little to gain" in found.reason


def test_layers_are_found_without_weights():
    shapes = linear_shapes(LARGE)
    assert shapes[512, 1024] == 16, "gate and up projections"
    assert shapes[512, 256] == 16, "keys and values"
    assert shapes[512, 16_000] == 1


@pytest.mark.parametrize(("speedup", "dtype"), [(1.49, "float32"), (1.51, "bfloat16")])
def test_the_margin_decides(monkeypatch, speedup, dtype):
    monkeypatch.setattr(number_format, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(number_format, "measured_speedup", lambda shapes, threads: speedup)
    found = calibrated(LARGE)
    assert found.dtype == dtype
    assert found == decided(speedup, found.shapes)
    assert found.shapes[0] in ((512, 1024), (512, 16_000)), "the most work comes first"
    assert found.to_json()["shapes"][0] == list(found.shapes[0])


def test_a_cpu_without_bfloat16_is_not_timed(monkeypatch):
    monkeypatch.setattr(number_format, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(number_format, "measured_speedup", _not_to_be_called)
    assert calibrated(LARGE).dtype == "float32"


def test_torch_held_to_older_instructions_counts_as_a_cpu_without(monkeypatch):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert not number_format.multiplies_bfloat16()


def test_both_formats_are_timed_once_per_process(monkeypatch):
    shapes = (((64, 128), 3), ((128, 64), 1))
    first = measured_speedup(shapes, 1)
    assert math.isfinite(first)
    assert first > 0
    monkeypatch.setattr(number_format, "linear", _not_to_be_called)
    assert measured_speedup(shapes, 1) == first


def _not_to_be_called(*_: object) -> float:
    raise AssertionError("nothing is to be timed here")
