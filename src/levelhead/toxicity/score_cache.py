"""Answers of expensive scorers, kept on disk, so that no list of texts is paid for twice.

The file's name is a hash of the very question: the scorer's identity and the texts in order. So
another seed, model or tokenizer, which asks about other texts, never gets an answer that is not
its own. A file that is damaged, or cannot be written, costs a repetition and nothing else.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from levelhead.data.cache import cache_dir
from levelhead.toxicity.base import ToxicityScorer, score_texts

FORMAT = 1
FOLDER = "toxicity-scores"
"""In the cache folder; it may be deleted at any time."""


def score_texts_once(
    scorer: ToxicityScorer, texts: Sequence[str]
) -> tuple[Float[np.ndarray, "texts"], bool]:
    """(`score_texts` of these texts, whether the answer was on disk already).

    The kept answer is the same to the last bit. A cheap scorer is simply asked: reading its
    answers would take as long.

    Raises:
        ScorerError: as `score_texts`.
    """
    if scorer.cost == "cheap" or not texts:
        return score_texts(scorer, texts), False
    key = _key(scorer.identity, texts)
    path = cache_dir() / FOLDER / f"{key}.json"
    kept = _read(path, key, len(texts))
    if kept is not None:
        return kept, True
    scores = score_texts(scorer, texts)
    _write(path, key, scorer.identity, scores)
    return scores, False


def _key(identity: str, texts: Sequence[str]) -> str:
    question = json.dumps([FORMAT, identity, list(texts)])
    return hashlib.sha256(question.encode("ascii")).hexdigest()


def _checksum(key: str, scores: Float[np.ndarray, "texts"]) -> str:
    return hashlib.sha256(key.encode("ascii") + scores.astype("<f8").tobytes()).hexdigest()


def _read(path: Path, key: str, count: int) -> Float[np.ndarray, "texts"] | None:
    """The scores in a file; None where there is no such file, or one that is not as written."""
    try:
        kept = json.loads(path.read_bytes())
        scores = np.array(kept["scores"], dtype=np.float64)
        whole = scores.shape == (count,) and kept["sha256"] == _checksum(key, scores)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return scores if whole else None


def _write(path: Path, key: str, identity: str, scores: Float[np.ndarray, "texts"]) -> None:
    """Write beside the place and rename, so that no reader ever sees a part of it."""
    content = {"scorer": identity, "scores": scores.tolist(), "sha256": _checksum(key, scores)}
    # A full or read-only disk must not end a run whose scores are known.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump(content, file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
