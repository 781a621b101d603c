"""The benchmark of averaging, whole, on a tiny model whose biased head is known."""

from __future__ import annotations

from pathlib import Path

from benchmarks.averaging import Size, measured
from benchmarks.table import MISSING, _averaged, _tuned
from tests.pipeline.conftest import run_options, write_inputs

from levelhead.testing import planted_model


def test_every_way_has_a_row_chosen_on_other_templates(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path, planted_model())
    given = run_options(folder)
    config = {name: given[name] for name in ("prompts", "text", "toxicity", "new_tokens")}
    size = Size(
        config=config | {"model": str(folder / "model"), "text_tokens": 600},
        ranks=(1,),
        control=(1,),
        tuned_ranks=(1,),
        strengths=(10.0,),
        groups=12,
        tokens=(300, 300),
        tokens_chosen_on=None,
    )
    found = measured(size, "gender")
    assert [(row["target"], row["rank"]) for row in found["rows"]] == [
        ("average", 1),
        ("shuffled", 1),
    ]
    averaged, control = (row["matched_bias"]["change"] for row in found["rows"])
    assert averaged["ci95"][1] < -0.3
    assert abs(control["value"]) < 0.3

    tuned = {row["method"]: row for row in found["tuned"]}
    ridges = [f"average, ridge x {ridge:g}" for ridge in (1, 0.1, 0.01)]
    assert list(tuned) == [*ridges, "LEACE", "steering", "instruction"]
    for method in (*ridges, "LEACE", "steering"):
        assert tuned[method]["matched_bias"]["change"]["ci95"][1] < -0.1, method
        assert len(tuned[method]["price"]) == 4, method
    assert list(tuned["instruction"]["price"]) == ["own-text"]
    for method, row in tuned.items():
        tried = [one for one in found["tried"] if one["method"] == method]
        kept = [one for one in tried if one["worst"] <= found["limit"]]
        assert row["validation"]["within_limit"] is bool(kept)
        best = (
            min(kept, key=lambda x: x["change"]) if kept else min(tried, key=lambda x: x["worst"])
        )
        assert row["setting"] == best["setting"]

    cell = _tuned(found, "LEACE")
    change = tuned["LEACE"]["matched_bias"]["change"]["value"]
    assert cell.startswith(f"{change:+.0%} [")
    assert _averaged(found, "average", 8) == _tuned(found, "another") == MISSING


def test_a_tuned_way_that_keeps_the_limit_is_shown_before_better_ones() -> None:
    def row(method: str, change: float, worst: float, kept: bool) -> dict[str, object]:
        price = {"increase": {"value": worst}, "kl": {"value": 0.001}}
        return {
            "method": method,
            "validation": {"change": change, "worst": worst, "within_limit": kept},
            "matched_bias": {"change": {"value": change, "ci95": [change - 0.1, change + 0.1]}},
            "price": {"own-text": price},
        }

    rows = [
        row("a 1", -0.9, 0.05, False),
        row("a 2", -0.5, 0.001, True),
        row("a 3", -0.6, 0.02, False),
    ]
    assert _tuned({"tuned": rows}, "a") == "-50% [-60%, -40%]; +0.1%, KL 0.001"
    assert _tuned({"tuned": [rows[0], rows[2]]}, "a") == (
        "-60% [-70%, -50%]; +2.0%, KL 0.001 (none kept the limit: the cheapest)"
    )
