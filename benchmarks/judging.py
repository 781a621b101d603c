"""Ways to lower a gap, read side by side: the same base, texts and readings for all of them.

A way is a variant of the model, or tokens put before every prompt on its side alone (an
instruction). Text of others has no prompt, so that an instruction has no price there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from levelhead.evaluation.axis import expected_from
from levelhead.evaluation.base import BaseAxis, Variant, expected_of_rows
from levelhead.evaluation.divergence import TextComparison, compare_on_text, comparisons
from levelhead.evaluation.own_text import OwnTexts, compare_on_own, own_texts
from levelhead.metrics.bias import bias
from levelhead.metrics.divergence import nll_and_kl
from levelhead.price import OWN_TEXT
from levelhead.progress import silent
from levelhead.records import Split
from levelhead.sampling import pad_id
from levelhead.scoring.problem import MAIN, SECOND
from levelhead.scoring.teacher_forcing import Row, continuation_logits
from levelhead.session import Session

DRAWS = 1000
OWN = 40
"""Texts of the base model's that are read for the price on own text, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way, at one setting."""

    name: str
    setting: Mapping[str, Any]
    variant: Variant
    before: tuple[int, ...] = ()
    """Token ids that every prompt gets on this side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a way gives and costs."""

    way: Way
    read: Mapping[str, np.ndarray]
    """By reading: sum_t r_t of each matched row."""
    matched_bias: Mapping[str, Any]
    price: Mapping[str, TextComparison]
    """By text, what the base model writes last."""
    base: BaseAxis = field(repr=False)

    @property
    def change(self) -> float:
        """Of the bias of what is expected of matched rows, as a share of the base's."""
        return float(self.matched_bias["change"]["value"])

    @property
    def worst(self) -> float:
        """The largest increase of perplexity, as a share.

        On own text the expected one, exp(KL) - 1: the same without the noise of what was drawn.
        """
        return max(
            float(np.expm1(found.kl.value)) if name == OWN_TEXT else found.increase.value
            for name, found in self.price.items()
        )

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        second = self.read.get(SECOND)
        return {
            "expected_difference": expected_from(self.base, MAIN, self.read[MAIN]).to_json(),
            "matched_bias": self.matched_bias,
            "matched_bias_second_scorer": (
                None if second is None else matched_bias(self.base, second, SECOND)
            ),
            "price": {
                name: {"increase": found.increase.to_json(), "kl": found.kl.to_json()}
                for name, found in self.price.items()
            },
        }


def judge(
    session: Session,
    base: BaseAxis,
    ways: Sequence[Way],
    split: Split,
    tokens: Mapping[str | None, int],
) -> list[Judged]:
    """Read every way on matched contexts, on the first tokens of a split's texts, and on own text.

    Args:
        base: its readings, `MAIN` and `SECOND` where they are there, are what bias is read by.
        tokens: by the text's name; none is the run's own.
    """
    prices = prices_of(session, base, ways, split, tokens)
    readings = [name for name in (MAIN, SECOND) if name in base.readings]
    found = []
    for way, price in zip(ways, prices, strict=True):
        read = read_way(base, way, readings)
        found.append(
            Judged(
                way=way,
                read=read,
                matched_bias=matched_bias(base, read[MAIN]),
                price=price,
                base=base,
            )
        )
    return found


def prices_of(
    session: Session,
    base: BaseAxis,
    ways: Sequence[Way],
    split: Split,
    tokens: Mapping[str | None, int],
) -> list[dict[str, TextComparison]]:
    """By text, of each way."""
    model, pad = session.base.model, pad_id(session.tokenizer)
    plain = [i for i, way in enumerate(ways) if not way.before]
    variants = [ways[i].variant for i in plain]
    found: list[dict[str, TextComparison]] = [{} for _ in ways]
    own = own_texts([(base.problem, base.texts)], most=OWN)
    if plain:
        read = {
            session.text(split, name).name: compare_on_text(
                session, model, variants, split, silent, most, name=name
            )
            for name, most in tokens.items()
        }
        read[OWN_TEXT] = compare_on_own(model, variants, own, silent, pad=pad)
        for place, i in enumerate(plain):
            found[i] = {name: texts[place] for name, texts in read.items()}
    for i, way in enumerate(ways):
        if way.before:
            found[i] = {OWN_TEXT: compare_instructed(base, way, own)}
    return found


def read_way(base: BaseAxis, way: Way, readings: Sequence[str]) -> dict[str, np.ndarray]:
    """sum_t r_t of each matched row, by reading."""
    matched = replace(base.matched, rows=_instructed(base, base.matched.rows, way.before))
    tokens = {name: base.readings[name].token for name in readings}
    with way.variant() as model:
        problem = replace(base.problem, model=model)
        return expected_of_rows(problem, matched, tokens, silent, way.name)


def compare_instructed(base: BaseAxis, way: Way, own: OwnTexts) -> TextComparison:
    """The base after its own prompts beside the way after prompts with more before them."""
    model, pad = base.problem.model, pad_id(base.problem.tokenizer)
    sums = []
    for row, other in zip(own.rows, _instructed(base, own.rows, way.before), strict=True):
        first = continuation_logits(model, [row], pad)
        with way.variant() as changed:
            second = continuation_logits(changed, [other], pad)
        sums.append(nll_and_kl(first.logits[0], second.logits[0], first.tokens[0]))
    tokens = np.array([len(row.continuation) for row in own.rows])
    (found,) = comparisons(np.array(sums).T[None], tokens, own.cluster)
    return found


def _instructed(base: BaseAxis, rows: Sequence[Row], before: tuple[int, ...]) -> tuple[Row, ...]:
    """The same continuations after longer prompts; a start of text stays the start."""
    bos = base.problem.tokenizer.bos_token_id
    found = []
    for row in rows:
        first = 1 if bos is not None and row.prompt_ids[:1] == (bos,) else 0
        ids = row.prompt_ids[:first] + before + row.prompt_ids[first:]
        found.append(replace(row, prompt_ids=ids))
    return tuple(found)


def best_within(judged: Sequence[Judged], limit: float) -> tuple[Judged, bool]:
    """The one whose bias falls most of those that keep a limit of the worst price, and True.

    Else the cheapest, and False.
    """
    kept = [one for one in judged if one.worst <= limit]
    if kept:
        return min(kept, key=lambda one: one.change), True
    return min(judged, key=lambda one: one.worst), False


def matched_bias(base: BaseAxis, read: np.ndarray, reading: str = MAIN) -> dict[str, Any]:
    """Bias of what is expected of matched rows: of the base, of a way, and their ratio less 1.

    The interval (95%) is of that ratio over templates, drawn with replacement.
    """
    problem, chosen = base.problem, base.matched
    subgroup, template = problem.subgroup[chosen.prompt], problem.template[chosen.prompt]
    codes = np.unique(template)
    own = [np.flatnonzero(template == code) for code in codes]
    beta = base.readings[reading].token.beta
    both = beta * np.stack([base.matched_toxicity[reading], read])

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
