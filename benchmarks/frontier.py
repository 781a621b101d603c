"""What a reduction costs: the best set of each method within 1, 2, 5 and 10% of perplexity.

The fair comparison: FASP at the gamma and alpha that validation prompts and texts choose under a
limit, beside `joint` chosen in the same way, by the scores of the same seed; and FASP at 0.3 / 0.1,
which keeps no limit. What was chosen on validation data is then read on test data: the price on
the worst text, and the expected difference of bias on matched contexts, by the masked scorer.
Scores are those of `conclusions`, whose folders are used where they are there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import levelhead
from benchmarks.conclusions import AXIS, OUT
from levelhead.errors import SelectionError
from levelhead.evaluation.axis import expected_difference
from levelhead.evaluation.base import as_pruned, base_axis
from levelhead.evaluation.finalists import JudgedSet
from levelhead.evaluation.own_text import own_texts
from levelhead.evaluation.prices import measured_prices
from levelhead.price import worst_price
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.search_result import best_tried
from levelhead.selection import select_heads
from levelhead.selection.joint import JOINT
from levelhead.session import Session
from levelhead.stages.joint import Judge, judge_with
from levelhead.stages.searching import searched
from levelhead.stages.tables import scored_table

LIMITS = (0.01, 0.02, 0.05, 0.1)
METHODS = ("fasp", "joint")
SEEDS = 3
READ = 4
"""Sets read with the model for each method and limit."""


def measure(quick: bool) -> dict[str, Any]:
    """Rows of every seed, and how often the limit was kept on test texts."""
    rows = []
    for seed in range(1 if quick else SEEDS):
        out = OUT / ("quick" if quick else "full") / str(seed)
        if not (out / "scores.csv").exists():
            short = {"max_prompts": 40, "new_tokens": 12, "text_tokens": 4096} if quick else {}
            levelhead.score(out=out, seed=seed, **short)
        rows += [row | {"seed": seed} for row in rows_of(out)]
    chosen = [row for row in rows if row.get("limit") and "price" in row]
    ratios = [row["price"]["value"] / row["validation_price"] for row in chosen]
    return {
        "kept": sum(row["price"]["value"] <= row["limit"] for row in chosen),
        "of": len(chosen),
        "test_to_validation_price": [float(x) for x in np.quantile(ratios, (0, 0.5, 1))],
        "change": {
            f"{limit:.0%}": {
                method: _changes(
                    [r for r in chosen if (r["limit"], r["method"]) == (limit, method)]
                )
                for method in METHODS
            }
            for limit in LIMITS
        }
        | {"no limit": {"fasp": _changes([row for row in rows if row.get("limit") is None])}},
        "rows": rows,
    }


def _changes(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds: expected difference, its largest half width, and price on test data."""
    found = [row["expected_difference"] for row in rows]
    if not rows:
        return {"seeds": 0}
    return {
        "seeds": len(rows),
        "expected_difference": float(np.mean([one["value"] for one in found])),
        "half_width": max((one["ci95"][1] - one["ci95"][0]) / 2 for one in found),
        "price": float(np.mean([row["price"]["value"] for row in rows])),
        "heads": float(np.mean([row["heads"] for row in rows])),
    }


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Every method at every limit, and FASP at 0.3 / 0.1, of one scored run; kept beside it."""
    kept = out.parent / f"{out.name}-frontier.json"
    if not kept.exists():
        kept.write_text(json.dumps(_measured(out)))
    found: list[dict[str, Any]] = json.loads(kept.read_text())
    return found


def _measured(out: Path) -> list[dict[str, Any]]:
    folder = RunFolder.open(out)
    session, table = Session(folder.config), scored_table(folder)
    judge = _remembering(judge_with(session, silent))
    found: list[tuple[dict[str, Any], HeadSelection]] = []
    for limit in LIMITS:
        for method in METHODS:
            about: dict[str, Any] = {"method": method, "limit": limit}
            try:
                one = searched(table, AXIS, limit, JOINT, judge, READ, methods=(method,))
            except SelectionError as error:
                found.append((about | {"nothing": str(error)}, HeadSelection.of([])))
                continue
            best = best_tried(one.details) or {}
            about["validation_price"] = best["perplexity_increase"]["value"]
            about["validation_difference"] = best["expected_difference"]
            found.append((about, one))
    whole = select_heads(table, axis=AXIS, method="fasp", gamma=0.3, alpha=0.1)
    found.append(({"method": "fasp at 0.3 / 0.1", "limit": None}, whole))
    base = base_axis(session.problem(AXIS, "test"), silent)
    own = own_texts([(base.problem, base.texts)])
    rows = []
    for about, one in found:
        if not one.heads:
            rows.append(about)
            continue
        variant = as_pruned(session, one)
        _, prices = measured_prices(session, variant, own, silent)
        worst = worst_price({"price": prices})
        assert worst is not None  # noqa: S101
        rows.append(
            about
            | {
                "heads": len(one.heads),
                "gamma": one.gamma,
                "alpha": one.alpha,
                "price": {"value": worst.rise, "ci95": worst.interval, "text": worst.text},
                "expected_difference": expected_difference(base, variant, silent).to_json(),
            }
        )
    return rows


def _remembering(judge: Judge) -> Judge:
    """The same judge, which reads no set twice."""
    known: dict[Any, JudgedSet] = {}

    def judged(axes: Sequence[str], sets: Sequence[HeadSelection]) -> list[JudgedSet]:
        new = [one for one in sets if one.heads not in known]
        if new:
            known.update(zip((one.heads for one in new), judge(axes, new), strict=True))
        return [known[one.heads] for one in sets]

    return judged
