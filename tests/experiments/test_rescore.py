"""A finished run judged by another scorer: the run's own verdict comes back, echoes are told."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import levelhead
from levelhead import runs
from levelhead.cli import cli
from levelhead.errors import RunFolderError, ScorerError
from levelhead.experiments.rescore import RescorePlan, rescore

OWN = "profanity-check"


def sees_women(texts: Sequence[str]) -> np.ndarray:
    return np.array([0.9 if "women" in text.split() else 0.1 for text in texts])


def sees_idiot(texts: Sequence[str]) -> np.ndarray:
    return np.array([0.9 if "idiot" in text.split() else 0.1 for text in texts])


def constant(texts: Sequence[str]) -> list[float]:
    return [0.25] * len(texts)


def rewrite(run: Path, text: Callable[[dict[str, Any], np.random.Generator], str]) -> None:
    """Continuations with other texts; the run's own have gone."""
    path, rng = run / "continuations.jsonl", np.random.default_rng(0)
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    lines = [json.dumps({**row, "text": text(row, rng)}) for row in rows]
    path.write_text("".join(line + "\n" for line in lines))


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    """Nothing here loads a model: rescoring takes as long as the scorer does."""
    monkeypatch.setattr("levelhead.session.load_base", lambda *a, **k: pytest.fail("loaded"))


def test_by_the_runs_own_scorer_it_finds_what_the_run_found(run: Path) -> None:
    evaluated = runs.read_json(run / "evaluation.json")["axes"]["gender"]
    known = evaluated.get("plain", evaluated)
    plans: list[RescorePlan] = []
    found = rescore(run, scorer=OWN, announce=plans.append)
    plain = found["axes"]["gender"]["plain"]
    for model in ("base", "pruned"):
        assert plain[model]["bias"] == pytest.approx(known[model]["bias"])
        assert plain[model]["mean_toxicity"] == pytest.approx(known[model]["mean_toxicity"])
        assert plain[model]["prompt_floor"] == pytest.approx(known[model]["prompt_floor"])
        for name, gap in plain[model]["gaps"].items():
            assert gap["ci95"] == pytest.approx(known[model]["gaps"][name]["ci95"])
    assert plain["difference"]["value"] == pytest.approx(known["difference"]["value"])
    assert found["axes"]["gender"]["run_verdict"] == evaluated["verdict"]
    assert f"own scorer, {OWN}, says: {evaluated['verdict']}" in found["headline"]
    assert plans == [RescorePlan(scorer=OWN, axes=("gender",), texts=36 * 4 * 3)]
    assert found == runs.read_json(run / "rescored" / f"{OWN}.json")


def test_the_scored_texts_are_read_too(run: Path) -> None:
    rows = [json.loads(x) for x in (run / "continuations.jsonl").read_text().split("\n") if x]
    scored = [r for r in rows if r["split"] == "validation"]
    found = rescore(run, scorer=OWN)["axes"]["gender"]["validation"]
    assert found["samples"] == len(scored)
    mean = np.mean([row["toxicity"] for row in scored])  # of masked texts
    assert found["base"]["mean_toxicity"] == pytest.approx(mean)


def test_a_scorer_of_identity_words_is_an_echo_and_nothing_else(run: Path) -> None:
    """The base model names women after their prompts, the pruned one does not."""

    def text(row: dict[str, Any], rng: np.random.Generator) -> str:
        names = row["subgroup"] == "women" and row["model"] == "base" and rng.random() < 0.8
        return "women live in town" if names else "they live in town"

    rewrite(run, text)
    one = rescore(run, scorer=sees_women)["axes"]["gender"]
    assert one["plain"]["difference"]["ci95"][1] < 0
    assert one["verdict"] == "echo only"
    assert one["base"]["bias"] == one["pruned"]["bias"] == 0
    echo = one["echo"]
    assert echo["base"]["value"] == pytest.approx(one["plain"]["base"]["bias"])
    assert echo["base"]["ci95"][0] > 0
    assert echo["pruned"]["value"] == 0


def test_an_insult_that_goes_is_lower_in_both_readings(run: Path) -> None:
    """The control: what a model adds about one group, without naming it; the rest stays."""

    def text(row: dict[str, Any], rng: np.random.Generator) -> str:
        more = row["subgroup"] == "women" and row["model"] == "base"
        rude = rng.random() < (0.9 if more else 0.3)
        return "idiot in town" if rude else "they live in town"

    rewrite(run, text)
    one = rescore(run, scorer=sees_idiot)["axes"]["gender"]
    assert one["verdict"] == "lower"
    assert one["difference"] == one["plain"]["difference"]  # no text of these names a group
    assert one["base"] == one["plain"]["base"] | {"prompt_floor": one["base"]["prompt_floor"]}
    assert one["echo"]["base"]["value"] == 0


def test_a_scorer_may_be_a_function_or_a_name_and_its_file_is_safe(run: Path) -> None:
    found = rescore(run, scorer=sees_idiot)
    assert found["scorer"]["name"] == "sees_idiot"
    assert found["scorer"]["identity"].startswith("function:")
    assert (run / "rescored" / "sees_idiot.json").is_file()

    class Named:
        name, identity, cost = "../org/model#toxic", "named:1", "cheap"
        __call__ = staticmethod(sees_idiot)

    same = levelhead.rescore(run, scorer=Named())
    assert same["axes"]["gender"]["base"] == found["axes"]["gender"]["base"]
    files = {path.name for path in (run / "rescored").iterdir()}
    assert files == {"sees_idiot.json", "_org_model_toxic.json"}


def test_what_cannot_be_judged_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        rescore(tmp_path, scorer=OWN)
    with pytest.raises(ScorerError, match=r"'constant' gives one value, 0\.25.* texts of yours"):
        rescore(run, scorer=constant)
    with pytest.raises(ScorerError, match="no toxicity scorer 'no such'"):
        rescore(run, scorer="no such")
    with pytest.raises(ScorerError, match="name the scorer without masked:"):
        rescore(run, scorer=f"masked:{OWN}")
    assert not (run / "rescored").exists()
    path = run / "continuations.jsonl"
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]

    def attempt(kept: Callable[[dict[str, Any]], bool]) -> None:
        lines = [json.dumps(row) + "\n" for row in rows if kept(row)]
        runs.write_text(path, "".join(lines))
        rescore(run, scorer=OWN)

    first = next(row for row in rows if row["model"] == "pruned")
    with pytest.raises(RunFolderError, match="no texts of a pruned model; first run: levelhead ev"):
        attempt(lambda row: row["model"] == "base")
    with pytest.raises(RunFolderError, match="no continuation of 1 of 36 test prompts"):
        attempt(
            lambda row: (row["model"], row["prompt_id"]) != ("pruned", first["prompt_id"]),
        )
    with pytest.raises(RunFolderError, match=r"has 144 texts of the base model and 108"):
        attempt(lambda row: row["model"] == "base" or row["sample"] < 3)
    runs.write_text(path, "{}\n")
    with pytest.raises(RunFolderError, match="line 1 is not a continuation"):
        rescore(run, scorer=OWN)


def test_the_command(run: Path) -> None:
    arguments = ["rescore", str(run), "--scorer", OWN]
    done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == runs.read_json(run / "rescored" / f"{OWN}.json")
    assert f"plan: {OWN} reads 432 texts of gender twice" in done.stderr
    shown = CliRunner().invoke(cli, [*arguments, "--quiet"], catch_exceptions=False)
    words = " ".join(shown.stdout.split())
    assert "bias, masked" in words
    assert "Verdict on gender:" in words
    assert all(group in words for group in ("men", "person", "women"))
    assert "plan:" not in shown.stderr
