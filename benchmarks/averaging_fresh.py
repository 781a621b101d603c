"""What averaging over subgroups does to freshly sampled text, over seeds.

Every seed has continuations of its own to fit to (validation prompts) and to judge by (test
prompts, which share no template and no word for a group with those). Models continue the same
prompts with common random numbers. Rows: rank 8 and 64, and the control of shuffled labels. Pooled:
the mean over seeds, its interval from the seeds' own intervals as if independent.

One file a seed, so that seeds can run side by side and a stopped run goes on:
runs/bench/averaging_fresh.AXIS/SEED.json. A seed takes more than three quarters of an hour of one
core in float32.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.averaging import shuffled
from levelhead.config import RunConfig
from levelhead.evaluation.averaging import collect
from levelhead.evaluation.axis import evaluate_axis
from levelhead.evaluation.base import base_axis, edited
from levelhead.evaluation.divergence import compare_on_text
from levelhead.evaluation.finalists import validation_base
from levelhead.evaluation.own_text import compare_on_own, own_texts
from levelhead.price import OWN_TEXT
from levelhead.progress import silent
from levelhead.sampling import pad_id
from levelhead.session import Session
from levelhead.stages.number_format import choose_format

AXIS = "sexual_orientation"
"""The built-in axis with the largest masked gap of the embedded model."""
SEEDS = (0, 1, 2, 3)
STRENGTH = 100.0
RANKS = (8, 64)
TOKENS = 4096
OUT = Path("runs/bench")
READINGS = ("masked", "plain", "second")


def measure(quick: bool, axis: str = AXIS) -> dict[str, Any]:
    """Every seed's rows, and both pooled."""
    folder = OUT / f"averaging_fresh.{axis}"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in SEEDS[:2] if quick else SEEDS:
        path = folder / f"{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(one_seed(axis, seed, quick), indent=1) + "\n")
        found.append(json.loads(path.read_text()))
    return {"axis": axis, "lambda": STRENGTH, "pooled": pooled(found), "seeds": found}


def one_seed(axis: str, seed: int, quick: bool = False) -> dict[str, Any]:
    """Fit, sample, read."""
    begun = time.process_time()
    size: dict[str, Any] = {"max_prompts": 100, "text_tokens": 4096} if quick else {}
    session = Session(RunConfig(axis=(axis,), seed=seed, **size))
    choose_format(session)  # bfloat16 where it is faster, as in a run
    validation = validation_base(session, axis, silent, groups=1)
    averager = collect(session, {axis: validation}, silent)
    edits = {f"rank {rank}": averager.edit(strength=STRENGTH, rank=rank) for rank in RANKS}
    fitted = time.process_time() - begun
    control = shuffled(averager, validation)
    edits["shuffled 64"] = control.edit(strength=STRENGTH, rank=64)
    base = base_axis(session.problem(axis, "test"), silent)
    model = session.base.model
    variants = [edited(model, edit) for edit in edits.values()]
    prices = {
        session.text("test", name).name: compare_on_text(
            session, model, variants, "test", silent, TOKENS, name=name
        )
        for name in (None, *session.config.price_texts)
    }
    one = replace(base.problem, samples=1)
    prices[OWN_TEXT] = compare_on_own(
        model, variants, own_texts([(one, base.texts)], most=400), silent,
        pad=pad_id(session.tokenizer),
    )  # fmt: skip
    rows = {}
    for place, (name, variant) in enumerate(zip(edits, variants, strict=True)):
        result = evaluate_axis(base, variant, silent)[0].to_json()
        rows[name] = _row(result) | {
            "price": {
                text: {"increase": read[place].increase.to_json(), "kl": read[place].kl.value}
                for text, read in prices.items()
            }
        }
    return {
        "seed": seed,
        "rows": rows,
        "cpu_seconds": {"edit": fitted, "all": time.process_time() - begun},
    }


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    read = {"masked": result, "plain": result["plain"], "second": result["second_scorer"]}
    return {
        "verdict": result["verdict"],
        **{
            name: {
                "base": one["base"]["bias_corrected"],
                "gaps": {s: gap["value"] for s, gap in one["base"]["gaps"].items()},
                "edited_gaps": {s: gap["value"] for s, gap in one["pruned"]["gaps"].items()},
                "difference": one["adjusted_difference"],
                "expected": one["expected_difference"],
                "toxicity": [one["base"]["mean_toxicity"], one["pruned"]["mean_toxicity"]],
            }
            for name, one in read.items()
        },
        "mentions": result["own_group_mentions"],
        "degeneration": result["degeneration"],
    }


def pooled(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By row and reading: mean of base, difference and its interval, toxicity, mentions, price."""
    found: dict[str, Any] = {}
    for name in seeds[0]["rows"]:
        own = [seed["rows"][name] for seed in seeds]
        found[name] = {
            reading: _pooled_reading([row[reading] for row in own]) for reading in READINGS
        }
        sides = ("base", "pruned", "difference")
        found[name]["mentions"] = {
            side: _mean([_value(row["mentions"][side]) for row in own]) for side in sides
        }
        worst = [max(one["increase"]["value"] for one in row["price"].values()) for row in own]
        found[name]["worst_increase"] = _mean(worst)
        found[name]["own_text_kl"] = _mean([row["price"][OWN_TEXT]["kl"] for row in own])
        found[name]["verdicts"] = [row["verdict"] for row in own]
    return found


def _pooled_reading(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    base, count = _mean([row["base"] for row in rows]), len(rows)
    value = _mean([row["difference"]["value"] for row in rows])
    half = [(high - low) / 2 for low, high in (row["difference"]["ci95"] for row in rows)]
    error = math.sqrt(sum(one**2 for one in half)) / count
    before, after = (_mean([row["toxicity"][side] for row in rows]) for side in (0, 1))
    return {
        "base": base,
        "difference": {"value": value, "ci95": [value - error, value + error]},
        "share": value / base if base > 0 else None,
        "toxicity": [before, after],
    }


def _value(one: Any) -> float:
    """Of an estimate, or of a table by subgroup: their mean."""
    if isinstance(one, Mapping) and "value" in one:
        return float(one["value"])
    return _mean([_value(each) for each in one.values()]) if isinstance(one, Mapping) else one


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
