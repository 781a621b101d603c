"""Axis correlations on a model whose one biased head serves two of its three axes."""

import csv
import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.pipeline.conftest import TEMPLATES

import levelhead
from levelhead import cli, runs
from levelhead.errors import (
    ConfigError,
    PromptError,
    RunFolderError,
    ScoreTableError,
    SelectionError,
)
from levelhead.evaluation.axis import expected_difference
from levelhead.experiments.axes import axes
from levelhead.experiments.cross_axes import CrossPlan
from levelhead.metrics.attenuation import rank_correlation
from levelhead.metrics.bias import bias
from levelhead.scores import ScoreTable
from levelhead.testing import planted_model

pytestmark = pytest.mark.slow
"""Studies of finished runs: continuous integration runs them."""

GROUPS = {
    "gender": ("women", "men", "person"),
    "kin": ("woman", "man", "friend"),  # the planted head reads "woman" too
    "faith": ("Muslims", "Christians", "Hindu"),
}
HEAD = planted_model().head


@pytest.fixture(scope="module")
def three_axes(
    inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run scored on three axes; not to be written to."""
    folder = tmp_path_factory.mktemp("three")
    with (folder / "prompts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "axis", "subgroup", "template", "split"])
        for number, template in enumerate(TEMPLATES):
            for split in ("validation", "test"):
                text = template if split == "validation" else f"so {template}"
                for axis, groups in GROUPS.items():
                    for group in groups:
                        row = [text.format(group), axis, group, f"{split}{number}", split]
                        rows.writerow(row)
    wanted = options | {"prompts": str(folder / "prompts.csv"), "axis": tuple(GROUPS)}
    levelhead.score(str(inputs / "model"), out=folder / "run", **wanted)
    return folder / "run"


@pytest.fixture
def scored(three_axes: Path, tmp_path: Path) -> Path:
    """A copy of it, to be written to."""
    return Path(copytree(three_axes, tmp_path / "run"))


def by_pair(found: dict[str, Any]) -> dict[frozenset[str], dict[str, Any]]:
    return {frozenset((row["a"], row["b"])): row for row in found["correlations"]}


def altered(run: Path, target: Path, **options: Any) -> Path:
    """A copy of a run that claims to be made with other options."""
    copytree(run, target)
    held = json.loads((target / runs.CONFIG).read_text())
    runs.write_text(target / runs.CONFIG, json.dumps(held | options))
    return target


def test_every_pair_of_axes_is_correlated_and_kept(scored: Path) -> None:
    found = axes(scored)
    assert found["axes"] == list(GROUPS)
    assert found["runs"] == ["run"]
    assert set(by_pair(found)) == {
        frozenset(pair) for pair in (("gender", "kin"), ("gender", "faith"), ("kin", "faith"))
    }
    for row in found["correlations"]:
        low, high = row["spearman"]["ci95"]
        assert -1 <= low <= row["spearman"]["value"] <= high <= 1
        assert row["num_heads"] == 18
    details = json.loads((scored / runs.DETAILS).read_text())
    assert found["reliability"]["run"]["kin"] == details["axes"]["kin"]["reliability"]
    assert json.loads((scored / "axes.json").read_text()) == found
    assert found["cross"] is None


def test_pruning_across_axes_where_the_same_head_adds_bias(scored: Path) -> None:
    """gender and kin share the planted head; control: faith's set and random sets lack it."""
    plans: list[CrossPlan] = []
    found = axes(scored, cross=True, announce=plans.append)["cross"]
    rows = {(r["selected_for"], r["measured_on"]): r for r in found["rows"]}
    assert len(rows) == 9
    for selected in ("gender", "kin"):
        for measured in ("gender", "kin"):
            row = rows[selected, measured]
            assert row["expected_difference"]["ci95"][1] < -0.3, (selected, measured)
            assert row["base_bias"] > 0.3
            assert row["overlap"] == 1
    table = ScoreTable.read(scored / runs.SCORES)
    faith = levelhead.select(table, axis="faith", gamma=0.2, alpha=0.06).heads
    assert HEAD not in faith
    assert rows["faith", "gender"]["expected_difference"]["value"] > -0.1
    for row in found["random"]:
        assert row["num_heads"] == 1
        assert row["expected_difference"]["value"] > -0.1, row
    assert plans == [
        CrossPlan(
            axes=tuple(GROUPS),
            sets=6,
            sampled_tokens=3 * 36 * 4 * 6,
            read_tokens=plans[0].read_tokens,
        )
    ]
    assert plans[0].read_tokens > 6 * 3 * 36 * 6


def test_an_interrupted_cross_goes_on_and_a_finished_one_is_kept(
    scored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from levelhead.experiments import joint

    whole, calls = expected_difference, []

    def counted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(joint, "expected_difference", counted)
    with pytest.raises(KeyboardInterrupt):
        axes(scored, cross=True)
    first = axes(scored, cross=True)
    in_all = len(calls)
    again = axes(scored, cross=True)
    assert again == first
    assert len(calls) == in_all  # nothing is read twice
    assert axes(scored)["cross"] == first["cross"]  # kept without asking for it
    other = axes(scored, cross=True, gamma=0.0)
    assert other["cross"]["gamma"] == 0
    held = json.loads((scored / runs.DETAILS).read_text())
    held["of"]["fingerprint"] = "other scores"
    runs.write_text(scored / runs.DETAILS, json.dumps(held))
    assert axes(scored)["cross"] is None


def test_runs_side_by_side(scored: Path, tmp_path: Path) -> None:
    """A copy with shuffled heads differs where correlations are strong; its names are told."""
    other = altered(scored, tmp_path / "second", seed=1)
    table = ScoreTable.read(other / runs.SCORES)
    frame = table.frame
    rng = np.random.default_rng(0)
    mixed = [c for c in frame.columns if "kin" in str(c)]
    frame[mixed] = frame[mixed].to_numpy()[rng.permutation(len(frame))]
    runs.write_text(other / runs.SCORES, table.to_csv())
    found = axes(scored, other)
    assert found["runs"] == ["run", "second"]
    assert len(found["correlations"]) == 6
    for row in found["differences"]:
        assert row["runs"] == ["run", "second"]
        low, high = (row["corrected"] or row["spearman"])["ci95"]
        assert row["differ"] == (low > 0 or high < 0)
        if "kin" not in (row["a"], row["b"]):
            assert row["spearman"]["value"] == 0
            assert not row["differ"]
    same = {row["axis"]: row for row in found["same_model"]}
    assert same["gender"]["spearman"]["value"] == 1
    assert same["kin"]["spearman"]["value"] < 0.7
    assert same["gender"]["same_seed"] is False


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"prompts": "builtin"}, "prompts"),
        ({"toxicity_input": "full"}, "toxicity_input (continuation / full)"),
        ({"chat_template": True}, "chat_template"),
    ],
)
def test_runs_that_measure_other_things_are_refused(
    scored: Path, tmp_path: Path, changed: dict[str, Any], field: str
) -> None:
    other = altered(scored, tmp_path / "other", **changed)
    with pytest.raises(ConfigError) as refused:
        axes(scored, other)
    assert field in str(refused.value)
    assert "run and other do not measure the same" in str(refused.value)
    names = ("prompts", "toxicity_input", "chat_template", "toxicity ", "subgroups")
    assert sum(f"{name}" in str(refused.value) for name in names) == 1


@pytest.mark.parametrize("field", ["toxicity", "subgroups of kin"])
def test_other_scorers_and_subgroups_are_refused(scored: Path, tmp_path: Path, field: str) -> None:
    other = altered(scored, tmp_path / "other")
    details = json.loads((other / runs.DETAILS).read_text())
    if field == "toxicity":
        details["scorer"] = "another:1"
    else:
        details["axes"]["kin"]["subgroups"] = ["woman", "man", "aunt"]
    runs.write_text(other / runs.DETAILS, json.dumps(details))
    with pytest.raises(ConfigError) as refused:
        axes(scored, other)
    assert field in str(refused.value)


def test_other_models_and_options_that_matter_little_are_told(scored: Path, tmp_path: Path) -> None:
    other = altered(scored, tmp_path / "other", new_tokens=7)
    details = json.loads((other / runs.DETAILS).read_text())
    details["of"]["model"] = details["model"] = "another model"
    runs.write_text(other / runs.DETAILS, json.dumps(details))
    found = axes(scored, other)
    assert found["same_model"] == []
    assert found["models"]["other"] == "another model"
    assert any("new_tokens: 6, 7" in note for note in found["notes"])


def test_what_cannot_be_correlated(scored: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run given"):
        axes()
    with pytest.raises(ConfigError, match="scores of one axis"):
        axes(finished)
    with pytest.raises(ConfigError, match="named twice"):
        axes(scored, scored)
    with pytest.raises(RunFolderError, match="neither a run folder nor a score table"):
        axes(tmp_path)
    with pytest.raises(SelectionError, match="lower one of them"):
        axes(scored, cross=True, gamma=0.9, alpha=0.5)
    table = tmp_path / "table.csv"
    table.write_text("layer,head,ppl_without\n0,0,1\n")
    with pytest.raises(ScoreTableError, match="no bias_without_AXIS"):
        axes(table)
    table.write_text((scored / runs.SCORES).read_text())
    with pytest.raises(RunFolderError, match="needs a run folder"):
        axes(table, cross=True)


def test_a_table_is_not_corrected_and_nothing_is_written(scored: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    table = folder / "table.csv"
    table.write_text((scored / runs.SCORES).read_text())
    found = axes(table)
    assert [row["corrected"] for row in found["correlations"]] == [None] * 3
    assert any("not known" in note for note in found["notes"])
    assert list(folder.iterdir()) == [table]
    plain = {pair: row["spearman"] for pair, row in by_pair(axes(scored)).items()}
    assert {pair: row["spearman"] for pair, row in by_pair(found).items()} == plain


def test_the_seeds_of_a_by_seed_table_give_the_reliability(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 144)
    table = tmp_path / "seeds.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            [
                "axis",
                "seed",
                "layer",
                "head",
                "bias_without",
                "mean_toxicity_without",
                "ppl_without",
            ]
        )
        for number, axis in enumerate(("a", "b")):
            for seed in range(3):
                for i, value in enumerate(truth[:, number] + rng.normal(size=144)):
                    if (axis, i) != ("b", 143):  # a head that one axis lacks
                        rows.writerow([axis, seed, i // 12, i % 12, -value, rng.random(), 20])
    row = axes(table)["correlations"][0]
    assert row["num_heads"] == 143
    low, high = row["corrected"]["ci95"]
    assert low < 0.79 < high
    assert row["spearman"]["value"] < 0.7 < row["corrected"]["raw"]  # control: plain is too small


def test_the_command_prints_tables_or_json(scored: Path) -> None:
    ran = CliRunner().invoke(cli.cli, ["axes", str(scored), "--cross"])
    assert ran.exit_code == 0, ran.output
    for said in ("gender", "faith", "corrected", "random set", "plan (gender, kin, faith)"):
        assert said in ran.output
    ran = CliRunner().invoke(cli.cli, ["axes", str(scored), "--json"])
    assert json.loads(ran.stdout) == json.loads((scored / "axes.json").read_text())
    ran = CliRunner().invoke(cli.cli, ["axes", str(scored), "--gamma", "0.5"])
    assert ran.exit_code == 2
    assert "--cross" in ran.output


@pytest.mark.slow
def test_the_built_in_axes_age_and_ability(
    inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    """Two HolisticBias axes that the paper does not have go the same way as the others."""
    wanted = options | {
        "prompts": "builtin",
        "axis": ("age", "ability", "religion"),
        "samples": 1,
        "max_samples": 1,
        "max_prompts": 40,
    }
    levelhead.score(str(inputs / "model"), out=tmp_path / "run", **wanted)
    found = axes(tmp_path / "run", cross=True, alpha=0.12)
    assert len(found["correlations"]) == 3
    assert len(found["cross"]["rows"]) == 9
    details = json.loads((tmp_path / "run" / runs.DETAILS).read_text())
    assert len(details["axes"]["religion"]["subgroups"]) > 2


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.lists(st.floats(0, 1), max_size=30))
def test_an_axis_of_one_bucket_has_bias_0_whatever_a_model_writes(
    toxicity: list[float], more: list[float]
) -> None:
    """So it is refused; texts outside the bucket only add the distance from them (published)."""
    values = np.array(toxicity)
    with pytest.raises(PromptError, match="0 whatever the model does"):
        bias(values, np.zeros(len(values), dtype=int), 1)
    both = np.array([*toxicity, *more])
    left = abs(both.mean() - values.mean())  # T_S of all texts against T_s of the only bucket
    if not more:
        assert left == 0
    assert left <= len(more) / len(both) + 1e-12


def test_religion_in_one_bucket_correlates_with_nothing_and_by_descriptor_it_does() -> None:
    """Heads that act on every axis alike: one measure sees it, the other cannot."""
    rng = np.random.default_rng(2)
    heads, groups, per_group = 144, 5, 200
    strength = rng.normal(size=heads)  # how much each head raises toxicity after some groups
    effect = np.array([0.1, -0.1, 0.05, 0.0, -0.05])
    subgroup = np.repeat(np.arange(groups), per_group)

    def without_heads() -> np.ndarray:
        """Toxicity [heads, texts] of one axis when each head is gone."""
        gap = (1 - 0.3 * strength[:, None]) * effect[subgroup]
        noise = 0.1 * rng.normal(size=(heads, len(subgroup)))
        out: np.ndarray = np.clip(0.4 + gap + noise, 0, 1)
        return out

    gender = -np.array([bias(row, subgroup, groups) for row in without_heads()])
    religion = without_heads()
    by_descriptor = -np.array([bias(row, subgroup, groups) for row in religion])
    # The published form: most texts in the one bucket, the phrases of no bucket in the mean only.
    bucket = np.arange(len(subgroup)) % 5 > 0
    one_bucket = -np.abs(religion.mean(axis=1) - religion[:, bucket].mean(axis=1))
    found, wrong = rank_correlation(gender, by_descriptor), rank_correlation(gender, one_bucket)
    assert found is not None
    assert wrong is not None
    assert found.interval.low > 0.7
    assert wrong.interval.low < 0 < wrong.interval.high
    assert np.abs(one_bucket).max() < 0.03 < np.abs(by_descriptor).min()
