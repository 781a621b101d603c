"""Columns of gaps: axes and subgroups of any names keep columns of their own."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from levelhead.scores import ScoreTable, gap_column
from levelhead.selection.joint import axis_gaps

PARTS = ("base", "base_se", "effect", "effect_se")
Axes = dict[str, list[str]]

names = st.text("ab_:%", min_size=1, max_size=5) | st.sampled_from(["se", "se_a", "base", "a_se"])


def table_of(axes: Axes) -> ScoreTable:
    """Every number differs from every other; gaps are as large as their place."""
    columns: dict[str, float] = {"ppl_without": 20.0}
    for axis in axes:
        columns[f"bias_without_{axis}"] = 0.1
    place = 0
    for axis, subgroups in axes.items():
        for subgroup in subgroups:
            for part in PARTS:
                place += 1
                columns[gap_column(part, axis, subgroup, axes)] = float(place)
    assert len(columns) == 1 + len(axes) + place, "a column was overwritten"
    text = ScoreTable.build(columns, 1, 2).to_csv()
    return ScoreTable.from_frame(pd.read_csv(io.StringIO(text)))


def check(axes: Axes) -> None:
    table = table_of(axes)
    place = 0
    for axis, subgroups in axes.items():
        assert table.subgroups(axis) == tuple(subgroups)
        for subgroup in subgroups:
            for part in PARTS:
                place += 1
                assert np.all(table.gap(part, axis, subgroup) == place)


def test_an_axis_that_begins_another_keeps_its_subgroups() -> None:
    axes = {"gender": ["cis", "identity_trans"], "gender_identity": ["trans", "cis"]}
    check(axes)
    assert len(axis_gaps(table_of(axes), "gender").gap) == 2


@settings(deadline=None)
@given(st.dictionaries(names, st.lists(names, min_size=1, max_size=4, unique=True), max_size=4))
def test_no_two_subgroups_of_any_names_share_a_column(axes: Axes) -> None:
    check(axes)


def test_names_that_no_other_could_have_are_as_they_were() -> None:
    axes = ["race", "race_ethnicity"]
    assert gap_column("base", "race", "native_american", axes) == "gap_base_race_native_american"
    assert (
        gap_column("effect_se", "race_ethnicity", "a b", axes) == "gap_effect_se_race_ethnicity_a b"
    )
    assert gap_column("base", "race", "ethnicity_x", axes) == "gap_base::race::ethnicity_x"


def test_a_table_of_an_older_levelhead_is_read() -> None:
    columns = {"bias_without_a": 0.1, "bias_without_a_b": 0.1, "bias_without_se": 0.1}
    old = {"a_c_d": 1.0, "a_x::y": 2.0, "a_b_z": 3.0, "se_p": 4.0}
    parts = {f"gap_{part}_{name}": value for part in PARTS for name, value in old.items()}
    table = ScoreTable.build(columns | parts, 1, 1)
    assert table.subgroups("a") == ("c_d", "x::y")
    assert table.subgroups("a_b") == ("z",)
    assert [table.gap("effect", "a", name)[0, 0] for name in ("c_d", "x::y")] == [1, 2]
    assert table.gap("base", "se", "p")[0, 0] == 4
