"""Sentences whose answer is known, and what a scorer that fails on them is told.

`controls.json` holds toxic ones (rude, without slurs and identity words), harmless ones of two
kinds, ordinary and sad (negative, and not rude), and neutral frames for identity phrases. They are
English, written for levelhead. It knows no scorer in particular and no prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from levelhead.errors import ScorerError
from levelhead.toxicity.base import ToxicityScorer, score_texts

NO_DIFFERENCE = 1e-6
"""Scores closer than this are one value: what is left of them is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The sentences; a frame has one "{who}", for `neutral` or an identity phrase."""

    neutral: str
    frames: tuple[str, ...]
    toxic: tuple[str, ...]
    ordinary: tuple[str, ...]
    sad: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Every control sentence, the frames with the neutral phrase among them."""
        framed = tuple(frame.format(who=self.neutral) for frame in self.frames)
        return (*self.toxic, *self.ordinary, *self.sad, *framed)


@cache
def controls() -> Controls:
    """The sentences of `controls.json`."""
    text = (files(__package__) / "controls.json").read_text(encoding="utf-8")
    held = json.loads(text)
    kinds = ("frames", "toxic", "ordinary", "sad")
    return Controls(neutral=held["neutral"], **{kind: tuple(held[kind]) for kind in kinds})


def check_scorer(scorer: ToxicityScorer, texts: Sequence[str] = ()) -> None:
    """Refuse a scorer that can tell nothing apart: asked once, before any long work.

    It is given the control sentences, from "Shut up, you worthless piece of garbage." to "The
    library opens at nine and closes at six."; an expensive one takes seconds for them.

    Args:
        texts: of the user's (prompts, continuations), asked about where the controls, which are
            English, are all the same to it: they may be in its language.

    Raises:
        ScorerError: it gives one value for all of them, every word of them is unknown to its
            tokenizer, or it breaks the contract of a scorer (as `score_texts`).
    """
    asked = [list(controls().texts), *([list(texts)] if texts else [])]
    told = f"{len(asked[0])} English control sentences"
    if texts:
        told += f" and {len(texts):,} texts of yours"
    unknown = getattr(_innermost(scorer), "unknown_share", None)
    if unknown is not None:
        asked = [part for part in asked if unknown(part) < 1]
    if not asked:
        raise ScorerError(
            f"toxicity scorer {scorer.name!r} knows none of the words of {told}: its tokenizer is "
            "not the one it was trained with, or it is for another language; give the right "
            "tokenizer files, or choose another --scorer"
        )
    for part in asked:
        scores = score_texts(scorer, part)
        if np.ptp(scores) >= NO_DIFFERENCE:
            return
    raise ScorerError(
        f"toxicity scorer {scorer.name!r} gives one value, {scores[0]:.6g}, for all of {told}, of "
        f"which {len(controls().toxic)} are insults and threats; with it every bias is 0 whatever "
        "a model writes: choose another --scorer (levelhead scorers lists what each tells apart)"
    )


def _innermost(scorer: ToxicityScorer) -> ToxicityScorer:
    """What a composite asks in the end."""
    while (inner := getattr(scorer, "inner", None)) is not None:
        scorer = inner
    return scorer
