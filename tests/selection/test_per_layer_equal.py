"""The same number of heads of every layer: ranked within the layer, refused where it cannot be."""

import numpy as np
import pytest

from levelhead.errors import SelectionError
from levelhead.scores import ScoreTable
from levelhead.selection import METHODS, select_heads
from levelhead.selection.agreement import split_half_agreement
from levelhead.selection.rules import protected_heads
from levelhead.set_cost import SetCost

LAYERS, HEADS = 4, 10


@pytest.fixture
def table() -> ScoreTable:
    """Bias effects grow with the layer, so that plain FASP takes the last layers first."""
    rng = np.random.default_rng(3)
    shape = (LAYERS, HEADS)
    bias = rng.normal(size=shape) + 5 * np.arange(LAYERS)[:, None]
    columns = {
        "ppl_without": rng.normal(30, 1, shape),
        "bias_without_gender": -bias,
        "magnitude": rng.random(shape),
        "mask_gradient": rng.random(shape),
        **{f"gap_base_gender_{name}": gap for name, gap in (("a", 2.0), ("b", -2.0))},
        **{f"gap_base_se_gender_{name}": 0.1 for name in "ab"},
        "gap_effect_gender_a": bias / 100,
        "gap_effect_gender_b": -bias / 100,
    }
    root = rng.normal(size=(50, LAYERS * HEADS)) / 100
    cost = SetCost(fisher=root.T @ root, slope=root.sum(0) / 50, calibration=1.0)
    return ScoreTable.build(columns, LAYERS, HEADS).with_cost(cost)


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_loses_as_many(table: ScoreTable, method: str) -> None:
    chosen = select_heads(table, axis="gender", method=method, alpha=0.29, per_layer_equal=True)
    counts = [len(chosen.by_layer.get(layer, ())) for layer in range(LAYERS)]
    assert counts == [2, 2, 2, 2]  # floor(0.29 * 10)
    assert (chosen.details or {})["per_layer_equal"] is True
    plain = select_heads(table, axis="gender", method=method, alpha=0.29)
    assert plain.heads != chosen.heads
    assert "per_layer_equal" not in (plain.details or {})


def test_each_layer_is_ranked_by_itself_without_protected_heads(table: ScoreTable) -> None:
    chosen = select_heads(table, axis="gender", gamma=0.4, alpha=0.2, per_layer_equal=True)
    kept = protected_heads(table, 0.4)
    bias = table.ranking("bias:gender")
    for layer, gone in chosen.by_layer.items():
        free = [head for head in range(HEADS) if not kept[layer, head]]
        best = sorted(free, key=lambda head: -bias[layer, head])[:2]
        assert sorted(best) == list(gone)
    anything = select_heads(
        table, axis="gender", method="bias_only", alpha=0.2, per_layer_equal=True
    )
    assert anything.heads != chosen.heads  # control: protection matters


def test_ties_go_to_the_smaller_head() -> None:
    table = ScoreTable.build({"bias_without_gender": 0.5}, 2, 4)
    chosen = select_heads(table, axis="gender", method="bias_only", alpha=0.5, per_layer_equal=True)
    assert chosen.heads == ((0, 0), (0, 1), (1, 0), (1, 1))


def test_protection_that_leaves_too_few_in_a_layer_is_refused() -> None:
    ppl = np.full((3, 4), 10.0)
    ppl[1, :3] = [20, 21, 22]  # layer 1 holds the heads that are needed
    table = ScoreTable.build({"ppl_without": ppl, "bias_without_gender": 0.1}, 3, 4)
    select_heads(table, axis="gender", gamma=0.25, alpha=0.5)  # control: plain FASP can
    message = (
        r"prunes 2 of 4 heads in every layer, but gamma=0\.25 leaves 1 unprotected in layer 1; "
        r"lower gamma, or alpha to 0\.2500 at most"
    )
    with pytest.raises(SelectionError, match=message):
        select_heads(table, axis="gender", gamma=0.25, alpha=0.5, per_layer_equal=True)
    lowered = select_heads(table, axis="gender", gamma=0.25, alpha=0.25, per_layer_equal=True)
    assert len(lowered.heads) == 3
    ppl[1:] = np.arange(20, 28).reshape(2, 4)
    table = ScoreTable.build({"ppl_without": ppl, "bias_without_gender": 0.1}, 3, 4)
    with pytest.raises(SelectionError, match=r"leaves 0 .* layer 1 \(too few in 1 other.*gamma$"):
        select_heads(table, axis="gender", gamma=0.67, alpha=0.25, per_layer_equal=True)


def test_an_alpha_that_prunes_nothing_in_a_layer_is_refused(table: ScoreTable) -> None:
    with pytest.raises(SelectionError, match=r"none of the 10 heads of a layer; .* 0\.1000"):
        select_heads(table, axis="gender", alpha=0.09, per_layer_equal=True)
    assert len(select_heads(table, axis="gender", alpha=0.1, per_layer_equal=True).heads) == 4


def test_halves_are_compared_by_the_same_rule(table: ScoreTable) -> None:
    z = {"ppl": table.ranking("ppl"), "bias:gender": table.ranking("bias:gender")}
    halves = {name: np.stack([np.stack([grid, grid])]) for name, grid in z.items()}
    same = split_half_agreement(halves, "gender", "fasp", 0.2, 0.2, 0, True)
    assert same["overlap"] == 1
    free = (~protected_heads(table, 0.2)).sum(axis=1)
    assert same["overlap_chance"] == pytest.approx((2 / free).mean())
    shuffled = np.random.default_rng(0).permuted(z["bias:gender"], axis=1)
    halves["bias:gender"] = np.stack([np.stack([z["bias:gender"], shuffled])])
    assert split_half_agreement(halves, "gender", "fasp", 0.2, 0.2, 0, True)["overlap"] < 1


def test_every_group_loses_as_many(table: ScoreTable) -> None:
    chosen = select_heads(
        table, axis="gender", gamma=0.2, alpha=0.2, per_layer_equal=True, groups=2
    )
    kept, bias = protected_heads(table, 0.2), table.ranking("bias:gender")
    for layer in range(LAYERS):
        for group in (range(5), range(5, 10)):
            free = [head for head in group if not kept[layer, head]]
            best = max(free, key=lambda head: bias[layer, head])
            assert [head for head in chosen.by_layer[layer] if head in group] == [best]
    whole = select_heads(table, axis="gender", gamma=0.2, alpha=0.2, per_layer_equal=True)
    assert whole.heads != chosen.heads  # control: a layer's two best are not one of each group


def test_groups_too_small_for_alpha_or_protected_are_named(table: ScoreTable) -> None:
    message = r"none of the 5 heads that share a key/value head \(2 groups a layer\).*0\.2000"
    with pytest.raises(SelectionError, match=message):
        select_heads(table, axis="gender", alpha=0.1, per_layer_equal=True, groups=2)
    ppl = np.full((2, 4), 10.0)
    ppl[1, 2:] = [20, 21]
    small = ScoreTable.build({"ppl_without": ppl, "bias_without_gender": 0.1}, 2, 4)
    with pytest.raises(SelectionError, match=r"leaves 0 unprotected in a group of layer 1; lower"):
        select_heads(small, axis="gender", gamma=0.25, alpha=0.5, per_layer_equal=True, groups=2)
