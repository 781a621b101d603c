"""toxicityclassifier 1.0.1: a linear classifier of character n-grams, offline, English (MIT).

    toxicity = sigmoid(b + w . x / |x|),   x: tf-idf of the 2- to 4-grams of every word's stem

It sees parts of words, so it knows misspellings, and neither word order nor negation. It fires on
fewer bare identity words than alt-profanity-check ("queer people": 0.13 against 0.98), but on some
("gay": 0.99). Texts in other languages are scored as if they were English: the package's Russian
model is not read.

The package's own code is never run: it needs corpora from the network. Its weights are pickles;
they are compared with known hashes and then read by an unpickler that can make numbers, texts and
containers and nothing else. Words are cut as the package cuts them, with the stemmer of NLTK
(Apache-2.0) and the stop words of its English list.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import string
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScorerError, missing_extra
from levelhead.toxicity.base import ScorerCost

TESTED_VERSION = "1.0.1"
TESTED_SHA256 = {
    "EnglishModel.bf": "a8f9baf209b6d70ffdbed0fa675cba66b5b89196f349708e9bc2ae265c5d1fcb",
    "EnglishVectorizer.bf": "7d23925dc039d3415711fa425ee4e1e6b4e54b56e045b2da3e9b71fa83730a74",
}
NGRAMS = (2, 4)
_ENGLISH = (
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself "
    "she her hers herself it its itself they them their theirs themselves what which who whom "
    "this that these those am is are was were be been being have has had having do does did doing "
    "a an the and but if or because as until while of at by for with about against between into "
    "through during before after above below to from up down in out on off over under again "
    "further then once here there when where why how all any both each few more most other some "
    "such no nor not only own same so than too very s t can will just don should now d ll m o re "
    "ve y ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn "
    "weren won wouldn"
)
STOP_WORDS = frozenset(_ENGLISH.split())
"""Those with an apostrophe cannot occur: punctuation is gone when words are compared."""

_TEXTS_PER_CALL = 20_000  # bounds the sparse matrix
_MOST_WORDS_KEPT = 200_000
_FIELDS: dict[str, dict[str, Any]] = {}
"""Of the tested files, which are read once a process: nobody may change them."""
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class CharNgrams:
    """`ToxicityClassificatorV1().get_probability` for English, many texts at a time.

    Raises:
        MissingExtraError: toxicityclassifier, nltk or scikit-learn is not installed.
        ScorerError: another version is, whose weights are not the tested ones.
    """

    name = "toxicityclassifier"
    identity = f"toxicityclassifier:{TESTED_VERSION}:{TESTED_SHA256['EnglishModel.bf'][:16]}"
    cost: ScorerCost = "cheap"

    def __init__(self) -> None:
        try:
            from nltk.stem.snowball import EnglishStemmer
            from nltk.tokenize import NLTKWordTokenizer
            from sklearn.feature_extraction.text import CountVectorizer
        except ImportError as err:
            raise missing_extra(f"The toxicity scorer {self.name!r}", self.name) from err
        model, vectorizer = _read("EnglishModel.bf"), _read("EnglishVectorizer.bf")
        self._counter = CountVectorizer(
            analyzer="char_wb", ngram_range=NGRAMS, vocabulary=vectorizer["vocabulary_"]
        )
        self._idf: Float[np.ndarray, " ngrams"] = vectorizer["_tfidf"]["_idf_diag"]["data"]
        self._weight: Float[np.ndarray, " ngrams"] = model["coef_"][0]
        self._intercept = float(model["intercept_"][0])
        self._words = _Words(EnglishStemmer(), NLTKWordTokenizer())
        self._forget()

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Probability that each text is toxic, in [0, 1]."""
        scores = np.empty(len(texts))
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            part = slice(start, start + _TEXTS_PER_CALL)
            scores[part] = self._score(texts[part])
        return scores

    def _score(self, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """n-grams do not cross words: those of a text are the sum of those of its words."""
        from scipy.sparse import csr_array

        if len(self._words) > _MOST_WORDS_KEPT:
            self._forget()
        stems: list[int] = []
        ends = [0]
        of = self._words.__getitem__
        for text in texts:
            words = text.lower().translate(_NO_PUNCTUATION).split()
            stems.extend(chain.from_iterable(map(of, words)))
            ends.append(len(stems))
        self._learn()
        shape = (len(texts), self._ngrams.shape[0])
        said = csr_array((np.ones(len(stems)), stems, ends), shape=shape)
        tf_idf = said @ self._ngrams
        tf_idf.data **= 2
        size = np.sqrt(tf_idf.sum(axis=1))
        found = (said @ self._evidence) / np.maximum(size, 1e-12)
        out: Float[np.ndarray, " texts"] = 1 / (1 + np.exp(-(found + self._intercept)))
        return out

    def _forget(self) -> None:
        from scipy.sparse import csr_array

        self._words.clear()
        self._ngrams = csr_array((0, len(self._idf)))
        """Of each stem known, its n-grams times their idf."""
        self._evidence: Float[np.ndarray, " stems"] = np.zeros(0)
        """Of each stem known, w . x before x is divided by |x|."""

    def _learn(self) -> None:
        """The n-grams of stems that came up since; a text's own are looked up from then on."""
        from scipy.sparse import csr_array, vstack

        new = list(self._words.stems)[self._ngrams.shape[0] :]
        if not new:
            return
        ngrams = csr_array(self._counter.transform(new), dtype=np.float64)
        ngrams.data *= self._idf[ngrams.indices]
        self._ngrams = csr_array(vstack([self._ngrams, ngrams], format="csr"))
        self._evidence = np.append(self._evidence, ngrams @ self._weight)


class _Words(dict[str, tuple[int, ...]]):
    """Words between white space to the numbers of their stems: mostly one, none of a stop word."""

    def __init__(self, stemmer: Any, tokenizer: Any) -> None:
        super().__init__()
        self.stems: dict[str, int] = {}
        """Stem to number, in the order in which they came up."""
        self._stemmer, self._tokenizer = stemmer, tokenizer

    def __missing__(self, word: str) -> tuple[int, ...]:
        found = tuple(
            self.stems.setdefault(self._stemmer.stem(token), len(self.stems))
            for token in self._tokens(word)
            if token not in STOP_WORDS
        )
        self[word] = found
        return found

    def clear(self) -> None:
        """Forget all words and stems."""
        super().clear()
        self.stems.clear()

    def _tokens(self, word: str) -> list[str]:
        """Without punctuation, of plain letters and digits only contractions are cut ("gonna")."""
        plain = word.isascii() and word.isalnum()
        if plain and not any(cut.search(f" {word} ") for cut in self._tokenizer.CONTRACTIONS2):
            return [word]
        tokens: list[str] = self._tokenizer.tokenize(word)
        return tokens


class _Fields:
    """What an object of scikit-learn or scipy becomes: its fields, without any of its code."""


def _empty(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """An array for the pickle to fill; what numpy itself calls `_reconstruct`."""
    return np.ndarray(shape, code)


_KNOWN: dict[tuple[str, str], Any] = {
    ("sklearn.linear_model._logistic", "LogisticRegression"): _Fields,
    ("sklearn.feature_extraction.text", "TfidfVectorizer"): _Fields,
    ("sklearn.feature_extraction.text", "TfidfTransformer"): _Fields,
    ("scipy.sparse._csr", "csr_matrix"): _Fields,
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "float64"): np.float64,
}


class _Reader(pickle.Unpickler):
    """Reads pickles of numbers and texts; anything that could run code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Only the names that the tested files hold, none of which does anything."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _KNOWN[module, name]


def read_fields(content: bytes) -> dict[str, Any]:
    """The fields of a pickled object, nested ones too, without running any code of its classes.

    Raises:
        pickle.UnpicklingError: it refers to a class or function that is not a known container.
    """
    fields: dict[str, Any] = _plain(_Reader(io.BytesIO(content)).load())
    return fields


def _plain(thing: Any) -> Any:
    if not isinstance(thing, _Fields):
        return thing
    return {name: _plain(value) for name, value in vars(thing).items()}


def _read(file: str) -> dict[str, Any]:
    spec = find_spec("toxicityclassifier")  # finds the package without running it
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra("The toxicity scorer 'toxicityclassifier'", "toxicityclassifier")
    path = Path(spec.submodule_search_locations[0]) / "models" / file
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != TESTED_SHA256[file]:
        raise ScorerError(
            f"{path} is not the file levelhead was tested with (only the weights of "
            f"toxicityclassifier {TESTED_VERSION} are read); "
            f"pip install 'toxicityclassifier=={TESTED_VERSION}'"
        )
    if file not in _FIELDS:
        _FIELDS[file] = read_fields(content)
    return _FIELDS[file]
