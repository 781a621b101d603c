"""Which of several attempts is recommended, and that the page of a run without a result says so."""

from dataclasses import replace
from typing import Any

import pytest

from levelhead.records import HeadSelection
from levelhead.reporting.findings import Findings
from levelhead.reporting.first_screen import first_screen
from levelhead.reporting.recommendation import recommended
from levelhead.scores import ScoreTable

NOTHING = {"attempt": 1, "method": "joint", "nothing": "no set of heads reduces the gap"}


def measured(attempt: int, ready: str, change: float, verdict: str = "lower") -> dict[str, Any]:
    return {
        "attempt": attempt,
        "method": "average",
        "ready": ready,
        "verdict": verdict,
        "adjusted_difference": {"value": change, "ci95": [change - 0.01, change + 0.01]},
        "perplexity_increase": 0.004,
    }


def test_the_largest_fall_of_the_readiest_is_taken() -> None:
    two = measured(2, "ready", -0.03)
    assert recommended([NOTHING, two]) == {
        "attempt": 2,
        "why": "Attempt 2 (average): the measured gap falls by 0.0300 at +0.4% perplexity.",
    }
    other = [measured(1, "ready", -0.02), two, measured(3, "your decision", -0.09)]
    best = recommended(other)
    assert best is not None
    assert best["attempt"] == 2
    assert "the larger fall of those" in best["why"]


@pytest.mark.parametrize(
    "rows",
    [
        [NOTHING, NOTHING | {"attempt": 2}],
        [NOTHING, measured(2, "not ready", -0.03)],
        [NOTHING, measured(2, "your decision", -0.03, "not distinguishable")],
    ],
)
def test_where_nothing_falls_the_base_model_is_kept(rows: list[dict[str, Any]]) -> None:
    best = recommended(rows)
    assert best is not None
    assert best["attempt"] is None
    assert best["why"].startswith("Keep the base model")


def test_nothing_is_recommended_of_one_attempt_or_before_all_are_finished() -> None:
    assert recommended([measured(1, "ready", -0.03)]) is None
    assert recommended([measured(1, "ready", -0.03), {"attempt": 2, "method": "fasp"}]) is None


def test_the_page_of_a_run_that_took_nothing_names_the_attempt_that_did() -> None:
    row = {
        "method": "joint",
        "heads": [],
        "expected_difference": {"value": -0.001, "ci95": [-0.01, 0.01]},
        "perplexity_increase": {"value": 0.03, "ci95": [0.02, 0.04]},
        "text": "pydoc",
        "at_most": 0.04,
    }
    search = {"judged": [row], "chosen": 0, "kept": True, "measurable": False, "budget": 0.05}
    details = {"axis": "gender", "search": search | {"candidates": 9}}
    table = ScoreTable.build({"ppl_without": 0.0, "bias_without_gender": 0.0}, 1, 2)
    findings = Findings(
        table=table,
        selection=HeadSelection.of([], method="joint", details=details),
        details={"axes": {"gender": {"bias": 0.01}}},
    )
    alone = first_screen(findings)
    assert alone is not None
    assert alone.judgement.reasons[-1] == "no model is saved"
    both = first_screen(replace(findings, attempts=(NOTHING, measured(2, "ready", -0.03))))
    assert both is not None
    assert both.judgement.reasons[-1].startswith("Attempt 2 (average): the measured gap falls")
