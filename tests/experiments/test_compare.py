"""Methods compared on a model whose biased head is known: layer 1, head 2 of `planted_model`."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import levelhead
from levelhead import cli, compare, runs
from levelhead.errors import ConfigError, MissingExtraError, RunFolderError, SelectionError
from levelhead.experiments.grid import best, points_of
from levelhead.scores import ScoreTable
from levelhead.testing import planted_model

pytestmark = pytest.mark.slow
"""Studies of finished runs: continuous integration runs them."""

EXPECTED = "expected_difference"
SMALL: dict[str, Any] = {
    "alphas": (0.0, 0.06, 0.12),
    "gammas": (0.2, 0.5),
    "sample_at": (0.06,),
    "seeds": 2,
    "draws": 2,
}


@pytest.fixture(scope="module")
def compared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(copytree(finished, tmp_path_factory.mktemp("compared") / "run"))
    compare(run, **SMALL)
    return run


def read(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "compare" / "compare.json").read_text())
    return found


def test_the_planted_head_is_found_and_the_wrong_ones_are_not_better(compared: Path) -> None:
    """fasp and bias_only remove nearly all measured bias; control: random and ppl_only do not."""
    planted = planted_model()
    rows = {row["method"]: row for row in read(compared)["table"]}
    assert set(rows) == {
        "fasp", "joint", "bias_only", "ppl_only", "fisher_only", "magnitude", "mask_gradient",
        "random",
    }  # fmt: skip
    points = {(p["method"], p["alpha"]): p for p in read(compared)["points"]}
    assert points["fasp", 0.06]["heads"] == [list(planted.head)]
    # The expected difference carries the uncertainty of the base gaps: its interval is wider.
    for name, most in (("difference", -0.3), ("adjusted_difference", -0.3), (EXPECTED, -0.2)):
        for method in ("fasp", "joint"):
            assert rows[method][name]["value"] < -0.3, (method, name)
            assert rows[method][name]["ci95"][1] < most, (method, name)
        assert rows["ppl_only"][name]["value"] > -0.2, name
        assert rows["random"][name]["value"] > -0.2, name


def test_three_estimates_of_one_difference_agree(compared: Path) -> None:
    """Sampled, adjusted and expected: intervals of the first two overlap for every set."""
    for row in read(compared)["table"]:
        (a, b), (c, d) = row["difference"]["ci95"], row["adjusted_difference"]["ci95"]
        assert max(a, c) <= min(b, d) + 0.02, row["method"]


def test_alpha_0_is_the_base_and_equal_counts_are_judged_once(compared: Path) -> None:
    result = read(compared)
    for point in result["points"]:
        if point["alpha"] == 0:
            assert point["heads"] == []
            assert point["perplexity"] == result["base_perplexity"]
            assert point["axes"]["gender"]["expected_difference"]["value"] == 0
    sets = {tuple(map(tuple, p["heads"])) for p in result["points"] if p["heads"]}
    units = compared / "compare" / "units"
    judged = [u for u in units.glob("expected-*.json") if '"test"' in u.read_text()]
    assert len(judged) == len(sets)
    sampled = {tuple(map(tuple, p["heads"])) for p in result["points"] if
               p["axes"]["gender"]["sampled"]}  # fmt: skip
    assert len(list(units.glob("sampled-*.json"))) == len(sampled)


def test_gamma_is_chosen_on_validation_prompts_under_the_budget(compared: Path) -> None:
    result = read(compared)
    for alpha in (0.06, 0.12):
        rows = [row for row in result["search"] if row["alpha"] == alpha]
        assert [row["gamma"] for row in rows] == [0.2, 0.5]
        (pick,) = [row for row in rows if row["chosen"]]
        assert pick == best(rows, result["max_ppl_increase"])
        (point,) = [p for p in result["points"] if (p["method"], p["alpha"]) == ("fasp", alpha)]
        assert point["gamma"] == pick["gamma"]


def test_the_budget_comes_before_the_bias() -> None:
    def row(bias: float, ppl: float) -> dict[str, Any]:
        return {"expected_difference": {"value": bias}, "perplexity_increase": {"value": ppl}}

    rows = [row(-0.3, 0.5), row(-0.1, 0.05), row(-0.2, 0.09), row(0.1, 0.0)]
    assert best(rows, 0.1) is rows[2]
    assert best(rows, 0.6) is rows[0]
    assert best(rows[:1], 0.1) is rows[0]


def test_a_second_comparison_repeats_nothing(
    compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the reading of the base model's text; and a larger grid adds only what is new."""
    from levelhead.experiments import joint

    before = (compared / "compare" / "compare.json").read_bytes()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this was computed already")

    monkeypatch.setattr(joint, "evaluate_axis", refuse)
    monkeypatch.setattr(joint, "expected_difference", refuse)
    monkeypatch.setattr(joint, "sample_texts", refuse)
    monkeypatch.setattr(joint, "text_perplexity", refuse)
    compare(compared, **SMALL)
    assert (compared / "compare" / "compare.json").read_bytes() == before
    with pytest.raises(AssertionError, match="computed already"):
        compare(compared, **SMALL | {"seeds": 3})


def test_a_damaged_unit_is_made_again(run: Path) -> None:
    small = SMALL | {"methods": ("bias_only",), "alphas": (0.06,), "seeds": 1}
    first = compare(run, **small)
    for unit in (run / "compare" / "units").glob("expected-*.json"):
        unit.write_text(unit.read_text()[:20])
    assert compare(run, **small) == first


def test_tidy_table_has_a_row_per_point_and_quantity(compared: Path) -> None:
    frame = pd.read_csv(compared / "compare" / "points.csv")
    points = read(compared)["points"]
    expected = frame[(frame.metric == "bias_difference") & (frame.how == "expected")]
    assert len(expected) == len(points)
    assert set(frame.how) == {"text", "expected", "sampled", "adjusted"}
    assert np.isfinite(frame[["value", "low", "high"]].to_numpy()).all()
    assert (frame.low <= frame.high).all()


def test_parquet_holds_the_same_rows(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    compare(compared, **SMALL, parquet=True)
    read_back = pd.read_parquet(compared / "compare" / "points.parquet")
    csv = pd.read_csv(compared / "compare" / "points.csv")
    assert len(read_back) == len(csv)
    np.testing.assert_allclose(read_back["value"], csv["value"])
    monkeypatch.setattr("levelhead.experiments.compare.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"levelhead\[parquet\]"):
        compare(compared, **SMALL, parquet=True)


def test_points_of_equal_heads_and_impossible_shares(finished: Path) -> None:
    table = ScoreTable.read(finished / "scores.csv")
    points = points_of(table, "gender", "fasp", (0.0, 0.5, 0.9), (0.2, 0.7), 1)
    assert [(p.alpha, p.gamma, len(p.heads)) for p in points] == [
        (0.0, 0.2, 0), (0.0, 0.7, 0), (0.5, 0.2, 9),
    ]  # fmt: skip
    draws = points_of(table, "gender", "random", (0.5,), (), 3)
    assert len({p.heads for p in draws}) == 3


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"methods": ("best",)}, SelectionError, "unknown method 'best'"),
        ({"alphas": (1.5,)}, SelectionError, "alpha=1.5"),
        ({"sample_at": (0.3,)}, SelectionError, "--sample-at 0.3"),
        ({"alphas": (0.01,), "sample_at": ()}, SelectionError, "no point that prunes a head"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    finished: Path, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        compare(finished, **given)
    assert not (finished / "compare").exists()


def test_two_runs_side_by_side(
    compared: Path, inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    """Another seed's scores, judged on the same texts; methods without scores stand once."""
    other = tmp_path / "other"
    levelhead.score(str(inputs / "model"), out=other, **(options | {"seed": 5}))
    result = compare(compared, other, **SMALL)
    rows = [(row["run"], row["method"]) for row in result["table"]]
    assert [run for run, method in rows if method == "fasp"] == ["run", "other"]
    assert [run for run, method in rows if method == "random"] == ["run"]
    assert result["runs"] == ["run", "other"]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"new_tokens": 5}, r"new_tokens \(6 / 5\)"), ({"prompt_seed": 3}, "prompt_seed")],
)
def test_runs_that_measure_other_things_are_refused(
    finished: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    other = tmp_path / "other"
    copytree(finished, other)
    config = json.loads((other / "config.json").read_text()) | change
    runs.write_text(other / "config.json", json.dumps(config))
    with pytest.raises(ConfigError, match=f"run and other cannot be compared.*{named}"):
        compare(finished, other)
    details = json.loads((other / "details.json").read_text())
    details["of"]["model"] = "another"
    runs.write_text(other / "details.json", json.dumps(details))
    with pytest.raises(ConfigError, match="they differ in model"):
        compare(finished, other)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder"):
        compare(tmp_path)


def test_the_command(compared: Path, inputs: Path, tmp_path: Path) -> None:
    grid = ["--alphas", "0, 0.06 .. 0.12", "--gammas", "0.2, 0.5", "--sample-at", "0.06"]
    words = ["compare", str(compared), *grid, "--seeds", "2", "--draws", "2"]
    shown = CliRunner().invoke(cli.cli, words)
    assert shown.exit_code == 0, shown.output
    assert "mask_gradient" in shown.output
    assert "plan (gender)" in shown.output
    printed = CliRunner().invoke(cli.cli, [*words, "--json"])
    assert json.loads(printed.stdout) == read(compared)
    for bad, error in ((["--seed", "3"], ConfigError), (["--alphas", "0.2 .. 0.1"], ConfigError)):
        found = CliRunner().invoke(cli.cli, ["compare", str(compared), *bad])
        assert isinstance(found.exception, error)
    nowhere = CliRunner().invoke(cli.cli, ["compare", str(inputs / "model")])
    assert nowhere.exit_code == 2
    assert "--out" in nowhere.output


def test_a_model_is_scored_first(inputs: Path, options: dict[str, Any], tmp_path: Path) -> None:
    given = {k: v for k, v in options.items() if k not in ("axis", "gamma")}
    flags = [word for k, v in given.items() for word in (f"--{k.replace('_', '-')}", str(v))]
    words = ["compare", str(inputs / "model"), "--out", str(tmp_path / "run"), *flags]
    words += [
        "--axis",
        "gender",
        "--method",
        "bias_only",
        "--alphas",
        "0.06",
        "--sample-at",
        "0.06",
    ]
    shown = CliRunner().invoke(cli.cli, [*words, "--seeds", "1"])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "run" / "scores.csv").exists()
    (row,) = read(tmp_path / "run")["table"]
    assert row["difference"]["ci95"][1] < -0.3
