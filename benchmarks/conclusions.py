"""Does the conclusion repeat? The default run of the embedded model, over five seeds.

Each seed draws its own continuations, contexts and labels; the prompts are the same. Printed per
seed: what the searches under the limit found on validation prompts, of heads and by averaging over
groups; where a set was taken, the verdict,
the noise-adjusted difference by the masked and the plain reading and by the second scorer, the
echo, own-group mentions and the price; and time. Over seeds: the range of verdicts, and how many
heads two seeds' sets share.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import levelhead
from levelhead.errors import UnreliableScoresError
from levelhead.search_result import best_tried

SEEDS = 5
OUT = Path("runs/bench/conclusions")
AXIS = "gender_and_sex"
NOTHING = "nothing measurable within the limit"
CHANGED = ("lambda", "rank", "expected_difference", "perplexity_increase", "text", "at_most")
"""Of the change of method average that was taken, or came nearest to it."""
TRIED = ("method", "expected_difference", "perplexity_increase", "text", "at_most")


def measure(quick: bool) -> dict[str, Any]:
    """All seeds, one after the other; a finished one is not run again."""
    options: dict[str, Any] = {}
    if quick:
        options = {"max_prompts": 40, "new_tokens": 12, "text_tokens": 4096}
    rows = []
    for seed in range(2 if quick else SEEDS):
        out = OUT / ("quick" if quick else "full") / str(seed)
        begun, used = time.monotonic(), os.times()
        whole = (out / "report.html").exists()
        found, held = None, out / "evaluation.json"
        if whole:
            found = json.loads(held.read_text()) if held.exists() else None
        else:
            with suppress(UnreliableScoresError):  # no set within the limit reduces the gap
                found = levelhead.run(out=out, seed=seed, **options)
        spent = os.times()
        row = _row(found, out) | {"seed": seed}
        if not whole:
            row["minutes"] = (time.monotonic() - begun) / 60
            row["cpu_minutes"] = (spent.user - used.user + spent.system - used.system) / 60
        rows.append(row)
    shared = [
        len(a & b) / max(1, len(a))
        for a, b in combinations([set(map(tuple, row["heads"])) for row in rows], 2)
    ]
    return {
        "verdicts": dict(Counter(row["verdict"] for row in rows)),
        "shared_heads": {"mean": float(np.mean(shared)), "least": float(np.min(shared))},
        "seeds": [{k: v for k, v in row.items() if k != "heads"} for row in rows],
    }


def _row(found: dict[str, Any] | None, out: Path) -> dict[str, Any]:
    selection = json.loads((out / "selection.json").read_text())
    details = json.loads((out / "details.json").read_text())["axes"][AXIS]
    best, search = best_tried(selection) or {}, selection["search"]
    row = {
        "verdict": NOTHING,
        "measurable_gap": details["measurable"],
        "ranked_by": {name: details["gap"][name] for name in details["used"]},
        "reliability": details["reliability"],
        "compared": search["candidates"],
        "read": len(search["judged"]),
        "dearer": search["dearer"],
        "best_tried": {key: best.get(key) for key in TRIED} | {"heads": len(selection["heads"])},
        "heads": selection["heads"],
    }
    if (other := out / "attempts" / "2" / "selection.json").exists():
        averaged = json.loads(other.read_text())
        row["averaging"] = {
            **{key: (best_tried(averaged) or {}).get(key) for key in CHANGED},
            "measurable": averaged["search"]["measurable"],
        }
    if found is None:
        return row
    axis = found["axes"][AXIS]
    mentions, second = axis["own_group_mentions"], axis["second_scorer"]
    return row | {
        "verdict": axis["verdict"],
        "masked": axis["adjusted_difference"],
        "plain": axis["plain"]["adjusted_difference"],
        "second": None if second is None else second["adjusted_difference"],
        "echo": axis["echo"]["difference"],
        "mentions": mentions and mentions["difference"],
        "base_bias_corrected": axis["base"]["bias_corrected"],
        "price": found["budget"],
        "power": axis["power"],
        "r_squared": axis["token_toxicity_r2"],
    }
