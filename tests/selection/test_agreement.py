"""Overlap of the sets that two halves choose, where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from levelhead.scores import ScoreTable
from levelhead.selection import METHODS
from levelhead.selection.agreement import agreement_warnings, split_half_agreement
from levelhead.selection.joint import JOINT, JointOptions
from levelhead.selection.rules import SETS, ranked_by
from levelhead.set_cost import SetCost

LAYERS, HEADS, SPLITS = 10, 10, 8
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


def joint_case(
    rng: np.random.Generator, noise: float, weight: float
) -> tuple[dict[str, np.ndarray], ScoreTable, JointOptions]:
    """Halves of a run of whose signed effects each knows the truth and own noise."""
    gap, truth = np.array([0.3, -0.2, -0.1]), rng.normal(size=(3, LAYERS, HEADS)) * 0.01
    truth -= truth.mean(0)
    effect = truth + noise * rng.normal(size=(SPLITS, 2, *truth.shape))
    gaps = np.broadcast_to(gap, (SPLITS, 2, 3)).copy()
    moved = np.abs(gaps[..., None, None]) - np.abs(gaps[..., None, None] - effect)
    z_ppl = np.broadcast_to(rng.normal(size=(LAYERS, HEADS)), (SPLITS, 2, LAYERS, HEADS))
    known = {"ppl": z_ppl, "bias:a": moved.sum(2), "gap:a": gaps, "gap_effect:a": effect}
    columns: dict[str, np.ndarray | float] = {"ppl_without": -z_ppl[0, 0], "bias_without_a": 0.0}
    for place, name in enumerate("xyz"):
        columns |= {f"gap_base_a_{name}": gap[place], f"gap_base_se_a_{name}": 0.01}
        columns[f"gap_effect_a_{name}"] = truth[place]
    rows = rng.normal(size=(200, LAYERS * HEADS)) / 100
    cost = SetCost(fisher=rows.T @ rows, slope=np.zeros(LAYERS * HEADS), calibration=1.0)
    table = ScoreTable.build(columns, LAYERS, HEADS).with_cost(cost)
    return known, table, replace(JOINT, kl_weight=weight)


def test_halves_choose_sets_by_their_own_gaps() -> None:
    known, table, joint = joint_case(np.random.default_rng(3), 0.0, 0.1)
    given = {**SHARES, "method": "joint", "whole": table}
    found = split_half_agreement(known, joint=joint, **given)
    assert found["overlap"] == found["protected_overlap"] == 1
    assert found["overlap_chance"] == pytest.approx(10 / 70)
    known, table, joint = joint_case(np.random.default_rng(3), 1.0, 0.0)
    given["whole"] = table
    noise = split_half_agreement(known, joint=joint, **given)
    assert noise["overlap"] == pytest.approx(10 / 70, abs=0.08)
    # Costs are of the whole run: where they alone decide, noise of the gaps does not matter.
    dear = split_half_agreement(known, joint=replace(joint, kl_weight=1e12), **given)
    assert dear["overlap"] > 0.9


def test_joint_without_its_lambda_or_gaps_says_nothing() -> None:
    known, table, joint = joint_case(np.random.default_rng(4), 0.0, 0.1)
    given = {**SHARES, "method": "joint", "whole": table}
    assert split_half_agreement(known, joint=JOINT, **given) == {}
    assert split_half_agreement(known, joint=joint, **given | {"whole": None}) == {}
    del known["gap:a"]
    assert split_half_agreement(known, joint=joint, **given) == {}
