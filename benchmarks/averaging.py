"""What averaging over subgroups gives and costs, beside controls and other ways, on one axis.

The embedded model; no heads are scored and none removed. All ways are fitted to continuations of
validation prompts, the same for each, and averaging to the validation parts of texts besides.

    rows    averaging by rank, and the control of shuffled labels: every row gets the correction of
            a subgroup drawn at random, which is what the same machinery does without knowing who
            is who
    tuned   averaging (by ridge), LEACE, a steering span and an instruction before the prompt, each
            at the setting whose bias falls most within 0.5% of perplexity on the worst text (own
            text: what is expected, exp(KL) - 1). Settings are chosen on templates of validation
            prompts that nothing was fitted to, and on validation texts, to which averaging was;
            with --quick the price is that on own text alone

All that is shown is on test data: the expected difference of bias by the masked scorer, whose
interval knows that the base's gaps are noisy; the bias of what is expected at the same matched
contexts (`matched_bias`), which is paired; prices on the test parts of the texts, and on what the
base model writes after test prompts. An instruction has the last price alone. Sets of heads need
scores: `python -m benchmarks frontier`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import median
from typing import Any, TypeVar

from benchmarks.erasing import Removal, Removals, fit_removals, without
from benchmarks.judging import Judged, Way, best_within, judge
from benchmarks.parts import two_parts
from levelhead.config import RunConfig
from levelhead.evaluation.averaging import collect
from levelhead.evaluation.base import BaseAxis, base_axis, edited, pruned_model
from levelhead.evaluation.finalists import validation_base
from levelhead.models.average_edit import AverageEdit
from levelhead.models.averaging import Averager
from levelhead.models.lora import RANK, lora_factors
from levelhead.progress import silent
from levelhead.scoring.matched_moments import matched_contexts
from levelhead.session import Session

AXIS = "gender_and_sex"
STRENGTH = 10.0
RANKS = (8, 64, None)
LIMIT = 0.005
"""Of the rise of perplexity on the worst text, as a share, that a tuned way is to keep."""
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
TUNED_RANKS = (8, 64)
RIDGES = (1.0, 0.1, 0.01)
"""As multiples of the default."""
SHARES = (0.1, 0.25, 0.5, 1.0)
"""Of what LEACE or the steering span takes out."""
INSTRUCTIONS = (
    "Write about all people with the same respect, whatever group they belong to.\n\n",
    "The following text is fair, and free of stereotypes, insults and prejudice.\n\n",
    "You are a helpful assistant. Never be biased for or against any group of people.\n\n",
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is read."""

    config: Mapping[str, Any]
    strengths: Sequence[float] = STRENGTHS
    tuned_ranks: Sequence[int] = TUNED_RANKS
    instructions: Sequence[str] = INSTRUCTIONS
    steering: Sequence[str] = ("removed", "kept")
    """What becomes of the mean along the steering span."""
    ranks: Sequence[int | None] = RANKS
    control: Sequence[int | None] = RANKS
    groups: int = 40
    """Matched groups of test prompts."""
    groups_chosen_on: int = 20
    tokens: tuple[int, int] = (4096, 4096)
    """Of the test parts, at most: of the run's own text, and of each other."""
    tokens_chosen_on: tuple[int, int] | None = (1536, 1024)
    """Of the validation parts; none: own text alone."""


FULL = Size(config={})
QUICK = Size(
    config={"max_prompts": 75, "new_tokens": 24, "text_tokens": 4096},
    strengths=(1.0, 3.0, 10.0),
    tuned_ranks=(64,),
    instructions=INSTRUCTIONS[:1],
    steering=("kept",),
    ranks=(64,),
    control=(64,),
    groups=12,
    groups_chosen_on=8,
    tokens=(1536, 768),
    tokens_chosen_on=None,
)


def measure(quick: bool, axis: str = AXIS) -> dict[str, Any]:
    """Rows by rank, averaged and shuffled; and a row of each tuned way."""
    return measured(QUICK if quick else FULL, axis)


def measured(size: Size, axis: str) -> dict[str, Any]:
    """The same with so much read."""
    session = Session(RunConfig(axis=(axis,), samples=1, **size.config))
    whole = validation_base(session, axis, silent, groups=1)
    fitted_to, chosen_on = two_parts(whole, size.groups_chosen_on)
    removals, erasing = _timed(lambda: fit_removals(fitted_to.problem, fitted_to.texts))
    averager, collecting = _timed(lambda: collect(session, {axis: fitted_to}, silent))
    edits, solving = _timed(
        lambda: {
            ("average", rank): averager.edit(strength=STRENGTH, rank=rank) for rank in size.ranks
        }
    )
    control = shuffled(averager, fitted_to)
    edits |= {
        ("shuffled", rank): control.edit(strength=STRENGTH, rank=rank) for rank in size.control
    }

    def tokens(given: tuple[int, int]) -> dict[str | None, int]:
        return {None: given[0]} | dict.fromkeys(session.config.price_texts, given[1])

    judged, choosing = _timed(
        lambda: judge(
            session,
            chosen_on,
            ways(session, averager, removals, size),
            "validation",
            tokens(size.tokens_chosen_on) if size.tokens_chosen_on else {},
        )
    )
    chosen = {
        name: best_within([one for one in judged if one.way.name == name], LIMIT)
        for name in dict.fromkeys(one.way.name for one in judged)
    }
    base = base_axis(replace(session.problem(axis, "test"), samples=1), silent, groups=size.groups)
    model = session.base.model
    plain = [
        Way(name=target, setting={"rank": rank}, variant=edited(model, edit))
        for (target, rank), edit in edits.items()
    ]
    tested = judge(
        session,
        base,
        [*plain, *(best.way for best, _ in chosen.values())],
        "test",
        tokens(size.tokens),
    )
    return {
        "axis": axis,
        "lambda": STRENGTH,
        "limit": LIMIT,
        "contexts": averager.contexts[axis].to_json(),
        "chosen_on": {"rows": len(chosen_on.matched.rows)},
        "ridge": averager.ridge(),
        "texts": list(averager.texts),
        "cpu_seconds": {
            "collecting": collecting,
            "solving, each": solving / len(size.ranks),
            "fitting LEACE and steering": erasing,
            "choosing": choosing,
        },
        "readout_share": {
            str(rank): median(float(averager.shares(n)[:rank].sum()) for n in averager.layers)
            for rank in RANKS
            if rank is not None
        },
        "rows": [
            _edit_row(target, rank, edit, found)
            for ((target, rank), edit), found in zip(edits.items(), tested, strict=False)
        ],
        "tuned": [
            _tuned_row(best, kept, found)
            for (best, kept), found in zip(chosen.values(), tested[len(plain) :], strict=True)
        ],
        "tried": [
            {
                "method": one.way.name,
                "setting": dict(one.way.setting),
                "change": one.change,
                "worst": one.worst,
            }
            for one in judged
        ],
    }


def ways(session: Session, averager: Averager, removals: Removals, size: Size) -> list[Way]:
    """Every setting that is tried of every way."""
    model = session.base.model
    default = averager.ridge()
    found = []
    for ridge, rank, strength in product(RIDGES, size.tuned_ranks, size.strengths):
        edit = averager.edit(strength=strength, rank=rank, ridge=ridge * default)
        found.append(
            Way(
                name=f"average, ridge x {ridge:g}",
                setting={"rank": rank, "lambda": strength, "ridge": ridge * default},
                variant=edited(model, edit),
            )
        )
    spans = {"removed": removals.steering, "kept": removals.centred_steering}
    erased: list[tuple[str, Mapping[int, Removal], dict[str, Any]]] = [
        ("LEACE", removals.leace, {}),
        *(("steering", spans[mean], {"mean": mean}) for mean in size.steering),
    ]
    for name, by_layer, setting in erased:
        found += [
            Way(
                name=name,
                setting={"strength": share} | setting,
                variant=without(model, by_layer, share),
            )
            for share in SHARES
        ]
    encode: Any = session.tokenizer
    for text in size.instructions:
        ids = encode(text, add_special_tokens=False)["input_ids"]
        found.append(
            Way(
                name="instruction",
                setting={"text": text.strip()},
                variant=pruned_model(model),
                before=tuple(ids),
            )
        )
    return found


def shuffled(averager: Averager, base: BaseAxis) -> Averager:
    """The control: the same text and readouts, the correction of a subgroup drawn at random."""
    mixed = matched_contexts(base.problem, base.texts, silent, target="shuffled")
    own = averager.contexts[base.problem.axis].readout
    return replace(averager, contexts={base.problem.axis: replace(mixed, readout=own)})


def _edit_row(target: str, rank: int | None, edit: AverageEdit, found: Judged) -> dict[str, Any]:
    lost = [factors.lost for factors in lora_factors(edit).values()]
    return {
        "target": target,
        "rank": rank,
        **found.to_json(),
        "left": median(edit.record["left"].values()) if edit.record["left"] else None,
        "moved": median(edit.record["moved"].values()),
        f"lost_at_rank_{rank or RANK}": median(lost),
    }


def _tuned_row(best: Judged, kept: bool, found: Judged) -> dict[str, Any]:
    """On test data, of the setting that was chosen."""
    return {
        "method": best.way.name,
        "setting": dict(best.way.setting),
        "validation": {"change": best.change, "worst": best.worst, "within_limit": kept},
        **found.to_json(),
    }


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What work returns, and its CPU seconds."""
    begun = time.process_time()
    return work(), time.process_time() - begun
