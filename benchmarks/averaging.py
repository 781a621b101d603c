"""What averaging over subgroups gives and costs, by rank, beside the control of shuffled labels.

The embedded model; no heads are scored and none removed. Moments and readouts are of continuations
of validation prompts and of the validation parts of texts. The expected difference of bias, by the
masked scorer, is on continuations of test prompts. Its interval knows that the base's gaps are
noisy; the bias of what is expected at the same matched contexts (`matched_bias`) is paired, and is
shown for both. Prices are on the test parts of the texts, and on what the base model writes after
test prompts. With shuffled labels every row gets the correction
of a subgroup drawn at random: what that changes is what the same machinery does without knowing who
is who.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any, TypeVar

import numpy as np

from levelhead.config import RunConfig
from levelhead.evaluation.averaging import collect
from levelhead.evaluation.axis import expected_from, read_matched
from levelhead.evaluation.base import BaseAxis, base_axis, edited
from levelhead.evaluation.divergence import TextComparison, compare_on_text
from levelhead.evaluation.finalists import validation_base
from levelhead.evaluation.own_text import compare_on_own, own_texts
from levelhead.metrics.bias import bias
from levelhead.models.average_edit import AverageEdit
from levelhead.models.averaging import Averager
from levelhead.models.lora import RANK, lora_factors
from levelhead.price import OWN_TEXT
from levelhead.progress import silent
from levelhead.sampling import pad_id
from levelhead.scoring.matched_moments import matched_contexts
from levelhead.scoring.problem import MAIN
from levelhead.session import Session

AXIS = "gender_and_sex"
STRENGTH = 10.0
RANKS = (8, 64, None)
GROUPS = 40
TOKENS = 4096
"""Of the test part of each text."""
DRAWS = 1000
T = TypeVar("T")


def measure(quick: bool) -> dict[str, Any]:
    """Rows by rank, averaged and shuffled."""
    size: dict[str, Any] = {"max_prompts": 100, "text_tokens": 4096} if quick else {}
    session = Session(RunConfig(samples=1, **size))
    validation = validation_base(session, AXIS, silent)
    averager, seconds = _timed(lambda: collect(session, {AXIS: validation}, silent))
    ranks = (64,) if quick else RANKS
    edits, solving = _timed(
        lambda: {("average", rank): averager.edit(strength=STRENGTH, rank=rank) for rank in RANKS}
    )
    control = shuffled(averager, validation)
    edits |= {("shuffled", rank): control.edit(strength=STRENGTH, rank=rank) for rank in ranks}
    base = base_axis(
        replace(session.problem(AXIS, "test"), samples=1), silent, groups=10 if quick else GROUPS
    )
    found = rows(session, base, edits, 1536 if quick else TOKENS)
    return {
        "axis": AXIS,
        "lambda": STRENGTH,
        "contexts": averager.contexts[AXIS].to_json(),
        "texts": list(averager.texts),
        "cpu_seconds": {"collecting": seconds, "solving, each": solving / len(RANKS)},
        "readout_share": {
            str(rank): median(float(averager.shares(n)[:rank].sum()) for n in averager.layers)
            for rank in RANKS
            if rank is not None
        },
        "rows": found,
    }


def shuffled(averager: Averager, base: BaseAxis) -> Averager:
    """The control: the same text and readouts, the correction of a subgroup drawn at random."""
    mixed = matched_contexts(base.problem, base.texts, silent, target="shuffled")
    own = averager.contexts[base.problem.axis].readout
    return replace(averager, contexts={base.problem.axis: replace(mixed, readout=own)})


def rows(
    session: Session,
    base: BaseAxis,
    edits: dict[tuple[str, int | None], AverageEdit],
    tokens: int,
) -> list[dict[str, Any]]:
    """What each edit gives and costs on test data."""
    model = session.base.model
    variants = [edited(model, edit) for edit in edits.values()]
    prices: dict[str, list[TextComparison]] = {
        session.text("test", name).name: compare_on_text(
            session, model, variants, "test", silent, tokens, name=name
        )
        for name in (None, *session.config.price_texts)
    }
    prices[OWN_TEXT] = compare_on_own(
        model,
        variants,
        own_texts([(base.problem, base.texts)], most=len(base.matched.rows) // 3),
        silent,
        pad=pad_id(session.tokenizer),
    )
    found = []
    for place, ((target, rank), edit) in enumerate(edits.items()):
        read_rows = read_matched(base, variants[place], silent, [MAIN])[MAIN]
        lost = [factors.lost for factors in lora_factors(edit).values()]
        found.append(
            {
                "target": target,
                "rank": rank,
                "expected_difference": expected_from(base, MAIN, read_rows).to_json(),
                "matched_bias": matched_bias(base, read_rows),
                "left": median(edit.record["left"].values()) if edit.record["left"] else None,
                "moved": median(edit.record["moved"].values()),
                "price": {
                    name: {
                        "increase": read[place].increase.to_json(),
                        "kl": read[place].kl.to_json(),
                    }
                    for name, read in prices.items()
                },
                f"lost_at_rank_{rank or RANK}": median(lost),
            }
        )
    return found


def matched_bias(base: BaseAxis, read: np.ndarray) -> dict[str, Any]:
    """Bias of what is expected of matched rows: of the base, of the edit, and their ratio less 1.

    The interval (95%) is of that ratio over templates, drawn with replacement.
    """
    problem, chosen = base.problem, base.matched
    subgroup, template = problem.subgroup[chosen.prompt], problem.template[chosen.prompt]
    codes = np.unique(template)
    own = [np.flatnonzero(template == code) for code in codes]
    both = base.token.beta * np.stack([base.matched_toxicity[MAIN], read])

    def pair(rows: np.ndarray) -> list[float]:
        count = len(problem.subgroups)
        return [bias(one[rows], subgroup[rows], count) for one in both]

    before, after = pair(np.arange(len(subgroup)))
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        one, other = pair(np.concatenate([own[i] for i in rng.integers(0, len(own), len(own))]))
        drawn.append(other / one - 1)
    change = {"value": after / before - 1, "ci95": np.quantile(drawn, [0.025, 0.975]).tolist()}
    return {"base": before, "edited": after, "change": change}


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What work returns, and its CPU seconds."""
    begun = time.process_time()
    return work(), time.process_time() - begun
