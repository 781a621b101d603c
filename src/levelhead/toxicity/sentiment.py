"""VADER: sentiment by a lexicon of rated words and rules (MIT; Hutto and Gilbert, 2014), offline.

It knows negation, intensifiers and exclamation marks, in English, and nothing of whom a text is
about; of identity words its lexicon rates few ("blind" is negative to it). Negative is not toxic:
grief and bad weather are negative too. So this is another measure of what is written about
subgroups, not another measure of toxicity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScorerError, missing_extra
from levelhead.toxicity.base import ScorerCost

TESTED_VERSION = "3.3.2"
LEXICON = "vader_lexicon.txt"
TESTED_SHA256 = "1ec9c6e9ee19aade328f8beb393a6afa71a5bb3acf7d3cc22d4ef568df374bf5"


class Sentiment:
    """Negativity (1 - compound) / 2 in [0, 1]: 0 most positive, 0.5 neutral, 1 most negative.

    `compound` is VADER's own summary of a text, from -1 to 1.

    Raises:
        MissingExtraError: vaderSentiment is not installed.
        ScorerError: a version with another lexicon is.
    """

    name = "sentiment"
    identity = f"vader-negativity:{TESTED_VERSION}:{TESTED_SHA256[:16]}"
    cost: ScorerCost = "cheap"

    def __init__(self) -> None:
        _check_lexicon()
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self._analyzer = SentimentIntensityAnalyzer()

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Negativity of each text, in [0, 1]."""
        rate = self._analyzer.polarity_scores
        compound = np.fromiter((rate(text)["compound"] for text in texts), float, len(texts))
        out: Float[np.ndarray, " texts"] = (1 - compound) / 2
        return out


def _check_lexicon() -> None:
    spec = find_spec("vaderSentiment")
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra("The scorer 'sentiment'", "sentiment")
    path = Path(spec.submodule_search_locations[0]) / LEXICON
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != TESTED_SHA256:
        raise ScorerError(
            f"{path} is not the lexicon of vaderSentiment {TESTED_VERSION}, with which levelhead "
            f"was tested; pip install 'vaderSentiment=={TESTED_VERSION}'"
        )
