"""Whether measures agree on heads: planted words, masks, kept measures, and what is refused."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.rounding import SAME

from levelhead import runs
from levelhead.cli import cli
from levelhead.errors import (
    ConfigError,
    RunFolderError,
    ScorerError,
    SelectionError,
)
from levelhead.experiments import measures as measures_module
from levelhead.experiments.agree import AgreePlan, agree
from levelhead.experiments.measure_pairs import compare_measures
from levelhead.experiments.measures import load_measures
from levelhead.experiments.packed import packed, unpacked
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable, bias_metric
from levelhead.session import Session
from levelhead.toxicity import Masked, registry

pytestmark = pytest.mark.slow
"""Studies of finished runs: continuous integration runs them."""


class WordScorer:
    """0.9 for a text with one of the words in it, 0.1 for any other."""

    cost = "cheap"

    def __init__(self, name: str, *words: str) -> None:
        self.name, self.words = name, set(words)
        self.identity = f"{name}:{sorted(words)}"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([0.9 if self.words & set(t.lower().split()) else 0.1 for t in texts])


WORDS = {
    "sees-idiot": ("idiot",),  # what the planted head makes likely after women
    "sees-idiot-too": ("idiot", "crap"),
    "sees-town": ("town", "house", "food", "day"),  # what no head has to do with subgroups
    "sees-identity": ("women", "men"),
}


@pytest.fixture
def scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words in WORDS.items():
        scorer = WordScorer(name, *words)
        monkeypatch.setitem(registry.SCORERS, name, lambda device, found=scorer: found)


@pytest.fixture(scope="module")
def by_default(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The default measures on a finished run."""
    from shutil import copytree

    run = Path(copytree(finished, tmp_path_factory.mktemp("agree") / "run"))
    return run, agree(run)


def pair(found: dict, a: str, b: str) -> dict:
    return next(p for p in found["pairs"] if (p["a"], p["b"]) == (a, b))


@pytest.mark.usefixtures("scorers")
def test_measures_that_see_the_same_word_agree_and_another_does_not(run: Path) -> None:
    found = agree(run, measures=("sees-idiot", "sees-idiot-too", "sees-town"))
    same = pair(found, "sees-idiot", "sees-idiot-too")
    other = pair(found, "sees-idiot", "sees-town")
    assert same["spearman"]["value"] > 0.9
    assert same["overlap"]["value"] == 1.0
    assert same["decision"] == "same"
    assert "mostly the same heads, 100% [" in same["verdict"]
    assert abs(other["spearman"]["value"]) < 0.75
    assert other["decision"] != "same"
    heads = {one["name"]: one["heads"] for one in found["measures"]}
    assert heads["sees-idiot"] == heads["sees-idiot-too"] == [[1, 2]]  # the planted head
    kappa = {(p["a"], p["b"]): p["kappa"] for p in found["texts"]["pairs"]}
    assert kappa["sees-idiot", "sees-idiot-too"] > 0.8
    assert abs(kappa["sees-idiot", "sees-town"]) < 0.5
    assert found == runs.read_json(run / "agree.json")


@pytest.mark.usefixtures("scorers")
def test_masking_takes_the_identity_words_out_of_the_measure(run: Path) -> None:
    """A scorer of nothing but identity words measures a bias; masked, it says nothing at all."""
    names = ("sees-identity", "sees-idiot", "masked:sees-identity", "masked:sees-idiot")
    found = agree(run, measures=names)
    one = {m["name"]: m for m in found["measures"]}
    assert one["sees-identity"]["bias"]["value"] > 0.02
    assert "no word" in one["masked:sees-identity"]["failed"]
    assert any("masked:sees-identity is left out" in warning for warning in found["warnings"])
    both = pair(found, "sees-idiot", "masked:sees-idiot")  # the control: it reads no identity word
    assert both["spearman"]["value"] > 0.99
    assert one["sees-idiot"]["bias"] == one["masked:sees-idiot"]["bias"]


def test_the_default_measures(by_default: tuple[Path, dict]) -> None:
    _, found = by_default
    names = [one["name"] for one in found["measures"]]
    own = "profanity-check"
    assert names[:4] == [
        f"masked:{own}",
        own,
        f"over-0.5:masked:{own}",
        "masked:toxicityclassifier",
    ]
    assert names[-1] == "likelihood"
    said = [one for one in found["measures"] if "failed" not in one]
    assert len(found["pairs"]) == len(said) * (len(said) - 1) // 2
    for one in said:
        assert one["bias"]["value"] >= 0
        assert len(one["heads"]) == 1  # alpha 0.06 of 18
        assert one["unit"] == ("nats per token" if one["name"] == "likelihood" else "score, 0 to 1")
    for p in found["pairs"]:
        low, high = p["overlap"]["ci95"]
        assert 0 <= low <= p["overlap"]["value"] <= high <= 1
        assert p["overlap_chance"] == pytest.approx(1 / 15)  # one head of 18 less 3 protected
    assert set(found["texts"]["share_over_half"]) == {one["name"] for one in said} - {"likelihood"}
    assert found["texts"]["count"] == 36 * 4


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({}, ["masked:sees-idiot", "sees-idiot", "over-0.5:masked:sees-idiot"]),
        (
            {"toxicity": "masked:sees-idiot"},
            ["masked:sees-idiot", "sees-idiot", "over-0.5:masked:sees-idiot"],
        ),
        ({"unmasked": True}, ["sees-idiot", "masked:sees-idiot", "over-0.5:sees-idiot"]),
        (
            {"toxicity": "over-0.5:sees-idiot"},
            ["masked:over-0.5:sees-idiot", "over-0.5:sees-idiot", "masked:sees-idiot"],
        ),
    ],
)
@pytest.mark.usefixtures("scorers")
def test_names_say_what_is_read(changed: dict, first: list[str], finished: Path) -> None:
    """The scorer of each default measure has the measure's name, and the first is the run's."""
    config = RunFolder.open(finished).config
    session = Session(replace(config, **{"toxicity": "sees-idiot", **changed}))
    found = load_measures(session, (), session.prompts)
    names = [one.name for one in found]
    assert names[:3] == first
    own = "" if "unmasked" in changed else "masked:"
    assert set(names[3:]) >= {f"{own}toxicityclassifier", f"{own}profanity-check", "likelihood"}
    assert len(set(names)) == len(names)
    assert found[0].scorer is session.scorer
    for one in found:
        assert one.scorer is None or one.scorer.name == one.name
        reads_names = one.scorer is not None and one.name.endswith("sees-idiot")
        if reads_names:
            assert isinstance(one.scorer, Masked) == one.name.startswith("masked:")


def test_over_one_half_is_0_or_1_and_its_mean_a_share(by_default: tuple[Path, dict]) -> None:
    run, found = by_default
    kept = {
        data["value"]["name"]: data["value"]
        for data in map(runs.read_json, (run / "agree").glob("*.json"))
    }
    own = "masked:profanity-check"
    over, masked = kept[f"over-0.5:{own}"], kept[own]
    assert set(over["scores"]) == {0.0, 1.0}
    np.testing.assert_array_equal(over["scores"], np.array(masked["scores"]) > 0.5)
    share = found["texts"]["share_over_half"]
    assert share[own] == share[f"over-0.5:{own}"] == np.mean(over["scores"])


def test_the_runs_own_measure_is_what_the_run_found(by_default: tuple[Path, dict]) -> None:
    """Its texts, read back and scored again, give the head effects of scores.csv."""
    run, found = by_default
    own = next((run / "agree").glob("masked_profanity-check-*.json"))
    effect = np.array(runs.read_json(own)["value"]["effect"])
    table = ScoreTable.read(run / "scores.csv")
    known = table.effect(bias_metric("gender"))
    np.testing.assert_allclose(effect, known, atol=SAME * np.abs(known).max())
    reliability = runs.read_json(run / "details.json")["axes"]["gender"]["reliability"]
    assert found["measures"][0]["reliability"] == pytest.approx(reliability, abs=1e-3)
    selected = runs.read_json(run / "selection.json")["heads"]
    assert found["measures"][0]["heads"] == selected


@pytest.mark.usefixtures("scorers")
def test_a_measure_that_is_done_is_kept_and_other_settings_never_use_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[AgreePlan] = []
    asked: list[str] = []
    real = measures_module.measure_heads

    def counted(measure, *args):
        asked.append(measure.name)
        return real(measure, *args)

    monkeypatch.setattr("levelhead.experiments.agree.measure_heads", counted)
    names = ("sees-idiot", "sees-town")
    first = agree(run, measures=names, announce=plans.append)
    assert plans[-1].done == ()
    assert plans[-1].cpu_seconds > 0
    again = agree(run, measures=names, announce=plans.append)
    assert again == first
    assert plans[-1].done == names
    assert plans[-1].cpu_seconds == 0
    assert asked == list(names)
    agree(run, measures=("sees-idiot", "sees-identity"), alpha=0.12, gamma=0.5)
    assert asked == [*names, "sees-identity"]  # another alpha needs no new effects
    agree(run, measures=names, max_prompts=24)
    assert asked[3:] == list(names), "other texts: computed anew"
    changed = WordScorer("sees-town", "work")
    monkeypatch.setitem(registry.SCORERS, "sees-town", lambda device: changed)
    agree(run, measures=names)
    assert asked[5:] == ["sees-town"], "another scorer of that name: computed anew"


def test_what_is_wrong_is_said_before_the_model_is_loaded(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("levelhead.session.load_base", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(RunFolderError, match="is not a run folder"):
        agree(tmp_path)
    with pytest.raises(ScorerError, match=r"no toxicity scorer 'no such'.*over-0\.5:NAME"):
        agree(run, measures=("profanity-check", "no such"))
    with pytest.raises(ConfigError, match="name at least two"):
        agree(run, measures=("likelihood",))
    with pytest.raises(ConfigError, match="named twice"):
        agree(run, measures=("likelihood", "likelihood"))
    with pytest.raises(SelectionError, match="alpha=2"):
        agree(run, alpha=2)
    with pytest.raises(ConfigError, match="--max-prompts 1 is out of range"):
        agree(run, max_prompts=1)
    (run / "scores.csv").unlink()
    with pytest.raises(RunFolderError, match=r"has no scores\.csv; first run: levelhead score"):
        agree(run)
    done = CliRunner().invoke(cli, ["agree", str(tmp_path)])
    assert isinstance(done.exception, RunFolderError)
    assert done.exception.exit_code == 2


def test_texts_that_are_not_this_runs_are_refused(run: Path) -> None:
    path = run / "continuations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    def attempt(rows: list[dict]) -> None:
        runs.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        agree(run, measures=("profanity-check", "likelihood"))

    with pytest.raises(RunFolderError, match="has no continuation of 1 of 36 validation prompts"):
        attempt([row for row in rows if row["prompt_id"] != rows[0]["prompt_id"]])
    with pytest.raises(RunFolderError, match=r"has samples \[1, 2, 3\]"):
        attempt([row for row in rows if row != rows[-1] and not (
            row["prompt_id"] == rows[3]["prompt_id"] and row["sample"] == 0
            and row["split"] == "validation")])  # fmt: skip
    with pytest.raises(RunFolderError, match="is not what its tokens say"):
        attempt([{**row, "text": row["text"] + " edited"} for row in rows])
    with pytest.raises(RunFolderError, match="line 1 is not a continuation"):
        attempt([{}])
    runs.write_text(path, "not json\n")
    with pytest.raises(RunFolderError, match="not valid JSON"):
        agree(run, measures=("profanity-check", "likelihood"))


@pytest.mark.usefixtures("scorers")
def test_the_command(run: Path) -> None:
    arguments = ["agree", str(run), "--scorer", "sees-idiot", "--scorer", "likelihood"]
    done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == runs.read_json(run / "agree.json")
    assert "plan: 2 measures, sees-idiot, likelihood, on 144" in done.stderr
    shown = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert "- sees-idiot and likelihood: " in " ".join(shown.stdout.split())
    assert "(sees-idiot, likelihood done already)" in " ".join(shown.stderr.split())


def simulated(name: str, effect: np.ndarray, noise: float, seed: int) -> dict:
    """A measure with these effects, whose halves and draws are as noisy as stated."""
    rng = np.random.default_rng(seed)

    def noisy(*more: int, scale: float) -> np.ndarray:
        return effect + noise * scale * rng.standard_normal((*more, *effect.shape))

    return {
        "name": name,
        "effect": noisy(scale=1).tolist(),
        "halves": packed(noisy(20, 2, scale=2**0.5)),
        "resampled": packed(noisy(100, scale=1)),
        "reliability": 1 / (1 + noise**2),
        "measurable": True,
        "explained": True,
        "gap": {"women": {"value": 0.1, "used": name != "c"}, "men": {"value": -0.1, "used": True}},
        "scores": None,
    }


def test_packed_arrays_come_back() -> None:
    values = np.random.default_rng(0).standard_normal((3, 2, 4))
    found = unpacked(json.loads(json.dumps(packed(values))))
    np.testing.assert_allclose(found, values, rtol=1e-6)
    assert found.shape == (3, 2, 4)


def test_agreement_is_told_from_chance_on_simulated_truth() -> None:
    rng = np.random.default_rng(0)
    truth, unrelated = rng.standard_normal((2, 12, 12))
    protected = np.zeros((12, 12), dtype=bool)
    measures = [
        simulated("a", truth, 0.2, 1),
        simulated("b", truth, 0.2, 2),
        simulated("c", unrelated, 0.2, 3),
        simulated("d", truth, 5.0, 4),
    ]
    found = compare_measures(measures, protected, 0.25)
    same, other, noisy = pair(found, "a", "b"), pair(found, "a", "c"), pair(found, "a", "d")
    assert same["overlap"]["value"] > 0.7
    assert same["decision"] == "same"
    assert same["corrected"]["value"] > 0.9
    assert other["decision"] == "chance"
    assert "not clearly more of the same heads than by chance" in other["verdict"]
    assert other["overlap_chance"] == 0.25
    assert "they rest on other gaps (women, men; men)" in other["verdict"]
    assert "other gaps" not in same["verdict"]
    assert noisy["verdict"].endswith("; d: mostly noise on these texts")
    count = sum(p["decision"] == "chance" for p in found["pairs"])
    assert f"{count} not clearly more of the same heads than by chance" in found["headline"]
    assert "mostly noise" not in same["verdict"]
    assert any(w.startswith("d: its ranking of heads is mostly noise") for w in found["warnings"])
    with pytest.raises(ScorerError, match="fewer than two measures rank the heads \\(x: silent"):
        compare_measures([measures[0], {"name": "x", "failed": "silent"}], protected, 0.25)
