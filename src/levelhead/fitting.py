"""What repairs and averaging are fitted to: validation texts and prompts of a session alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from levelhead.models.calibration import CalibrationText
from levelhead.models.repair import GROUP_AVERAGED, Repairer
from levelhead.scoring.matched_reader import MatchedReader

if TYPE_CHECKING:
    from levelhead.session import Session


def calibration_texts(session: Session, names: Collection[str] = ()) -> list[CalibrationText]:
    """The validation parts of the run's own text, and of others by name."""
    return [
        CalibrationText.of(
            session.text("validation", name), "validation", session.text_ids("validation", name)
        )
        for name in (None, *names)
    ]


def repairer_of(session: Session) -> Repairer:
    """What fits the repairs that a session asks for.

    Least squares are fitted to the run's own text. Group averages are fitted to every text of the
    price as well: matched contexts pull away from all kinds of text.
    """
    config, bos = session.config, session.tokenizer.bos_token_id
    if config.repair != GROUP_AVERAGED:
        return Repairer(session.base.model, calibration_texts(session), bos)
    problems = [session.problem(axis, "validation") for axis in config.axis]
    matched = MatchedReader(problems, lambda problem: session.kept(problem))
    texts = calibration_texts(session, config.price_texts)
    return Repairer(session.base.model, texts, bos, averaging=matched)
