"""`levelhead diagnose`: the verdicts, the JSON, the exit codes, and the published tables."""

import json
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from by_seed_tables import by_seed_table, write
from click.testing import CliRunner

from levelhead import cli, diagnose
from levelhead.diagnosis.by_seed import read_by_seed
from levelhead.errors import SelectionError

TABLES = Path(__file__).parents[3] / "shared" / "data" / "published_head_scores"


def llama_2_like(rng: np.random.Generator) -> pd.DataFrame:
    """1024 heads; two seeds agree by a Spearman correlation of about 0."""
    return by_seed_table(rng, heads=1024, correlation=0.0)


def bimodal(rng: np.random.Generator) -> pd.DataFrame:
    """Seeds that AGREE, since all of them are broken in the same way."""
    frame = by_seed_table(rng, heads=384, correlation=0.9)
    broken = (frame["layer"] // 4) % 2 == 1
    frame.loc[broken, "mean_toxicity_without"] += 0.39
    return frame


def clean(rng: np.random.Generator) -> pd.DataFrame:
    return by_seed_table(rng)


def shuffled(rng: np.random.Generator) -> pd.DataFrame:
    """The clean table with each seed's biases dealt out to heads at random."""
    frame = clean(rng)
    frame["bias_without"] = frame.groupby("seed")["bias_without"].transform(
        lambda values: rng.permutation(values.to_numpy())
    )
    return frame


VERDICTS = {llama_2_like: "noise", bimodal: "cannot tell", shuffled: "noise"}


def command(path: Path, *flags: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `levelhead diagnose`."""
    with CliRunner().isolation() as streams:
        sys.argv = ["levelhead", "diagnose", str(path), *flags]
        with pytest.raises(SystemExit) as stop:
            cli.main()
        code: Any = stop.value.code
        return code, streams[0].getvalue().decode(), streams[1].getvalue().decode()


@pytest.mark.parametrize(
    ("make", "reliable", "two_modes", "code"),
    [
        (clean, True, False, 0),
        (llama_2_like, False, False, 3),
        (bimodal, False, True, 3),
        (shuffled, False, False, 3),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_verdicts_and_exit_codes(
    make: Callable[[np.random.Generator], pd.DataFrame],
    reliable: bool,
    two_modes: bool,
    code: int,
    seed: int,
    tmp_path: Path,
) -> None:
    path = write(make(np.random.default_rng(seed)), tmp_path)
    exit_code, out, err = command(path, "--json")
    found = json.loads(out)
    assert set(found) == {"axes", "bimodal", "warnings"}
    assert found["bimodal"] is two_modes
    axis = found["axes"]["gender"]
    assert axis["reliable"] is reliable is (axis["verdict"] == "more than noise")
    assert axis["verdict"] == ("more than noise" if reliable else VERDICTS[make])
    assert {type(axis[k]) for k in ("seed_spearman", "reliability", "overlap")} == {float}
    assert exit_code == code
    assert bool(found["warnings"]) is (code == 3)
    assert ("not reliable: 'gender'" in err) is (code == 3)
    assert found == diagnose(path)
    if make is bimodal:
        assert axis["reliability"] > 0.9, "agreement alone would have passed it"
        assert "switches" in found["warnings"][0]
    if make is clean:
        assert axis["overlap"] > 2 * axis["overlap_chance"]
        assert axis["modes"] == axis["drift"] == {}


def test_text_says_all_of_it_also_where_it_fails(tmp_path: Path) -> None:
    code, out, err = command(write(llama_2_like(np.random.default_rng(1)), tmp_path))
    assert code == 3
    for words in ("gender", "noise", "Spearman", "reliability", "overlap", "mostly noise"):
        assert words in out
    assert "not reliable" in err
    code, out, _ = command(write(clean(np.random.default_rng(1)), tmp_path))
    assert code == 0
    assert "more than" in out
    assert "- " not in out.splitlines()[-1][:2], "nothing to warn of"


def test_one_bad_axis_of_two(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    noise = by_seed_table(rng, correlation=0.0, axis="religion")
    found = diagnose(write(pd.concat([clean(rng), noise]), tmp_path))
    verdicts = {axis: data["reliable"] for axis, data in found["axes"].items()}
    assert verdicts == {"gender": True, "religion": False}
    assert all(line.startswith("religion: ") for line in found["warnings"])


def test_one_seed_is_not_known(tmp_path: Path) -> None:
    frame = clean(np.random.default_rng(3))
    path = write(frame[frame["seed"] == 2], tmp_path)
    code, out, _ = command(path, "--json")
    axis = json.loads(out)["axes"]["gender"]
    assert code == 3
    assert axis["reliability"] is axis["seed_spearman"] is axis["overlap"] is None
    assert axis["reliable"] is False
    assert "cannot be known" in json.loads(out)["warnings"][0]
    assert "unknown" in command(path)[1]


def test_a_copied_seed_is_no_replicate(tmp_path: Path) -> None:
    frame = by_seed_table(np.random.default_rng(4), correlation=0.0)
    first = frame[frame["seed"] == 1]
    found = diagnose(write(pd.concat([first, first.assign(seed=9)]), tmp_path))
    assert found["axes"]["gender"]["reliability"] is None
    assert any("seed 9 has the very numbers of seed 1" in line for line in found["warnings"])


def test_a_constant_seed_ranks_nothing(tmp_path: Path) -> None:
    frame = clean(np.random.default_rng(5))
    frame.loc[frame["seed"] == 3, "bias_without"] = 0.4
    found = diagnose(write(frame, tmp_path))
    two = diagnose(write(frame[frame["seed"] != 3], tmp_path))
    assert found["axes"]["gender"]["reliability"] == two["axes"]["gender"]["reliability"]
    assert any("seed 3 has the same bias for every head" in line for line in found["warnings"])
    frame["bias_without"] = 0.4
    found = diagnose(write(frame, tmp_path))
    assert found["axes"]["gender"]["reliable"] is False
    assert found["axes"]["gender"]["reliability"] is None


def test_missing_heads_are_told_and_change_little(tmp_path: Path) -> None:
    frame = clean(np.random.default_rng(6))
    whole = diagnose(write(frame, tmp_path))["axes"]["gender"]
    found = diagnose(write(frame.drop(index=[4, 200, 201]), tmp_path))
    assert [line for line in found["warnings"] if "seed 2 lacks 2 of 144 heads" in line]
    assert found["axes"]["gender"]["seed_spearman"] == pytest.approx(
        whole["seed_spearman"], abs=0.02
    )


def test_noise_with_few_heads_hardly_ever_passes(tmp_path: Path) -> None:
    """With 18 heads and 2 seeds noise exceeds a reliability of 0.5 in one table of twelve."""
    rng = np.random.default_rng(7)
    verdicts, above = 0, 0
    for _ in range(150):
        frame = by_seed_table(rng, heads=18, seeds=2, correlation=0.0)
        axis = diagnose(write(frame, tmp_path))["axes"]["gender"]
        verdicts += axis["reliable"]
        above += axis["reliability"] >= 0.5
    assert verdicts <= 5
    assert above >= 6, "the control: the threshold alone would let noise pass"


def test_a_ranking_that_only_echoes_mean_toxicity_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    frame = by_seed_table(rng)
    true = np.tile(0.01 * rng.normal(size=144), 3)
    frame["mean_toxicity_without"] = 0.14 + true + 0.004 * rng.normal(size=3 * 144)
    frame["bias_without"] = 0.3 + frame["mean_toxicity_without"] + 0.004 * rng.normal(size=3 * 144)
    path = write(frame, tmp_path)
    found = diagnose(path)
    axis = found["axes"]["gender"]
    assert axis["verdict_with_toxicity"] == "more than noise"
    assert axis["verdict"] == "noise"
    assert axis["reliable"] is False
    (line,) = found["warnings"]
    assert line.startswith("gender: the ranking is more than noise only because of mean toxicity")
    code, out, _ = command(path)
    assert code == 3
    assert "only because of mean toxicity" in " ".join(out.split())
    # The control: the same bias beside a mean toxicity that has nothing to do with it.
    frame["mean_toxicity_without"] = rng.permutation(frame["mean_toxicity_without"])
    assert diagnose(write(frame, tmp_path))["axes"]["gender"]["verdict"] == "more than noise"


def test_a_ranking_that_is_hidden_by_two_modes_is_found_within_one(tmp_path: Path) -> None:
    """A ranking among the heads of the low mode, none in the high one."""
    rng = np.random.default_rng(12)
    frame = by_seed_table(rng, heads=384, correlation=0.9)
    noise = by_seed_table(rng, heads=384, correlation=0.0)
    high = np.tile(np.arange(384) % 2 == 1, 3)
    frame.loc[high, "mean_toxicity_without"] += 0.39
    frame.loc[high, "bias_without"] = noise.loc[high, "bias_without"] - 0.2
    found = diagnose(write(frame, tmp_path))
    axis = found["axes"]["gender"]
    assert axis["verdict"] == "cannot tell"
    within = axis["within_modes"]
    assert within["low"]["verdict"] == "more than noise"
    assert within["high"]["verdict"] == "noise"
    assert within["low"]["heads"] == within["high"]["heads"] == 192
    assert "low mode" in command(write(frame, tmp_path))[1]


def test_a_seed_with_one_mode_has_its_heads_in_it(tmp_path: Path) -> None:
    """Two seeds mix, the third has all heads low: no pair with it has heads in the high mode."""
    frame = by_seed_table(np.random.default_rng(13), heads=144, correlation=0.9)
    mixed = ((frame["layer"] % 2 == 1) & (frame["seed"] != 3)).to_numpy()
    frame.loc[mixed, "mean_toxicity_without"] += 0.39
    found = diagnose(write(frame, tmp_path))
    axis = found["axes"]["gender"]
    assert set(axis["modes"]) == {"1", "2"}
    assert axis["within_modes"]["high"]["heads"] == 72
    assert axis["within_modes"]["low"]["heads"] == 72
    only_one = frame[frame["seed"] != 2]
    axis = diagnose(write(only_one, tmp_path))["axes"]["gender"]
    assert axis["within_modes"]["high"]["reliability"] is None
    assert axis["within_modes"]["high"]["verdict"] == "cannot tell"
    assert "unknown" in command(write(only_one, tmp_path))[1]


def test_shares(tmp_path: Path) -> None:
    path = write(clean(np.random.default_rng(8)), tmp_path)
    assert diagnose(path, alpha=0.2)["axes"]["gender"]["overlap_chance"] == pytest.approx(28 / 101)
    found = diagnose(path, alpha=0.001)
    assert found["axes"]["gender"]["overlap"] is None
    assert found["axes"]["gender"]["reliable"] is True
    assert "prunes none" in found["warnings"][0]
    for gamma, alpha in [(2.0, 0.1), (0.3, float("nan")), (0.9, 0.9)]:
        with pytest.raises(SelectionError):
            diagnose(path, gamma=gamma, alpha=alpha)


def test_bad_tables_exit_2_without_traceback(tmp_path: Path) -> None:
    frame = clean(np.random.default_rng(9))
    for bad in (frame.drop(columns="seed"), frame.assign(ppl_without=np.nan), frame[:0]):
        code, out, err = command(write(bad, tmp_path), "--json")
        assert code == 2
        assert out == ""
        assert "Traceback" not in err


def test_select_says_what_it_cannot_know(tmp_path: Path) -> None:
    frame = clean(np.random.default_rng(10))
    path = write(frame[frame["seed"] == 1].drop(columns=["axis", "seed"]), tmp_path)
    path.write_text(path.read_text().replace("bias_without", "bias_without_gender", 1))
    result = CliRunner().invoke(cli.cli, ["select", str(path), "--json"])
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["heads"]) == 14
    assert "no replicates" in result.stderr
    assert "levelhead diagnose" in result.stderr
    refused = CliRunner().invoke(cli.cli, ["select", str(write(frame, tmp_path))])
    assert "levelhead diagnose" in str(refused.exception)


# What method.md says of the published tables: Spearman of gender between two seeds, lowest and
# highest, and how many heads the pruned sets have in common.
published = pytest.mark.skipif(
    not TABLES.is_dir(), reason="the published score tables are not beside the project"
)
KNOWN = {
    "distilgpt2": (0.11, 0.23, 1, 2, 7),
    "gpt2": (0.20, 0.27, 0, 3, 14),
    "EleutherAI_gpt-neo-1.3B": (-0.08, 0.10, 4, 7, 38),
}


@published
@pytest.mark.parametrize("model", KNOWN)
def test_published_tables(model: str) -> None:
    low, high, fewest, most, count = KNOWN[model]
    found = diagnose(TABLES / f"{model}_by_seed.csv")
    gender = found["axes"]["gender_and_sex"]
    assert [round(r, 2) for r in gender["seed_spearman_range"]] == [low, high]
    assert [round(s * count, 9) for s in gender["overlap_range"]] == [fewest, most]
    assert gender["reliable"] is False
    assert found["bimodal"] is (model == "EleutherAI_gpt-neo-1.3B")
    assert gender["drift"] == {}
    if found["bimodal"]:
        for seed in gender["modes"].values():
            assert seed["low"] == pytest.approx(0.14, abs=0.005)
            assert seed["high"] == pytest.approx(0.53, abs=0.005)
            assert seed["switches"] < seed["switches_by_chance"] / 2
    else:
        assert not any(axis["modes"] for axis in found["axes"].values())


# What validity.md says: reliability as it is, and with the ranks of mean toxicity taken out.
WITHOUT_TOXICITY = {
    "distilgpt2": {
        "gender_and_sex": (0.37, 0.03),
        "nationality": (0.66, 0.32),
        "race_ethnicity": (0.57, 0.23),
        "sexual_orientation": (0.73, 0.49),
    },
    "gpt2": {
        "gender_and_sex": (0.46, 0.38),
        "nationality": (0.39, 0.20),
        "race_ethnicity": (0.45, 0.24),
        "sexual_orientation": (0.24, 0.11),
    },
}


@published
@pytest.mark.parametrize("model", WITHOUT_TOXICITY)
def test_published_rankings_largely_repeat_mean_toxicity(model: str) -> None:
    found = diagnose(TABLES / f"{model}_by_seed.csv")
    for axis, (plain, left) in WITHOUT_TOXICITY[model].items():
        data = found["axes"][axis]
        assert data["reliability"] == pytest.approx(plain, abs=0.02)
        assert data["reliability_without_toxicity"] == pytest.approx(left, abs=0.02)
        # Two ways of taking it out, with different assumptions, agree.
        assert data["reliability_without_toxicity_corrected"] == pytest.approx(left, abs=0.06)
        assert data["toxicity_reliability_ci95"][0] > 0.75, "mean toxicity itself repeats"
    for data in found["axes"].values():
        assert data["reliability_without_toxicity"] < 0.5
        assert data["verdict"] != "more than noise"
        low, high = data["reliability_ci95"]
        assert low < data["reliability"] < high
    told = [line for line in found["warnings"] if "mean toxicity (its own reliability" in line]
    assert len(told) >= 2


@published
def test_published_verdicts_without_an_error_bar_said_too_much() -> None:
    """Three axes of DistilGPT-2 have a reliability above 0.5; one of them is told from 0.5."""
    found = diagnose(TABLES / "distilgpt2_by_seed.csv")
    axes = found["axes"]
    above = {axis for axis, data in axes.items() if data["reliability"] > 0.5}
    assert above == {"nationality", "race_ethnicity", "sexual_orientation"}
    assert axes["race_ethnicity"]["reliability_ci95"] == pytest.approx([0.27, 0.72], abs=0.07)
    plain = {axis for axis in above if axes[axis]["verdict_with_toxicity"] == "more than noise"}
    assert plain == {"sexual_orientation"}
    assert [
        line
        for line in found["warnings"]
        if line.startswith("sexual_orientation: the ranking may be more than noise only because")
    ]
    gender = diagnose(TABLES / "gpt2_by_seed.csv")["axes"]["gender_and_sex"]
    assert gender["reliability_ci95"] == pytest.approx([0.25, 0.61], abs=0.05)
    assert gender["verdict_with_toxicity"] == gender["verdict"] == "cannot tell"


@published
def test_published_sets_that_overlap_at_chance() -> None:
    found = diagnose(TABLES / "distilgpt2_by_seed.csv")
    nationality = found["axes"]["nationality"]
    assert nationality["overlap"] == pytest.approx(0.143, abs=0.001)
    assert nationality["overlap_chance"] == pytest.approx(0.137, abs=0.001)
    assert nationality["overlap_p"] > 0.3
    assert any(
        line.startswith("nationality: two seeds choose the same") for line in found["warnings"]
    )


@published
def test_published_rankings_within_each_mode() -> None:
    found = diagnose(TABLES / "EleutherAI_gpt-neo-1.3B_by_seed.csv")
    gender = found["axes"]["gender_and_sex"]
    assert gender["verdict"] == "cannot tell"
    low, high = gender["within_modes"]["low"], gender["within_modes"]["high"]
    assert low["seed_spearman_range"] == pytest.approx([0.25, 0.36], abs=0.01)
    assert high["seed_spearman_range"] == pytest.approx([-0.17, 0.15], abs=0.01)
    assert low["seed_spearman_ci95"][0] > 0, "there may be a ranking within the low mode"
    assert low["verdict"] == "cannot tell"
    assert high["seed_spearman_ci95"][0] < 0 < high["seed_spearman_ci95"][1]
    assert high["verdict"] == "noise"
    assert low["heads"] < high["heads"] < 384
    assert any("within the low mode" in line for line in found["warnings"])


@published
def test_published_spearman_written_apart() -> None:
    frame = pd.read_csv(TABLES / "gpt2_by_seed.csv")
    axes = diagnose(TABLES / "gpt2_by_seed.csv")["axes"]
    for scores in read_by_seed(TABLES / "gpt2_by_seed.csv"):
        rows = frame[frame["axis"] == scores.axis].set_index(["layer", "head"])
        pairs = []
        for a, b in combinations(scores.seeds, 2):
            both = pd.concat(
                [rows.loc[rows["seed"] == s, "bias_without"].rename(s) for s in (a, b)],
                axis=1,
                join="inner",
            )
            pairs.append(both.rank().corr().iloc[0, 1])
        assert axes[scores.axis]["seed_spearman"] == pytest.approx(np.mean(pairs), abs=1e-12)
