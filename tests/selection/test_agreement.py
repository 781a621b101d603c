"""Overlap of the sets that two halves choose, where the answer is known."""

import numpy as np
import pytest

from levelhead.selection import METHODS
from levelhead.selection.agreement import agreement_warnings, split_half_agreement
from levelhead.selection.rules import SETS, ranked_by

LAYERS, HEADS = 10, 10
SHARES = {"axis": "a", "gamma": 0.3, "alpha": 0.1, "seed": 0}


def halves(rng: np.random.Generator, noise: float) -> np.ndarray:
    truth = rng.standard_normal((LAYERS, HEADS))
    return truth + noise * rng.standard_normal((40, 2, LAYERS, HEADS))


def test_equal_halves_agree_wholly() -> None:
    rng = np.random.default_rng(0)
    found = split_half_agreement(
        {"ppl": halves(rng, 0.0), "bias:a": halves(rng, 0.0)}, method="fasp", **SHARES
    )
    assert found["overlap"] == found["protected_overlap"] == 1
    assert agreement_warnings(found) == []


def test_unrelated_halves_agree_by_chance() -> None:
    rng = np.random.default_rng(1)
    known = {"ppl": halves(rng, 0.0), "bias:a": rng.standard_normal((40, 2, LAYERS, HEADS))}
    found = split_half_agreement(known, method="fasp", **SHARES)
    assert found["overlap_chance"] == pytest.approx(10 / 70)
    assert found["overlap"] == pytest.approx(10 / 70, abs=0.06)
    known["ppl"] = rng.standard_normal((40, 2, LAYERS, HEADS))
    found = split_half_agreement(known, method="fasp", **SHARES)
    assert found["protected_overlap"] == pytest.approx(0.3, abs=0.05)
    assert "protect only" in agreement_warnings(found)[0]
    assert "--text-tokens" in agreement_warnings(found)[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_own_chance(method: str) -> None:
    rng = np.random.default_rng(2)
    known = {"ppl": halves(rng, 0.3), "bias:a": halves(rng, 0.3)}
    found = split_half_agreement(known, method=method, **SHARES)
    if not ranked_by(method, "a") or method in SETS:
        assert found == {}
        return
    assert 0 <= found["overlap"] <= 1
    assert ("protected_overlap" in found) == (method == "fasp")
    assert found["overlap_chance"] == pytest.approx(10 / 70 if method == "fasp" else 0.1)


def test_without_halves_nothing_is_said() -> None:
    assert split_half_agreement({}, method="fasp", **SHARES) == {}
    assert agreement_warnings({}) == []
