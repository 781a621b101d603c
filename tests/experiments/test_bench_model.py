"""Speed and size of two models: what is known beforehand comes out, and noise is owned up to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from levelhead.errors import ConfigError, LevelheadError
from levelhead.experiments import bench_model as module
from levelhead.experiments.bench_model import bench_model, cache_bytes_per_token
from levelhead.experiments.peak_memory import peak_memory, resident_peak
from levelhead.models.surgery import prune_heads
from levelhead.testing import tiny_model

QUICK: dict[str, Any] = {"rounds": 24, "prompt_tokens": 32, "new_tokens": 3}


def test_a_much_larger_model_is_slower_and_the_base_is_as_fast_as_itself() -> None:
    small = tiny_model("llama", num_layers=1, hidden_size=24)
    large = tiny_model("llama", num_layers=8, hidden_size=48)
    found = bench_model(small, large, **QUICK)
    for phase in module.PHASES:
        assert found["ratios"][phase]["ci95"][1] < 0.8
        assert 0.6 < found["control"][phase]["value"] < 1.6
    assert found["base"]["tokens_per_second"]["decode"] > 0
    assert found["pruned"]["parameters"] > found["base"]["parameters"]
    assert found["base"]["peak_memory"] is None  # loaded models have no process of their own


def test_sizes_of_a_pruned_model() -> None:
    base, pruned = (tiny_model("llama", num_layers=2) for _ in range(2))
    prune_heads(pruned, {0: [0, 1, 2], 1: [5]})  # a whole group of three and one of another
    found = bench_model(base, pruned, rounds=6, prompt_tokens=8, new_tokens=2)
    width, hidden = 8, 48
    gone = 4 * 2 * width * hidden + 2 * width * hidden  # four queries with outputs, one key/value
    assert found["base"]["parameters"] - found["pruned"]["parameters"] == gone
    assert found["base"]["bytes"] == 4 * found["base"]["parameters"]
    per_head = 2 * width * 4
    assert found["base"]["kv_cache_bytes_per_token"] == 2 * 2 * per_head
    assert found["pruned"]["kv_cache_bytes_per_token"] == 3 * per_head
    assert cache_bytes_per_token(tiny_model("gemma3_text")) == 3 * 2 * (2 * 16 * 4)


def test_a_biased_clock_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def timed(*args: Any) -> np.ndarray:
        calls.append(args)
        seconds = np.random.default_rng(len(calls)).normal(1, 0.01, (8, 3, 2))
        seconds[:, 2, 0] *= 1.3  # the base again: slower than itself, in prefill only
        return seconds

    monkeypatch.setattr(module, "_timed", timed)
    model = tiny_model("gpt2", num_layers=1)
    found = bench_model(model, model, **QUICK)
    assert not found["trusted"]
    assert found["rounds"] == 16  # a second chance was given
    assert [line.split(":")[0] for line in found["warnings"]] == ["prefill"]
    assert "do not trust" in found["warnings"][0]


def test_ratios_cover_the_truth_and_noise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    held = 0
    # With a tenth of the rounds disturbed, which a mean would not survive.
    for _ in range(400):
        seconds = np.exp(
            generator.normal(0, 0.3, (20, 1, 1)) + generator.normal(0, 0.1, (20, 3, 2))
        )
        seconds *= np.where(generator.random(seconds.shape) < 0.1, 20, 1)
        seconds[:, 1] /= 1.25
        low, high = module._ratios(seconds, 1)["prefill"]["ci95"]
        held += low < 1.25 < high
    assert 0.94 < held / 400 < 0.995
    assert module._warnings({"decode": {"value": 1.0, "ci95": [0.8, 1.25]}})[0].startswith(
        "decode: the machine is noisy"
    )
    assert module._warnings({"decode": {"value": 1.0, "ci95": [0.98, 1.02]}}) == []


def test_a_run_folder_has_both_models(finished: Path) -> None:
    plans = []
    found = bench_model(
        finished, rounds=6, prompt_tokens=8, new_tokens=2, memory=False, announce=plans.append
    )
    assert found["pruned"]["name"] == str(finished / "model") == plans[0].pruned
    assert found["pruned"]["parameters"] < found["base"]["parameters"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 5}, "--rounds 5 .* at least 6"),
        ({"prompt_tokens": 1}, "--prompt-tokens 1"),
        ({"prompt_tokens": 120, "new_tokens": 20}, "140 together.* 128"),
    ],
)
def test_bad_numbers(options: dict[str, int], message: str) -> None:
    model = tiny_model("gpt2", num_layers=1)
    with pytest.raises(ConfigError, match=message):
        bench_model(model, model, **options)


def test_one_model_is_not_two(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one model only"):
        bench_model(tmp_path)


@pytest.mark.slow
def test_peak_memory_is_that_of_the_child(tmp_path: Path) -> None:
    for name, width in (("small", 48), ("large", 1152)):
        tiny_model("gpt2", num_layers=2, hidden_size=width).save_pretrained(tmp_path / name)
    ballast = np.ones(100_000_000)  # 800 MB in the parent must not show
    small, large = (
        peak_memory(str(tmp_path / name), "auto", "cpu", 1, 8, 2) for name in ("small", "large")
    )
    weights = sum(f.stat().st_size for f in (tmp_path / "large").glob("*.safetensors"))
    assert weights > 60e6
    own = resident_peak()
    assert own is not None
    assert own > ballast.nbytes
    assert small["peak"] is not None
    assert large["peak"] is not None
    assert small["before"] is not None
    assert small["peak"] < 750e6
    assert 0.8 * weights < large["peak"] - small["peak"] < 2.5 * weights


def test_a_child_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([sys.executable], 1, stdout="", stderr="x\nno such model")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)
    with pytest.raises(LevelheadError, match="no such model"):
        peak_memory("x", "auto", "cpu", 1, 8, 2)
