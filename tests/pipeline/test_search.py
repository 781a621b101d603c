"""The search under a budget, through a whole tiny run whose biased head is known."""

import html
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tests.pipeline.conftest import BUDGET

import levelhead
from levelhead import choosing, cli, pipeline
from levelhead.config import RunConfig
from levelhead.errors import ConfigError, PromptError, SelectionError, UnreliableScoresError
from levelhead.journal.status import read_status
from levelhead.records import Estimate, Interval
from levelhead.stages.joint import judge_with
from levelhead.testing import planted_model

pytestmark = pytest.mark.usefixtures("wide_limit")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def searching(options: dict[str, Any]) -> dict[str, Any]:
    left = {name: value for name, value in options.items() if name not in ("gamma", "alpha")}
    return left | {"budget": BUDGET}


@pytest.fixture(scope="module")
def first(
    inputs: Path,
    searching: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    wide_limit: None,
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "searched"
    levelhead.run(str(inputs / "model"), out=out, **searching)
    return out


@pytest.fixture
def done(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "run"))


def test_the_planted_head_is_found_within_the_budget_and_judged_on_validation(done: Path) -> None:
    selection = read(done / "selection.json")
    search = selection["search"]
    assert search["on"] == "validation"
    assert search["budget"] == BUDGET
    assert list(planted_model().head) in selection["heads"]
    judged = search["judged"]
    assert {one["method"] for one in judged} == {"fasp", "joint"}
    taken = judged[search["chosen"]]
    assert taken["heads"] == selection["heads"]
    assert taken["at_most"] <= BUDGET
    fits = [one for one in judged if one["at_most"] <= BUDGET]
    fall = [one["expected_difference"]["value"] for one in fits]
    assert taken["expected_difference"]["value"] == min(fall)
    assert search["measurable"]
    assert selection["method"] == taken["method"]
    assert 0 < len(selection["inclusion"]) <= len(selection["heads"])
    evaluation = read(done / "evaluation.json")
    assert evaluation["heads"] == selection["heads"]
    assert evaluation["axes"]["gender"]["verdict"] == "lower"
    assert evaluation["budget"]["limit"] == BUDGET
    worst = max(evaluation["price"], key=lambda one: one["increase"]["value"])
    assert evaluation["budget"]["text"] == worst["text"]
    assert evaluation["budget"]["increase"] == worst["increase"]
    assert evaluation["budget"]["kept"] == (worst["increase"]["value"] <= BUDGET)


def test_a_run_that_names_no_method_averages_over_groups_as_well(done: Path) -> None:
    heads, averaged = levelhead.results(done)["attempts"]
    assert (heads["attempt"], averaged["attempt"]) == (1, 2)
    assert heads["method"] in ("fasp", "joint")
    assert averaged["method"] == "average"
    assert averaged["budget"] == BUDGET
    for one in (heads, averaged):
        assert one["verdict"] == "lower"
        assert one["ready"] in ("ready", "your decision", "not ready")
    first, second = (read(Path(one["folder"]) / "evaluation.json") for one in (heads, averaged))
    assert first["axes"]["gender"]["base"] == second["axes"]["gender"]["base"], "the same texts"
    best = levelhead.results(done)["recommended"]
    said = (done / "report.html").read_text()
    assert html.escape(best["why"], quote=False) in html.unescape(said)
    assert "averaged over groups" in said


def test_the_same_run_again_searches_nothing(
    done: Path, inputs: Path, searching: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_again(*_: Any) -> Any:
        raise AssertionError("the model read sets again")

    monkeypatch.setattr("levelhead.stages.joint.judge_sets", read_again)
    before = (done / "selection.json").read_bytes()
    levelhead.run(str(inputs / "model"), out=done, **searching)
    assert (done / "selection.json").read_bytes() == before


@pytest.mark.parametrize("why", ["prompts", "memory"])
def test_where_averaging_cannot_be_tried_the_run_is_one_attempt(
    why: str, inputs: Path, searching: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if why == "memory":
        monkeypatch.setattr("levelhead.evaluation.averaging.physical_memory", lambda: 1000)
    else:
        unmatched = PromptError("no matched groups")
        monkeypatch.setattr(
            "levelhead.evaluation.averaging.refuse_unmatched", lambda _: raises(unmatched)
        )
    out = tmp_path / "run"
    levelhead.run(str(inputs / "model"), out=out, **searching)
    assert len(levelhead.results(out)["attempts"]) == 1
    assert levelhead.results(out)["recommended"] is None
    log = (out / "work" / "log.jsonl").read_text(encoding="utf-8")
    assert "averaging is not tried" in log


def raises(error: Exception) -> None:
    raise error


def test_another_budget_and_a_point_are_attempts(done: Path) -> None:
    levelhead.retry(done, budget=2.0)
    levelhead.retry(done, gamma=0.2, alpha=0.06)
    rows = levelhead.results(done)["attempts"]
    assert [row["budget"] for row in rows] == [BUDGET, BUDGET, 2.0, None]
    point = read(Path(rows[3]["folder"]) / "selection.json")
    assert "search" not in point
    assert point["method"] == "fasp"


def test_by_predictions_alone_no_model_is_read(done: Path) -> None:
    chosen = levelhead.select(done, budget=BUDGET, allow_unreliable=True)
    assert (chosen.details or {})["search"]["on"] == "predictions"
    assert (chosen.details or {})["predicted"]["perplexity_increase"] <= BUDGET
    said = CliRunner().invoke(cli.cli, ["select", str(done), "--budget", str(BUDGET)])
    assert said.exit_code == 0, said.output


def dear(session: Any, progress: Any) -> Any:
    """A judge of sets that all raise perplexity by half."""
    judge = judge_with(session, progress)

    def judged(axes: Any, sets: Any) -> Any:
        found = []
        for one in judge(axes, sets):
            texts = {}
            for name, text in one.texts.items():
                nll = text.base.block_nll + np.log(1.5) * text.base.block_tokens
                texts[name] = replace(text, other=replace(text.base, block_nll=nll))
            found.append(replace(one, texts=texts))
        return found

    return judged


def test_a_budget_that_no_set_keeps_says_what_the_cheapest_costs(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "judge_with", dear)
    with pytest.raises(UnreliableScoresError, match=r"within 10\.0% .*the cheapest.* to 50\.0%"):
        levelhead.retry(done, budget=0.1)
    attempt = done / "attempts" / "3"
    assert not (attempt / "model").exists()
    search = read(attempt / "selection.json")["search"]
    assert len(search["judged"]) > 4, "further sets were read"
    assert not search["kept"]
    assert "over the limit: up to 50.0%" in (attempt / "report.html").read_text()
    with pytest.raises(SelectionError, match=r"within 10\.0%"):  # of the search that is held
        levelhead.select(attempt, budget=0.1, finalists=4, allow_unreliable=True)
    monkeypatch.setattr(choosing, "judge_with", dear)
    before = (done / "selection.json").read_bytes()
    with pytest.raises(SelectionError, match=r"within 10\.0%"):
        levelhead.select(done, budget=0.1, finalists=2, allow_unreliable=True)
    assert (done / "selection.json").read_bytes() == before


def test_flags_that_contradict_a_budget_are_refused_before_work(
    inputs: Path, options: dict[str, Any], tmp_path: Path, done: Path
) -> None:
    with pytest.raises(ConfigError, match="--budget searches for a set of heads and --gamma"):
        levelhead.run(str(inputs / "model"), out=tmp_path / "no", **options, budget=0.05)
    assert not (tmp_path / "no").exists()
    with pytest.raises(ConfigError, match="--alpha names one"):
        levelhead.retry(done, budget=0.05, alpha=0.1)
    with pytest.raises(SelectionError, match="leave out method"):
        levelhead.select(done, budget=0.05, gamma=0.5)
    with pytest.raises(SelectionError, match="--axis is for --method joint"):
        levelhead.select(done, budget=0.05, axis=["gender", "age"])
    with pytest.raises(SelectionError, match="--per-layer-equal"):
        levelhead.select(done, budget=0.05, per_layer_equal=True)


def test_where_nothing_is_reduced_measurably_no_model_is_saved(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge finds an interval that holds 0 for every set."""

    def unsure(session: Any, progress: Any) -> Any:
        judge = judge_with(session, progress)

        def judged(axes: Any, sets: Any) -> Any:
            nothing = Estimate(value=-0.001, interval=Interval(-0.01, 0.008))
            found = judge(axes, sets)
            return [replace(one, expected=dict.fromkeys(axes, nothing)) for one in found]

        return judged

    monkeypatch.setattr(pipeline, "judge_with", unsure)
    with pytest.raises(UnreliableScoresError, match=r"reduces the measured gap.*No model is saved"):
        levelhead.retry(done, budget=2.5)
    attempt = done / "attempts" / "3"
    assert read(attempt / "selection.json")["search"]["measurable"] is False
    assert not (attempt / "model").exists()
    assert read_status(attempt)["state"] == "no result"
    page = (attempt / "report.html").read_text()
    assert "reduces the measured gap of validation prompts beyond its interval" in page
    assert "best, and not clear of 0" in page
    assert "nothing pruned; the best set tried" in page
    assert 'class="headline"' not in page, "the banner says it"
    assert f"levelhead retry {attempt} --max-ppl-increase 5" in page
    # Whoever wants it all the same has it measured.
    levelhead.prune(attempt)
    assert levelhead.evaluate(attempt)["budget"]["limit"] == 2.5
    assert "Nothing was measured" not in (attempt / "report.html").read_text()


def test_gates_are_searched_where_asked(done: Path) -> None:
    levelhead.retry(done, budget=BUDGET, soft=True, finalists=2)
    selection = read(done / "attempts" / "3" / "selection.json")
    judged = selection["search"]["judged"]
    assert [one["soft"] for one in judged] == [False, True]
    taken = judged[selection["search"]["chosen"]]
    assert ("gates" in selection) == taken["soft"]


def test_without_a_set_named_the_limit_is_searched_under(options: dict[str, Any]) -> None:
    unnamed = {key: value for key, value in options.items() if key not in ("gamma", "alpha")}
    assert RunConfig.of(None, **unnamed).budget == RunConfig.of(None, **unnamed).max_ppl_increase
    assert RunConfig.of(None, **unnamed, max_ppl_increase=0.02).budget == 0.02
    assert RunConfig.of(None, **unnamed, budget=0.02).max_ppl_increase == 0.02
    named = RunConfig.of(None, **options, max_ppl_increase=0.02)
    assert (named.budget, named.max_ppl_increase) == (None, 0.02)
    for other in ({"method": "bias_only"}, {"unit": "layer"}, {"protocol": "paper"},
                  {"protect": "exact"}, {"budget": None}):  # fmt: skip
        assert RunConfig.of(None, **unnamed, **other).budget is None, other
    with pytest.raises(ConfigError, match="are one limit"):
        RunConfig.of(None, **unnamed, budget=0.02, max_ppl_increase=0.03)
    for none in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="--max-ppl-increase"):
            RunConfig.of(None, **unnamed, max_ppl_increase=none)
