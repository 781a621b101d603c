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
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import levelhead
from benchmarks.conclusions import AXIS, OUT
from levelhead.evaluation.axis import expected_difference
from levelhead.evaluation.base import as_pruned, base_axis
from levelhead.evaluation.divergence import compare_on_text
from levelhead.evaluation.own_text import compare_on_own, own_texts
from levelhead.price import OWN_TEXT
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.sampling import pad_id
from levelhead.scores import ScoreTable
from levelhead.selection import select_heads
from levelhead.selection.budget import Candidate, candidates
from levelhead.selection.joint import JOINT
from levelhead.session import Session
from levelhead.stages.joint import judge_with
from levelhead.stages.searching import best_within, tried_of
from levelhead.stages.tables import scored_table

LIMITS = (0.01, 0.02, 0.05, 0.1)
METHODS = ("fasp", "joint")
SEEDS = 3
SHARES = (0.5, 0.25, 0.125)
"""Predicted prices of the sets that are read, as shares of a limit: sets cost 2 to 5 times more."""
TOKENS = 4096
"""Of each test text."""
NOTHING = HeadSelection.of([])


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
    read = {method: _proposed(table, method) for method in METHODS}
    sets = [one for picked in read.values() for one in picked]
    judged = judge_with(session, silent)([AXIS], [one.selection for one in sets])
    tried = [tried_of(one, AXIS, found) for one, found in zip(sets, judged, strict=True)]
    found: list[tuple[dict[str, Any], HeadSelection]] = []
    for limit, method in product(LIMITS, METHODS):
        about: dict[str, Any] = {"method": method, "limit": limit}
        own = [one for one in tried if any(one.candidate is x for x in read[method])]
        best = best_within(own, limit)
        if best is None:
            found.append((about | {"nothing": min(one.most for one in own)}, NOTHING))
            continue
        about["validation_price"] = best.increase.value
        about["validation_difference"] = best.expected.to_json()
        found.append((about, best.candidate.selection))
    whole = select_heads(table, axis=AXIS, method="fasp", gamma=0.3, alpha=0.1)
    found.append(({"method": "fasp at 0.3 / 0.1", "limit": None}, whole))
    return _on_test(session, found)


def _proposed(table: ScoreTable, method: str) -> list[Candidate]:
    """The best predicted sets of a method at a half, a quarter and an eighth of each limit.

    Joint proposes other sets under another limit, so it is asked for each.
    """
    picked: dict[tuple[Any, ...], Candidate] = {}
    for limit in LIMITS:
        among = candidates(table, AXIS, limit, JOINT, (method,))
        for share in SHARES:
            fits = [one for one in among if one.predicted.ppl_increase <= share * limit]
            best = min(fits, key=lambda one: one.predicted.value, default=None)
            if best is not None:
                picked.setdefault(best.selection.heads, best)
    return list(picked.values())


def _on_test(
    session: Session, found: Sequence[tuple[dict[str, Any], HeadSelection]]
) -> list[dict[str, Any]]:
    """Price on the worst test text, and the expected difference on test prompts, of each set."""
    known = list({one.heads: one for _, one in found if one.heads}.values())
    model = session.base.model
    variants = [as_pruned(session, one) for one in known]
    base = base_axis(session.problem(AXIS, "test"), silent)
    read = {
        session.text("test", name).name: compare_on_text(
            session, model, variants, "test", silent, TOKENS, name=name
        )
        for name in (None, *session.config.price_texts)
    }
    own, pad = own_texts([(base.problem, base.texts)]), pad_id(session.tokenizer)
    read[OWN_TEXT] = compare_on_own(model, variants, own, silent, pad=pad)
    shown = {}
    for place, one in enumerate(known):
        increase = {name: texts[place].increase for name, texts in read.items()}
        worst = max(increase, key=lambda name: increase[name].value)
        shown[one.heads] = {
            "heads": len(one.heads),
            "gamma": one.gamma,
            "alpha": one.alpha,
            "price": increase[worst].to_json() | {"text": worst},
            "expected_difference": expected_difference(base, variants[place], silent).to_json(),
        }
    return [about | shown.get(one.heads, {}) for about, one in found]
