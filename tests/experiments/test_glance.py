"""Heads at a glance: numbers of tables made by hand, a finished run, and the command."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from levelhead import cli, runs
from levelhead.errors import ConfigError, RunFolderError, ScoreTableError, SelectionError
from levelhead.experiments.glance import glance
from levelhead.scores import ScoreTable
from levelhead.selection import select_heads

LAYERS, HEADS = 6, 12


def table_file(path: Path, z_ppl: np.ndarray, z_bias: np.ndarray, **columns: Any) -> Path:
    """A table with known bases (perplexity 20, bias 0.4) and standard errors."""
    shape = (LAYERS, HEADS)
    error = columns.pop("error", 0.01)
    built = ScoreTable.build(
        {
            "ppl_without": (20 - z_ppl).reshape(shape),
            "bias_without_a": (0.4 - z_bias).reshape(shape),
            "ppl_low": (z_ppl - 1.96 * error).reshape(shape),
            "ppl_high": (z_ppl + 1.96 * error).reshape(shape),
            **columns,
        },
        *shape,
    )
    path.write_text(built.to_csv())
    return path


def effects(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z_ppl = -np.exp(rng.normal(-2, 1.5, LAYERS * HEADS))
    return z_ppl, 0.01 * rng.normal(size=LAYERS * HEADS)


def rows_of(found: dict[str, Any], axis: str) -> dict[float, dict[str, Any]]:
    return {row["gamma"]: row for row in found["gamma"] if row["axis"] == axis}


def test_the_share_of_critical_heads_and_its_interval(tmp_path: Path) -> None:
    z_ppl = np.full(72, -0.01)
    z_ppl[:18] = -0.5  # 2.5% of 20
    z_ppl[18:24] = -0.21  # 1.05%: their errors reach the threshold
    z_ppl[24:27] = -0.19  # 0.95%: so do theirs
    path = table_file(tmp_path / "t.csv", z_ppl, effects()[1], ppl_base=20.0)
    found = glance(path)["critical"]
    assert found["threshold"] == 0.01
    assert found["num_heads"] == 24
    assert found["share"] == {"value": 24 / 72, "ci95": [18 / 72, 27 / 72]}
    assert found["below_zero"] == pytest.approx(27 / 72)
    assert found["paper"] == 0.3
    assert found["halves"] is None
    shares = {row["threshold"]: row["share"]["value"] for row in found["thresholds"]}
    assert shares[0.01] == 24 / 72
    assert shares[0.1] == 0
    stricter = glance(path, critical=0.02)["critical"]
    assert stricter["num_heads"] == 18
    assert 0.02 in {row["threshold"] for row in stricter["thresholds"]}


@pytest.mark.parametrize("common", [0.0, 0.7])
def test_the_interval_of_the_share_covers(tmp_path: Path, common: float) -> None:
    """Also where part of the error is common to all heads; control: the count alone is off."""
    rng, covered, exact, times = np.random.default_rng(1), 0, 0, 60
    for _ in range(times):
        z_ppl, z_bias = effects(int(rng.integers(1 << 31)))
        truth = float((z_ppl < -0.2).mean())
        error = 0.02 + 0.1 * np.abs(z_ppl)
        noise = np.sqrt(common) * rng.normal() + np.sqrt(1 - common) * rng.normal(size=72)
        path = table_file(
            tmp_path / "t.csv", z_ppl + error * noise, z_bias, ppl_base=20.0, error=error
        )
        share = glance(path)["critical"]["share"]
        covered += share["ci95"][0] <= truth <= share["ci95"][1]
        exact += share["value"] == truth
    assert covered >= 0.95 * times
    assert exact < 0.8 * times


def test_distributions_count_every_head(tmp_path: Path) -> None:
    z_ppl, z_bias = effects()
    z_ppl[5] = -300  # one head that would make one bar of all others
    columns = {"ppl_base": 20.0, "bias_base_a": 0.4}
    found = glance(table_file(tmp_path / "t.csv", z_ppl, z_bias, **columns))["distributions"]
    for shown, z in ((found["ppl"], z_ppl), (found["bias"]["a"], z_bias)):
        histogram = shown["histogram"]
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1
        assert sum(histogram["counts"]) + histogram["below"] + histogram["above"] == 72
        assert shown["quantiles"]["0.5"] == pytest.approx(np.median(z))
        assert shown["quantiles"]["0"] == pytest.approx(z.min())
        assert shown["positive"] == pytest.approx((z > 0).mean())
        assert shown["base_known"]
    assert max(found["ppl"]["histogram"]["counts"]) < 36


def test_a_table_without_bases_says_so(tmp_path: Path) -> None:
    z_ppl, z_bias = effects()
    found = glance(table_file(tmp_path / "t.csv", z_ppl, z_bias))
    assert not found["distributions"]["ppl"]["base_known"]
    assert found["distributions"]["ppl"]["quantiles"]["0.5"] == pytest.approx(0)
    assert any("median" in note for note in found["notes"])
    assert found["selection"] == {"gamma": 0.3, "alpha": 0.1}
    assert found["correlation"]["a"]["corrected"] is None
    assert {row["bias_change"] for row in found["gamma"]} == {None}


def test_constant_effects_have_a_histogram_and_no_correlation(tmp_path: Path) -> None:
    found = glance(table_file(tmp_path / "t.csv", np.zeros(72), effects()[1], ppl_base=20.0))
    assert sum(found["distributions"]["ppl"]["histogram"]["counts"]) == 72
    assert found["correlation"]["a"]["spearman"] is None
    assert found["critical"]["share"]["value"] == 0


def test_other_gammas_choose_what_selection_chooses(tmp_path: Path) -> None:
    z_ppl, z_bias = effects()
    columns = {"ppl_base": 20.0, "bias_base_a": 0.4}
    path = table_file(tmp_path / "t.csv", z_ppl, z_bias, **columns)
    table, found = ScoreTable.read(path), glance(path, gamma=0.25)
    rows = rows_of(found, "a")
    assert sorted(rows) == [0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    usual = set(select_heads(table, axis="a", gamma=0.25).heads)
    for gamma, row in rows.items():
        heads = select_heads(table, axis="a", gamma=gamma).heads
        chosen = [layer * HEADS + head for layer, head in heads]
        assert row["heads"] == [list(head) for head in heads]
        assert row["num_heads"] == len(heads) == 7
        assert row["num_protected"] == int(gamma * 72)
        assert row["bias_change_sum"] == pytest.approx(-z_bias[chosen].sum())
        assert row["ppl_change"] == pytest.approx(-z_ppl[chosen].sum())
        assert row["ppl_increase"] == pytest.approx(row["ppl_change"] / 20)
        assert row["overlap"] == len(usual & set(heads)) / 7
    assert rows[0.25]["overlap"] == 1 > rows[0.9]["overlap"]
    few = rows_of(glance(path, gamma=0.25, alpha=0.5), "a")
    assert max(few) == 0.5  # beyond it, too few heads are left


def test_gaps_that_a_set_overshoots_are_not_promised(finished: Path, tmp_path: Path) -> None:
    """Effects on signed gaps: what closes a gap twice over opens it again."""
    run = Path(copytree(finished, tmp_path / "run"))
    table = ScoreTable.read(run / runs.SCORES)
    details = json.loads((run / runs.DETAILS).read_text())
    known = details["axes"]["gender"]
    rows = rows_of(glance(run, alpha=0.12), "gender")
    for row in rows.values():
        layers, heads = np.array(row["heads"]).T
        change = 0.0
        for name in known["used"]:
            effect = table.grid(f"gap_effect_gender_{name}")[layers, heads].sum()
            change += abs(known["gap"][name] - effect) - abs(known["gap"][name])
        assert row["bias_change"] == pytest.approx(change)
    name = known["used"][0]
    known["used"] = [name]
    held = table.frame
    held[f"gap_effect_gender_{name}"] = known["gap"][name]  # every head is the whole gap
    runs.write_text(run / runs.SCORES, table.to_csv())
    runs.write_text(run / runs.DETAILS, json.dumps(details))
    twice = rows_of(glance(run, alpha=0.12), "gender")[0.2]
    assert twice["num_heads"] == 2
    assert twice["bias_change"] == pytest.approx(0, abs=1e-9)
    once = rows_of(glance(run, alpha=0.06), "gender")[0.2]
    assert once["bias_change"] == pytest.approx(-abs(known["gap"][name]))


def test_held_out_predictions_are_free_of_the_winners_curse(finished: Path, tmp_path: Path) -> None:
    """Pure noise: the sum promises a fall, the other half does not."""
    run = Path(copytree(finished, tmp_path / "run"))
    rng = np.random.default_rng(3)
    halves = {m: rng.normal(size=(20, 2, 3, 6)) for m in ("ppl", "bias:gender")}
    runs.write_arrays(run / runs.HALVES, halves)
    table = ScoreTable.read(run / runs.SCORES)
    whole = halves["bias:gender"][0].mean(axis=0)
    table.frame["bias_without_gender"] = table.frame["bias_base_gender"] - whole.reshape(-1)
    runs.write_text(run / runs.SCORES, table.to_csv())
    rows = rows_of(glance(run, alpha=0.2), "gender")
    for gamma in (0.0, 0.2, 0.4):
        assert rows[gamma]["bias_change_sum"] < -0.8
        assert abs(rows[gamma]["bias_change_held_out"]) < 0.6


def test_a_finished_run_at_a_glance(finished: Path) -> None:
    found = glance(finished)
    details = json.loads((finished / runs.DETAILS).read_text())
    assert found["axes"] == ["gender"]
    assert found["selection"] == {"gamma": 0.2, "alpha": 0.06}
    assert found["model"] == details["model"]
    assert found["num_layers"] * found["num_heads"] == 18
    reliability = found["correlation"]["gender"]["reliability"]
    assert reliability["bias"] == details["axes"]["gender"]["reliability"]
    assert 0 <= found["critical"]["halves"]["share"] <= 1
    row = rows_of(found, "gender")[0.2]
    assert row["heads"] == json.loads((finished / runs.SELECTION).read_text())["heads"]
    assert row["bias_change"] < -0.1  # the planted head
    assert row["bias_change_held_out"] < -0.3
    json.dumps(found, allow_nan=False)


def test_the_gamma_of_the_selection_counts(finished: Path, tmp_path: Path) -> None:
    run = Path(copytree(finished, tmp_path / "run"))
    chosen = json.loads((run / runs.SELECTION).read_text()) | {"gamma": 0.5}
    runs.write_text(run / runs.SELECTION, json.dumps(chosen))
    assert glance(run)["selection"]["gamma"] == 0.5
    (run / runs.SELECTION).unlink()
    assert glance(run)["selection"]["gamma"] == 0.2


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    z_ppl, z_bias = effects()
    path = table_file(tmp_path / "t.csv", z_ppl, z_bias)
    with pytest.raises(ConfigError, match="critical=0 is not a share above 0"):
        glance(path, critical=0)
    with pytest.raises(SelectionError, match="lower one of them"):
        glance(path, gamma=0.9, alpha=0.5)
    with pytest.raises(RunFolderError, match="neither a run folder nor a score table"):
        glance(tmp_path)
    path.write_text("layer,head,bias_without_a\n0,0,1\n")
    with pytest.raises(ScoreTableError, match="no column ppl_without"):
        glance(path)
    path.write_text("axis,seed,layer,head,bias_without,mean_toxicity_without,ppl_without\n")
    with pytest.raises(ScoreTableError, match="by-seed table"):
        glance(path)


def test_the_command_prints_tables_or_json(finished: Path) -> None:
    ran = CliRunner().invoke(cli.cli, ["heads", str(finished)])
    assert ran.exit_code == 0, ran.output
    for said in (
        "18 heads",
        "z_bias gender",
        "Critical heads",
        "the paper says about 30%",
        "0.2 *",
    ):
        assert said in ran.output
    ran = CliRunner().invoke(cli.cli, ["heads", str(finished), "--json", "--critical", "0.05"])
    assert json.loads(ran.output) == glance(finished, critical=0.05)
