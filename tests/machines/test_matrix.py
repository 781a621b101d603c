"""The matrix covers every pair of factors, and what it sets is what processes see."""

from __future__ import annotations

import os
from itertools import combinations, product
from pathlib import Path

import pytest
from tests.machines.matrix import (
    CAPABILITIES,
    FLOAT32,
    MATMULS,
    SETTINGS,
    THREADS,
    Setting,
    chosen,
    install_plugin,
    lacking,
    measured,
)


def test_every_pair_of_values_is_run() -> None:
    factors = (CAPABILITIES, THREADS, MATMULS)
    run = [(s.capability, s.threads, s.matmul) for s in SETTINGS]
    for one, other in combinations(range(3), 2):
        pairs = set(product(factors[one], factors[other]))
        assert {(values[one], values[other]) for values in run} == pairs
    assert len(set(SETTINGS)) == 6


def test_settings_are_chosen_by_name() -> None:
    assert chosen([]) == list(SETTINGS)
    assert chosen(["avx2-2-onednn"]) == [Setting("avx2", 2, "onednn")]
    with pytest.raises(ValueError, match="no settings: avx512-1-mkl; there are own-1-mkl, "):
        chosen(["own-1-mkl", "avx512-1-mkl"])


def test_what_a_machine_lacks_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"capability": "default"}
    assert lacking(Setting("avx2", 1, "mkl"), old, tmp_path) == (
        "This CPU has no AVX2: torch's own capability here is default."
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert "has 1 core, the setting needs 2" in str(lacking(Setting("own", 2, "mkl"), {}, tmp_path))


def test_settings_change_the_bits_and_nothing_else(tmp_path: Path) -> None:
    """Two processes; `lacking` asks the same before a setting is run."""
    plugin = install_plugin(tmp_path)
    plain, other = (
        measured(setting.environment(os.environ, plugin))
        for setting in (Setting("own", 1, "mkl"), Setting("default", 1, "onednn"))
    )
    assert (plain["threads"], other["threads"]) == (1, 1)
    assert other["capability"] == "default"
    assert max(plain["error"], other["error"]) < FLOAT32
    if plain["capability"].startswith("avx512"):
        assert plain["products"] != other["products"]
        assert plain["attention"] != other["attention"]
        assert plain["elementwise"] != other["elementwise"]
