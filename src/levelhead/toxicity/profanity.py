"""alt-profanity-check: a linear classifier of words, fast, offline, English (MIT).

It counts words, so it knows neither context nor negation, and rates some identity words as
toxic in themselves. Scores one thread at tens of thousands of short texts a second.

Its model is a pickle inside the dependency, and importing the dependency unpickles it. The files
are therefore compared with known hashes first: only the tested ones are ever loaded.
"""

import hashlib
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScorerError, missing_extra
from levelhead.toxicity.base import ScorerCost

TESTED_VERSION = "1.9.1"
TESTED_SHA256 = {
    "model.joblib": "aeafc04849d4d93db4721cf30a86ebf22085595294b8a07d51918e7fa98f538b",
    "vectorizer.joblib": "19c5200dc6a41f026e0558e2f164f5fe8d8f58e502b46b37e4385037fcfa4831",
}

_TEXTS_PER_CALL = 20_000  # bounds the sparse matrix; larger calls are no faster


class ProfanityCheck:
    """`profanity_check.predict_prob`, without its loop in Python over the texts.

    Raises:
        MissingExtraError: alt-profanity-check is not installed.
        ScorerError: another version of it is, whose model files are not the tested ones.
    """

    name = "profanity-check"
    identity = f"profanity-check:{TESTED_VERSION}:{TESTED_SHA256['model.joblib'][:16]}"
    cost: ScorerCost = "cheap"

    def __init__(self) -> None:
        self._vectorizer, self._model = _load()

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "texts"]:
        """Probability that each text is profane, in [0, 1]."""
        scores = np.empty(len(texts))
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            part = slice(start, start + _TEXTS_PER_CALL)
            counts = self._vectorizer.transform(texts[part])
            scores[part] = self._model.predict_proba(counts)[:, 1]
        return scores


def _load() -> tuple[Any, Any]:
    """The library's own vectorizer and model, once their files are known to be the tested ones."""
    spec = find_spec("profanity_check")  # finds the package without running it
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra("The toxicity scorer 'profanity-check'", "profanity-check")
    _check_files(Path(spec.submodule_search_locations[0]) / "data")
    with warnings.catch_warnings():
        # scikit-learn warns when it unpickles a model of another of its versions; the scores of
        # the tested files are compared with recorded ones in the tests instead.
        warnings.simplefilter("ignore")
        from profanity_check import profanity_check as library
    return library.vectorizer, library.model


def _check_files(folder: Path) -> None:
    for file, expected in TESTED_SHA256.items():
        path = folder / file
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == expected:
            continue
        try:
            found = f"alt-profanity-check {version('alt-profanity-check')}"
        except PackageNotFoundError:
            found = "a package named profanity_check"
        raise ScorerError(
            f"{path} of {found} is not the file levelhead was tested with (it is a pickle, which "
            f"can run code, so only alt-profanity-check {TESTED_VERSION} is loaded); "
            f"pip install 'alt-profanity-check=={TESTED_VERSION}'"
        )
