"""The word on the banner, its reasons, and the tiles of the first screen."""

from dataclasses import replace
from typing import Any

import pytest
import synthetic

from levelhead.records import HeadSelection
from levelhead.reporting.build import build
from levelhead.reporting.first_screen import WIDTH, first_screen
from levelhead.reporting.readiness import judged_ready

AXIS = "gender_and_sex"


def evaluation(verdict: str = "lower", rise: float = 0.01, **axis: Any) -> Any:
    found = synthetic.evaluation()
    found["price"] = [{"text": "pydoc", "base": 10.0, "pruned": 10.0 * (1 + rise)}]
    quiet = {"own_group_mentions": None, "degeneration": {}, "verdict": verdict}
    agreeing = {"second_scorer": {"adjusted_difference": {"ci95": [-0.05, -0.01]}},
                "adjusted_difference": {"value": -0.03, "ci95": [-0.05, -0.01]}}  # fmt: skip
    found["axes"][AXIS] |= quiet | agreeing | axis
    found["axes"] = {AXIS: found["axes"][AXIS]}
    return found


def judged(**given: Any) -> tuple[str, str]:
    found = judged_ready(evaluation(**given), AXIS, 0.05)
    assert found is not None
    return found.word, found.sentence


def test_a_reduction_that_nothing_speaks_against_is_ready() -> None:
    assert judged() == ("ready", "Ready")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"rise": 0.28}, "perplexity rose by 28%, more than 5%"),
        ({"verdict": "not distinguishable"}, "no change of the measured gap"),
        ({"verdict": "echo only"}, "only the scorer's reaction to names fell"),
        ({"verdict": "higher"}, "the measured gap rose"),
        ({"own_group_mentions": {"fell": ["all"]}}, "names groups less often"),
        ({"degeneration": {"repetition": {"worse": True}}}, "degenerate text (repetition)"),
    ],
)
def test_what_forbids_shipping(given: dict[str, Any], reason: str) -> None:
    word, sentence = judged(**given)
    assert word == "not ready"
    assert reason in sentence


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"verdict": "less toxic for everyone"}, "lower toxicity for everyone"),
        (
            {"second_scorer": {"adjusted_difference": {"ci95": [-0.05, 0.01]}}},
            "only the first of two scorers",
        ),
        ({"second_scorer": {"adjusted_difference": {"ci95": [0.01, 0.05]}}}, "disagree"),
    ],
)
def test_what_has_to_be_weighed(given: dict[str, Any], reason: str) -> None:
    word, sentence = judged(**given)
    assert word == "your decision"
    assert reason in sentence


def test_an_unreliable_ranking_and_a_gap_that_rose_elsewhere_count() -> None:
    found = evaluation() | {"reliable": False}
    assert judged_ready(found, AXIS).word == "your decision"  # type: ignore[union-attr]
    found["axes"]["religion"] = {"verdict": "higher"}
    other = judged_ready(found, AXIS)
    assert other is not None
    assert other.word == "not ready"
    assert "the gap of religion rose" in other.reasons


def test_all_reasons_are_given_the_price_first() -> None:
    _, sentence = judged(rise=0.3, verdict="higher")
    assert sentence.index("perplexity") < sentence.index("gap rose")


def screen(found: Any, **selection: Any) -> Any:
    chosen = HeadSelection.of(synthetic.PRUNED, details={"axis": AXIS} | selection)
    return first_screen(synthetic.findings(evaluation=found, selection=chosen))


def test_the_tiles_add_up_and_their_bars_hold_0_and_the_estimate() -> None:
    found = evaluation()
    found["axes"][AXIS]["base"] |= {"bias_corrected": 0.08}
    first = screen(found)
    gap, toxicity, price = first.tiles
    assert (gap.before, gap.change, gap.look) == ("0.080", "-0.030", "lower")
    assert gap.after.startswith("0.050")
    assert price.change == "+1.0%"
    for tile in (gap, toxicity):
        bar = tile.bar
        assert 0 <= min(bar.low, bar.zero) <= bar.value <= max(bar.high, bar.zero) <= WIDTH


def test_the_budget_of_a_search_is_the_limit() -> None:
    found = evaluation(rise=0.04)
    assert screen(found, search={"budget": 0.03}).judgement.word == "not ready"
    assert screen(found, search={"budget": 0.05}).judgement.word == "ready"


def test_nothing_measured_is_no_first_screen() -> None:
    assert screen({}) is None
    assert screen({"axes": {AXIS: {"verdict": None}}}) is None


def test_damaged_values_leave_out_their_tile() -> None:
    found = evaluation()
    found["axes"][AXIS] |= {"toxicity_difference": "?", "adjusted_difference": {"value": "x"}}
    assert [tile.key for tile in screen(found).tiles] == ["price"]


def test_the_price_tile_is_of_the_worst_text_and_names_it() -> None:
    evaluation = synthetic.evaluation()
    for one in evaluation["price"]:
        if one["text"] == "everyday":
            one |= {"pruned": 33.0, "increase": {"value": 33.0 / 30.11 - 1, "ci95": [0.05, 0.15]}}
    screen = first_screen(synthetic.findings(evaluation=evaluation))
    assert screen is not None
    (tile,) = [tile for tile in screen.tiles if tile.key == "price"]
    assert tile.after == "33.00 after on everyday, the worst of 3 texts"
    assert (tile.before, tile.change, tile.interval) == ("30.11", "+9.6%", "+5.0% to +15.0%")


def test_a_search_that_took_no_set_says_what_it_tried() -> None:
    row = {
        "method": "fasp", "gamma": 0.3, "alpha": 0.02, "heads": [[0, 1], [2, 3]], "soft": False,
        "predicted": {"perplexity_increase": 0.02}, "text": "literature", "at_most": 0.045,
        "perplexity_increase": {"value": 0.04, "ci95": [0.03, 0.05]},
        "expected_difference": {"value": -0.001, "ci95": [-0.004, 0.002]},
    }  # fmt: skip
    dear = row | {"at_most": 0.2}
    search = {"on": "validation", "budget": 0.05, "candidates": 90, "judged": [dear, row],
              "chosen": 1, "measurable": False}  # fmt: skip
    found = synthetic.findings(evaluation={})
    details = {"axis": AXIS, "search": search}
    found = replace(found, run="runs/one", selection=replace(found.selection, details=details))
    screen = first_screen(found)
    assert screen is not None
    assert screen.judgement.word == "not ready"
    assert "at most 5.0% reduces the measured gap" in screen.judgement.sentence
    assert [tile.key for tile in screen.tiles] == ["gap", "price"]
    assert screen.tiles[1].change == "+4.0%"
    assert "levelhead retry runs/one --max-ppl-increase 0.1" in [x.command for x in screen.next]
    report = build(found)
    (section,) = [one for one in report.sections if one.key == "search"]
    outcomes = [row.cells[-1] for row in section.tables[0].groups[0].rows]
    assert outcomes == ["over the limit: up to 20.0%", "best, and not clear of 0"]
    assert report.headline.startswith("no set of heads")
    search["measurable"] = True
    assert first_screen(found) is None, "what was taken is shown once it is evaluated"
