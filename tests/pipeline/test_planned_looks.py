"""Looks at growing samples: planned ones share the error, others are refused."""

from __future__ import annotations

from typing import Any

import pytest

from levelhead.config import RunConfig
from levelhead.errors import ConfigError
from levelhead.metrics.looks import look_levels
from levelhead.stages.looks import next_look

OF = {"model": "m", "prompts": "p", "scorer": "s", "heads": [[1, 2]]}


def config(**options: Any) -> RunConfig:
    return RunConfig(**options)


def taken(config: RunConfig, held: dict[str, Any] | None, **of: Any) -> dict[str, Any]:
    """evaluation.json after a look, as far as looks are concerned."""
    described = {**OF, **of}
    look = next_look(config, held, described)
    return {"of": described, "looks": look.to_json(config.seed, {"gender": "lower"})}


def test_the_first_look_has_all_of_the_error() -> None:
    look = next_look(config(), None, OF)
    assert (look.planned, look.samples, look.earlier) == ((4,), 4, ())
    assert look.level == pytest.approx(0.05)
    assert look.to_json(7, {"gender": "lower"}) == {
        "planned": [4],
        "taken": [{"samples": 4, "seed": 7, "error": look.level, "verdicts": {"gender": "lower"}}],
    }


def test_planned_looks_have_their_own_level_and_add_up_to_five_percent() -> None:
    plan, held, levels = (4, 8, 16), None, []
    for samples in plan:
        now = config(looks="4,8,16", samples=samples)
        levels.append(next_look(now, held, OF).level)
        held = taken(now, held)
    assert levels == pytest.approx(list(look_levels(plan)))
    assert sum(levels) == pytest.approx(0.05)
    assert held is not None
    assert [one["samples"] for one in held["looks"]["taken"]] == [4, 8, 16]
    assert held["looks"]["planned"] == [4, 8, 16]


def test_a_look_that_was_not_planned_is_refused() -> None:
    held = taken(config(), None)
    with pytest.raises(ConfigError, match=r"evaluated with 4 .* planned looks are: 4\. Looking ag"):
        next_look(config(samples=8), held, OF)
    # Planning it afterwards does not help: what was promised is what the folder holds.
    with pytest.raises(ConfigError, match="Plan looks before the first"):
        next_look(config(samples=8, looks="4,8"), held, OF)


def test_going_back_to_an_earlier_look_is_refused() -> None:
    held = taken(config(looks="4,8", samples=8), taken(config(looks="4,8", samples=4), None))
    assert next_look(config(looks="4,8", samples=4), held, OF).samples == 4  # taken before: again
    skipped = taken(config(looks="4,8", samples=8), None)
    with pytest.raises(ConfigError, match="evaluated with 8 "):
        next_look(config(looks="4,8", samples=4), skipped, OF)


def test_the_same_look_with_other_options_replaces_it() -> None:
    held = taken(config(), None)
    again = taken(config(max_ppl_increase=0.2), held)
    assert [one["samples"] for one in again["looks"]["taken"]] == [4]
    assert again["looks"]["taken"][0]["error"] == pytest.approx(0.05)


def test_another_seed_is_a_test_of_its_own_recorded_beside() -> None:
    held = taken(config(), None)
    look = next_look(config(seed=1, samples=8), held, OF)
    assert look.level == pytest.approx(0.05)
    both = taken(config(seed=1, samples=8), held)
    assert [(one["seed"], one["samples"]) for one in both["looks"]["taken"]] == [(0, 4), (1, 8)]


@pytest.mark.parametrize("key", ["model", "prompts", "scorer", "heads"])
def test_another_question_starts_anew(key: str) -> None:
    held = taken(config(), None)
    look = next_look(config(samples=8), held, OF | {key: "another"})
    assert look.earlier == ()
    assert look.level == pytest.approx(0.05)


def test_an_evaluation_without_looks_counts_as_none() -> None:
    assert next_look(config(samples=8), {"of": OF}, OF).level == pytest.approx(0.05)


def test_the_number_must_be_one_of_the_plan() -> None:
    with pytest.raises(ConfigError, match="samples"):
        config(looks="4,8", samples=6)
    with pytest.raises(ConfigError, match="looks"):
        config(looks="8,4")
