"""The state of a run's stages and the time left, with a clock that the test moves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from levelhead.console.expected import Expected, Step, expected_steps
from levelhead.console.stages import Board, duration
from levelhead.journal.status import STAGES


class Clock:
    """Seconds, as the test says."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def plan(**other: Any) -> Any:
    """What the board reads of a plan."""
    facts: dict[str, Any] = {
        "axes": ("gender",), "evaluated_axes": ("gender",), "scoring_tokens": 1000,
        "evaluation_tokens": 8000, "text_tokens": 500, "price_tokens": 100, "heads": 20,
        "more_tokens": 0, "estimator": "token-gradient", "sets_read": 0,
        "changes_read": 0,
        "averages": False,
    }  # fmt: skip
    return SimpleNamespace(**facts | other)


def do(board: Board, clock: Clock, title: str, seconds: float, share: float = 1.0) -> None:
    """A task of 10 items, of which a share is done."""
    with board.task(title, 10) as advance:
        clock.now += seconds
        advance(round(10 * share))


def test_there_are_five_lines_and_one_time_and_each_stage_says_how_far_it_is() -> None:
    clock = Clock()
    board = Board(clock=clock)
    assert [line.split()[0] for line in board.lines()[:-1]] == list(STAGES)
    with board.stage("score"), board.task("sampling (gender)", 1600) as advance:
        advance(1200)
        assert board.lines()[0] == "score     1,200 of 1,600, sampling (gender)"
        clock.now += 75
    assert board.lines()[0] == "score     done in 1 min 15 s"
    assert board.lines()[1] == "select"
    for name in list(STAGES)[1:]:
        with board.stage(name):
            do(board, clock, "work", 1)
    assert board.lines()[-1] == "took 1 min 19 s"
    assert len(board.lines()) == 6


def test_the_time_left_is_of_the_whole_run_at_the_pace_seen_so_far() -> None:
    clock = Clock()
    board = Board(clock=clock)
    board.expect([Step("score", "sampling", 100), Step("evaluate", "reading", 300)])
    assert board.seconds_left() is None, "nothing tells the pace yet"
    with board.stage("score"):
        with board.task("sampling (gender)", 10) as advance:
            clock.now += 20
            advance(5)
            assert board.seconds_left() == pytest.approx(20 + 120), "half, and three times as much"
            clock.now += 20
            advance(5)
        assert board.seconds_left() == pytest.approx(120)
    with board.stage("evaluate"):
        do(board, clock, "reading (gender)", 100)
    assert board.seconds_left() is None, "nothing is left"


def test_what_nobody_expected_counts_with_its_own_pace_and_teaches_none() -> None:
    clock = Clock()
    board = Board(clock=clock)
    board.expect([Step("score", "sampling", 100), Step("evaluate", "reading", 100)])
    with board.stage("score"):
        do(board, clock, "sampling (gender)", 10)
        with board.task("ablating heads (gender)", 10) as advance:
            clock.now += 900
            advance(9)
            assert board.seconds_left() == pytest.approx(100 + 10)


def test_a_step_that_does_not_come_is_not_waited_for() -> None:
    expected = Expected([
        Step("score", "sampling", 1), Step("score", "sampling", 7, maybe=True),
        Step("score", "mask gradients", 2), Step("evaluate", "sampling", 4),
    ])  # fmt: skip
    assert expected.begins("evaluate", "word toxicity (gender)") is None
    assert expected.begins("score", "sampling (gender)") is not None
    assert expected.cost == 13
    assert expected.begins("score", "mask gradients") is not None
    assert expected.cost == 4, "the second round was not needed"
    expected.stage_ends("evaluate")
    assert expected.cost == 0


def test_what_an_earlier_process_did_tells_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    board = Board(clock=clock)
    board.expect([Step("score", "sampling", 100), Step("evaluate", "reading", 100)])
    from levelhead.journal import watch

    with board.stage("score"), board.task("sampling (gender)", 10) as advance:
        monkeypatch.setattr(watch, "is_reusing", lambda: True)
        clock.now += 0.1
        advance(8)
        monkeypatch.setattr(watch, "is_reusing", lambda: False)
        clock.now += 10
        advance(1)
        assert board.seconds_left() == pytest.approx(10 + 100), "10 s a tenth"


def test_a_stage_that_stops_and_one_that_was_done_before_say_so() -> None:
    clock = Clock()
    board = Board(kept=("score",), clock=clock)
    assert board.lines()[0] == "score     kept"
    with board.stage("evaluate"):
        clock.now += 3
    assert board.lines()[3] == "evaluate  done before"
    with pytest.raises(OSError, match="full"):
        _fail(board, clock)
    assert board.lines()[2] == "prune     stopped after 3 s"


def _fail(board: Board, clock: Clock) -> None:
    with board.stage("prune"):
        clock.now += 3
        raise OSError("full")


def test_the_plan_names_what_the_pipeline_does() -> None:
    """Of every step expected of a default run there is a task whose title begins so."""
    titles = {(step.stage, step.title) for step in expected_steps(plan(sets_read=4))}
    assert {stage for stage, _ in titles} == {"score", "select", "evaluate"}
    more = expected_steps(plan(more_tokens=3000))
    assert sum(step.maybe for step in more) == 4
    ablated = {step.title: step.cost for step in expected_steps(plan(estimator="ablate"))
               if step.stage == "score"}  # fmt: skip
    assert ablated["ablating heads"] + ablated["sampling"] == 1000
    searched = [step for step in expected_steps(plan(sets_read=5)) if step.stage == "select"]
    assert sum("pruned model" in step.title for step in searched) == 5
    assert {step.maybe for step in searched} == {True, False}, "a second round may not come"
    assert expected_steps(plan(sets_read=9))[-1].cost == expected_steps(plan())[-1].cost
    averages = [one for one in expected_steps(plan(sets_read=4, changes_read=4))
                if one.stage == "select"]  # fmt: skip
    assert sum("matched contexts" in one.title for one in averages) == 1
    assert sum("pruned model" in one.title for one in averages) == 8, "heads, then averaging"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (2460, "41 min"),
     (7500, "2 h 5 min"), (-1, "0 s")],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
