"""What a repair costs and gives: price and expected reduction of two FASP sets, before and after.

The embedded model, scored once in a small run. Prices (perplexity and KL, with 95% intervals) are
on the test part of each text, of which a repair sees nothing; the expected difference of bias, by
the masked scorer, is on test prompts. `TEXTS` in the environment names further texts, separated by
colons: another register than the one a repair is fitted to is the harder test.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import levelhead
from levelhead.config import RunConfig
from levelhead.evaluation.axis import expected_difference
from levelhead.evaluation.base import Variant, as_pruned, base_axis
from levelhead.evaluation.divergence import compare_on_text
from levelhead.metrics.perplexity import relative_increase
from levelhead.models.repair import LEAST_SQUARES
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.selection import select_heads
from levelhead.session import Session

AXIS = "gender_and_sex"
POINTS = ((0.3, 0.1), (0.7, 0.05))
OUT = Path("runs/bench/repair")
TOKENS = 4096
"""Of the test part of each text."""


def measure(quick: bool) -> dict[str, Any]:
    """Rows of both sets, unrepaired and repaired."""
    out = OUT / ("quick" if quick else "full")
    prompts = 40 if quick else 200
    levelhead.score(out=out, max_prompts=prompts, reliability=0.0)
    config = replace(RunFolder.open(out).config, samples=1)
    table = ScoreTable.read(out / "scores.csv")
    return rows(config, table, [text for text in os.environ.get("TEXTS", "").split(":") if text])


def rows(config: RunConfig, table: ScoreTable, texts: Sequence[str] = ()) -> dict[str, Any]:
    """Both sets of a score table.

    Args:
        config: of the run; its text is what the repair is fitted to.
        texts: further ones to read.
    """
    session = Session(replace(config, repair="none"))
    repaired = Session(replace(config, repair=LEAST_SQUARES))
    repaired.base = session.base
    base = base_axis(session.problem(AXIS, "test"), silent)
    found = []
    for gamma, alpha in POINTS:
        chosen = select_heads(table, axis=AXIS, method="fasp", gamma=gamma, alpha=alpha, seed=0)
        for name, one in (("none", session), (LEAST_SQUARES, repaired)):
            begun = time.monotonic()
            variant = _prepared(one, chosen)
            seconds = time.monotonic() - begun
            found.append(
                {
                    "gamma": gamma,
                    "alpha": alpha,
                    "heads": len(chosen.heads),
                    "repair": name,
                    "seconds_to_repair": seconds,
                    "expected_difference": expected_difference(base, variant, silent).to_json(),
                    "price": [
                        _price(session, variant, text) for text in (str(config.text), *texts)
                    ],
                }
            )
    return {"prompts": len(base.problem.prompts), "calibration": config.text, "rows": found}


def _prepared(session: Session, chosen: HeadSelection) -> Variant:
    """A variant whose repair, if it has one, is fitted already."""
    variant = as_pruned(session, chosen)
    with variant():
        return variant


def _price(session: Session, variant: Variant, text: str) -> dict[str, Any]:
    reading = Session(replace(session.config, text=text))
    reading.base = session.base
    (found,) = compare_on_text(reading, session.base.model, [variant], "test", silent, TOKENS)
    return {
        "text": Path(text).name,
        "increase": relative_increase(found.base, found.other).to_json(),
        "kl": found.kl.to_json(),
    }
