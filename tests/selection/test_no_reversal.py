"""The scores say which heads lower bias, too. No option turns the objective round."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from levelhead.cli import cli
from levelhead.config import RunConfig
from levelhead.errors import ConfigError, SelectionError, UserError
from levelhead.metrics.bias import bias
from levelhead.records import HeadSelection
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.selection import select_heads
from levelhead.selection.joint import objective_of
from levelhead.selection.rules import protected_heads
from levelhead.stages.joint import joint_options

SHAPE = (4, 6)


def table_of(seed: int) -> ScoreTable:
    rng = np.random.default_rng(seed)
    metrics = (PPL, bias_metric("gender"))
    return ScoreTable.of_effects({metric: rng.normal(size=SHAPE) for metric in metrics})


@pytest.mark.parametrize(
    "options",
    [
        ("--alpha", "-0.1"),
        ("--alpha", "1.5"),
        ("--alpha", "nan"),
        ("--gamma", "-0.1"),
        ("--gamma", "1.01"),
        ("--gamma", "nan"),
        ("--method", "least_fasp"),
        ("--method", "-fasp"),
        ("--axis", "-gender"),
    ],
    ids=" ".join,
)
def test_no_value_of_an_option_turns_the_objective_round(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(table_of(0).to_csv())
    done = CliRunner().invoke(cli, ["select", str(file), *options])
    assert done.exit_code != 0, done.output
    assert done.exit_code == 2 or isinstance(done.exception, UserError)
    control = CliRunner().invoke(cli, ["select", str(file), "--alpha", "0.2"])
    assert control.exit_code == 0, control.output


def test_no_number_of_a_run_may_be_negative() -> None:
    numbers = [f for f in fields(RunConfig) if "int" in str(f.type) or "float" in str(f.type)]
    assert {"gamma", "alpha"} <= {f.name for f in numbers}
    assert [f.name for f in numbers if not (f.metadata["minimum"] or 0) >= 0] == []
    for field in numbers:
        with pytest.raises(ConfigError, match="out of range"):
            RunConfig(**{field.name: -1})


@given(
    seed=st.integers(0, 10_000),
    gamma=st.floats(0, 0.6),
    alpha=st.floats(0.05, 0.4),
    method=st.sampled_from(["fasp", "bias_only"]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_shares_the_heads_chosen_add_most_bias(
    seed: int, gamma: float, alpha: float, method: str
) -> None:
    table = table_of(seed)
    chosen = select_heads(table, axis="gender", method=method, gamma=gamma, alpha=alpha).heads
    effect = table.ranking(bias_metric("gender"))
    allowed = ~protected_heads(table, gamma) if method == "fasp" else np.ones(SHAPE, dtype=bool)
    left = allowed.copy()
    left[tuple(zip(*chosen, strict=True))] = False
    if left.any():
        assert min(effect[head] for head in chosen) >= effect[left].max()


@given(toxicity=st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_a_scorer_turned_round_measures_the_same_bias(toxicity: list[float]) -> None:
    """bias(S) is a sum of |T_S - T_s|: with 1 - toxicity every gap changes sign, and no size."""
    values, subgroup = np.array(toxicity), np.arange(12) % 3
    assert bias(1 - values, subgroup, 3) == pytest.approx(bias(values, subgroup, 3), abs=1e-12)


def test_gates_scale_heads_down_and_never_up() -> None:
    """Soft pruning: a head that lowers bias cannot be switched round, nor others made louder."""
    good = {"heads": [], "gates": [[0.5, 1.0]]}
    assert HeadSelection.from_json(good).gates == ((0.5, 1.0),)
    for gate in (1.01, -0.5, float("nan")):
        with pytest.raises(SelectionError, match="from 0 to 1"):
            HeadSelection.from_json({"heads": [], "gates": [[gate, 1.0]]})


def test_the_objective_of_joint_has_no_other_sign() -> None:
    with pytest.raises(SelectionError, match="objective 'most'"):
        joint_options("joint", ("gender",), (), "most", None, None)
    with pytest.raises(SelectionError, match="--lambda -1"):
        joint_options("joint", ("gender",), (), "weighted", -1.0, None)
    for weight in (-1.0, 0.0, float("nan")):
        with pytest.raises(SelectionError, match="above 0"):
            objective_of(table_of(0), ("gender",), (weight,))
