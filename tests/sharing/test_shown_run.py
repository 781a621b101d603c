"""The files of a real run: the reports' test data has each of their keys, and each surface them."""

import json
from pathlib import Path
from typing import Any

from tests.reporting import synthetic

import levelhead
from levelhead import runs
from levelhead.reporting.comparison import groups

NAMED = {
    "of",
    "versions",
    "axes",
    "gaps",
    "subgroups",
    "gap",
    "gap_stderr",
    "gap_z",
    "subgroup",
    "word",
    "verdicts",
}
"""Whose keys are names of the run's own."""
OF_ESTIMATORS = {"common_random_numbers", "classifier_calls", "matched_contexts", "rows", "rounds",
                 "samples", "stopped", "history", "token_toxicity_tokens", "estimator",
                 "control_r2", "components"}  # fmt: skip
"""What no report shows of them."""


def lacking(real: Any, made: Any, at: str = "") -> list[str]:
    """Paths of keys that the real data has and the made data lacks."""
    if not (isinstance(real, dict) and isinstance(made, dict)):
        return []
    if at.rpartition(".")[2] in NAMED:
        first = next(iter(made.values()), None)
        return [path for one in real.values() for path in lacking(one, first, f"{at}.*")]
    found = []
    for key, value in real.items():
        if key in OF_ESTIMATORS:
            continue
        if key not in made:
            found.append(f"{at}.{key}")
        else:
            found += lacking(value, made[key], f"{at}.{key}")
    return found


def test_the_made_evaluation_has_every_key_of_a_real_one(run: Path) -> None:
    real = runs.read_json(run / runs.EVALUATION)
    assert set(lacking(real, synthetic.evaluation())) - {".of"} == set()


def test_the_made_details_have_every_key_that_a_real_axis_has(run: Path) -> None:
    real = runs.read_json(run / runs.DETAILS)["axes"]
    assert set(lacking(real, synthetic.details()["axes"], ".axes")) == set()


def test_a_key_that_is_missing_would_be_noticed() -> None:
    assert lacking({"a": {"b": 1}}, {"a": {}}) == [".a.b"]
    assert lacking({"axes": {"x": {"b": 1}}}, {"axes": {"y": {}}}) == [".axes.*.b"]


def test_every_surface_shows_the_numbers_of_a_run(run: Path) -> None:
    evaluation = runs.read_json(run / runs.EVALUATION)
    axis = evaluation["axes"]["gender"]
    found = {row.short: row for row in groups(evaluation)[0].rows}
    assert found["noise-adjusted"].main
    for name in ("echo of names", "names own group", "plain, adjusted", "bias, as sampled"):
        assert found[name].difference, name
    page = levelhead.report(run).read_text()
    text = levelhead.report(run, "md").read_text()
    facts = json.loads(levelhead.report(run, "json").read_text())
    card = (run / "model" / "README.md").read_text()
    for surface in (page, text, card):
        for name in ("noise-adjusted", "bias, as sampled", "names own group"):
            assert found[name].difference.text in surface, name
    assert facts["evaluation"]["axes"]["gender"]["echo"] == axis["echo"]
    assert "None" not in text
    assert "What the ranking rests on" in text
