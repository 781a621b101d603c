"""Selections and score tables know their unit; single weights by FASP's rule or in fours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from levelhead.errors import SelectionError
from levelhead.records import HeadSelection
from levelhead.scores import ScoreTable
from levelhead.selection import select_heads
from levelhead.selection.units import in_units, listed
from levelhead.selection.units_weights import select_two_of_four, select_weights


def table(unit, layers=3, each=4):
    rng = np.random.default_rng(0)
    columns = {
        "ppl_without": rng.random((layers, each)),
        "bias_without_a": rng.random((layers, each)),
    }
    if unit == "layer":
        columns["heads"] = np.full((layers, each), 5)
    built = ScoreTable.build(columns, layers, each)
    return ScoreTable(built.frame, layers, each, unit=unit)


@pytest.mark.parametrize(("unit", "each"), [("head", 4), ("neuron", 4), ("layer", 1)])
def test_tables_read_back_with_their_unit(unit, each, tmp_path):
    written = table(unit, each=each)
    path = tmp_path / "scores.csv"
    path.write_text(written.to_csv())
    header = path.read_text().splitlines()[0].split(",")
    assert ("neuron" in header) == (unit == "neuron")
    assert ("head" in header) == (unit == "head")
    again = ScoreTable.read(path)
    assert (again.unit, again.num_layers, again.num_heads) == (unit, 3, each)
    assert again.frame.equals(written.frame[again.frame.columns])


def test_selected_layers_are_all_of_their_heads():
    own = table("layer", layers=10, each=1)
    chosen = in_units(select_heads(own, axis="a", gamma=0.2, alpha=0.2), own)
    assert chosen.unit == "layer"
    assert len(chosen.by_layer) == 2
    assert all(heads == (0, 1, 2, 3, 4) for heads in chosen.by_layer.values())
    assert chosen.described == "2 attention layers"
    assert HeadSelection.from_json(chosen.to_json()) == chosen
    assert chosen.to_json()["layers"] == sorted(chosen.by_layer)


def test_selected_neurons_are_written_as_ranges():
    own = table("neuron")
    chosen = in_units(select_heads(own, axis="a", gamma=0.2, alpha=0.5), own)
    data = chosen.to_json()
    assert data["unit"] == "neuron"
    assert "heads" not in data
    assert HeadSelection.from_json(data) == chosen
    assert chosen.described == "6 neurons"
    assert listed(np.ones((2, 3), dtype=bool), own) == {"0": "0-2", "1": "0-2"}


@pytest.mark.parametrize(
    "data",
    [
        {"unit": "neuron", "heads": [[0, 1]]},
        {"unit": "head", "neurons": {"0": "1"}},
        {"unit": "expert", "heads": [[0, 1]]},
        {"neurons": [[0, 1]]},
        {"neurons": {"x": "1"}},
    ],
)
def test_selections_that_contradict_their_unit_are_refused(data):
    with pytest.raises(SelectionError):
        HeadSelection.from_json(data)


MATRICES = st.tuples(
    npst.arrays(np.float32, (4, 8), elements=st.floats(-1, 1, width=32)),
    npst.arrays(np.float32, (8, 4), elements=st.floats(-1, 1, width=32)),
)


@given(MATRICES, MATRICES, st.sampled_from([0.0, 0.3, 0.5]))
def test_weights_go_by_fasps_rule(falls, costs, gamma):
    fall, cost = dict(zip("ab", falls, strict=True)), dict(zip("ab", costs, strict=True))
    chosen = select_weights(fall, cost, gamma=gamma, sparsity=0.25)
    flat = [np.concatenate([d[n].ravel() for n in "ab"]) for d in (fall, cost, chosen)]
    gone = flat[2]
    assert gone.sum() == 16
    kept_costs = np.sort(flat[1])[::-1][: int(gamma * 64)]
    if gamma:
        assert flat[1][gone].max() <= kept_costs.min() + 0  # ties may go either way
    free = ~gone & (flat[1] < kept_costs.min() if gamma else True)
    if free.any():
        assert flat[0][free].max() <= flat[0][gone].min()


@given(MATRICES, MATRICES, st.sampled_from([0.0, 0.3, 1.0]))
def test_two_of_every_four_inputs_go(falls, costs, gamma):
    fall, cost = dict(zip("ab", falls, strict=True)), dict(zip("ab", costs, strict=True))
    chosen = select_two_of_four(fall, cost, {"a": 1, "b": 0}, gamma=gamma)
    assert (chosen["a"].reshape(-1, 4).sum(1) == 2).all()
    assert (chosen["b"].T.reshape(-1, 4).sum(1) == 2).all()
    # Nothing is protected: the larger falls go. Everything is: those that cost least.
    values = -fall["a"] if gamma == 0 else cost["a"]
    if gamma in (0.0, 1.0):
        gone = values.reshape(-1, 4)[chosen["a"].reshape(-1, 4)].reshape(-1, 2)
        kept = values.reshape(-1, 4)[~chosen["a"].reshape(-1, 4)].reshape(-1, 2)
        assert (gone.max(1) <= kept.min(1)).all()


def test_impossible_shares_of_weights_are_refused():
    one = {"a": np.ones((4, 6))}
    with pytest.raises(SelectionError, match="lower one of them"):
        select_weights(one, one, gamma=0.6, sparsity=0.6)
    with pytest.raises(SelectionError, match="zeroes none"):
        select_weights(one, one, gamma=0.0, sparsity=0.001)
    with pytest.raises(SelectionError, match="fours"):
        select_two_of_four(one, one, {"a": 1}, gamma=0.0)
