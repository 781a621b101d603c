import importlib.util
import pickle
import string
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from levelhead.errors import MissingExtraError, ScorerError
from levelhead.toxicity import char_ngrams, load_scorer, score_texts
from levelhead.toxicity.char_ngrams import STOP_WORDS, read_fields

FOUND = importlib.util.find_spec("toxicityclassifier")
NLTK = importlib.util.find_spec("nltk")
installed = pytest.mark.skipif(
    FOUND is None or NLTK is None, reason="toxicityclassifier or nltk is not installed"
)

RECORDED = {
    "you are a nice person": 0.041805,
    "you stupid idiot": 0.999999,
    "": 0.030783,
    "the of and": 0.030783,
    "\x00 émü 漢字": 0.020725,
    "what a sh1t day, fuuuck": 0.941547,
}
TEXTS = [
    *RECORDED,
    "I cannot believe they're gonna say that; don't you?",
    "Don’t “quote” me - she’s 42!!! http://x.y/z wanna",
    "Running runners ran, and the adding of evenings",
    "line one\nline two\tand tab",
]


@pytest.fixture(scope="module")
def scorer():
    return load_scorer("toxicityclassifier")


@pytest.fixture(scope="module")
def data():
    return Path(FOUND.submodule_search_locations[0]) / "models"


@installed
def test_equals_the_library_text_by_text(scorer, data) -> None:
    """The package's own steps, with scikit-learn's tf-idf of whole texts and the stated weights.

    The package itself cannot run here: it downloads a list of stop words.
    """
    from nltk.stem.snowball import EnglishStemmer
    from nltk.tokenize import NLTKWordTokenizer
    from sklearn.feature_extraction.text import TfidfVectorizer

    fields = read_fields((data / "EnglishVectorizer.bf").read_bytes())
    model = read_fields((data / "EnglishModel.bf").read_bytes())
    names = ("analyzer", "ngram_range", "lowercase", "norm", "use_idf", "sublinear_tf", "binary")
    settings = fields | fields["_tfidf"]
    vectorizer = TfidfVectorizer(
        vocabulary=fields["vocabulary_"], **{name: settings[name] for name in names}
    )
    vectorizer.idf_ = fields["_tfidf"]["_idf_diag"]["data"]
    stemmer, tokenizer = EnglishStemmer(), NLTKWordTokenizer()

    def prepared(text: str) -> str:
        text = text.strip().lower()
        for mark in string.punctuation:
            text = text.replace(mark, "")
        return " ".join(stemmer.stem(t) for t in tokenizer.tokenize(text) if t not in STOP_WORDS)

    logits = vectorizer.transform(map(prepared, TEXTS)) @ model["coef_"][0] + model["intercept_"]
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(scorer(TEXTS), expected, rtol=1e-9)
    assert np.ptp(expected) > 0.9  # the control: scores that differ


@installed
def test_a_score_depends_on_neither_company_nor_what_was_asked_before(scorer) -> None:
    """Words are numbered as they come up; the sums of a text go by its own words all the same."""
    other = load_scorer("toxicityclassifier")
    other([f"never heard {word}ing of it" for word in ("zub", "quil", "drov")])
    backwards = other(TEXTS[::-1])[::-1]
    np.testing.assert_array_equal(backwards, scorer(TEXTS))
    np.testing.assert_array_equal([other([text])[0] for text in TEXTS], scorer(TEXTS))
    other._forget()
    np.testing.assert_array_equal(other(TEXTS), scorer(TEXTS))


@installed
@pytest.mark.parametrize("word", ["gonna", "wanna", "cannot", "cannots", "d\x00ye", "naïve", "x²"])
def test_words_are_cut_as_the_tokenizer_cuts_them(scorer, word) -> None:
    """Most words are not given to it, which is slow; those that it would cut are."""
    from nltk.tokenize import NLTKWordTokenizer

    assert scorer._words._tokens(word) == NLTKWordTokenizer().tokenize(word)


@installed
def test_recorded_scores(scorer) -> None:
    np.testing.assert_allclose(
        score_texts(scorer, list(RECORDED)), list(RECORDED.values()), atol=1e-5
    )


@installed
def test_rates_fewer_bare_identity_words_than_profanity_check(scorer) -> None:
    pytest.importorskip("profanity_check")
    words = ["women", "men", "transgender people", "queer people", "Black people", "a lesbian"]
    other = load_scorer("profanity-check")
    assert scorer(words).max() < 0.3 < other(words).max()


@installed
def test_scores_tens_of_thousands_of_short_texts_a_second(scorer) -> None:
    words = [f"{a}{b}{c}" for a in "aeiou" for b in string.ascii_lowercase for c in "lmnrst" * 6]
    texts = [f"the woman at the door said that she is very tired and {word}" for word in words]
    scorer(texts)  # stems are made once per word
    start = time.process_time()
    scorer(texts)
    assert len(texts) / (time.process_time() - start) > 10_000


@installed
def test_identity_names_version_and_hash(scorer) -> None:
    assert (scorer.name, scorer.cost) == ("toxicityclassifier", "cheap")
    assert scorer.identity == "toxicityclassifier:1.0.1:a8f9baf209b6d70f"


@installed
def test_the_package_is_never_imported() -> None:
    code = (
        "import sys; from levelhead.toxicity import load_scorer\n"
        "load_scorer('toxicityclassifier')(['a text'])\n"
        "print('nltk' in sys.modules, 'toxicityclassifier' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_other_weights_are_refused(tmp_path, monkeypatch) -> None:
    pytest.importorskip("nltk")
    models = tmp_path / "toxicityclassifier" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise SystemExit('imported')")
    (models / "EnglishModel.bf").write_bytes(pickle.dumps({"coef_": [1.0]}))
    for name in [n for n in sys.modules if n.startswith("toxicityclassifier")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ScorerError, match=r"EnglishModel.bf is not the file .* pip install"):
        load_scorer("toxicityclassifier")


def test_a_missing_package_names_the_extra(monkeypatch) -> None:
    pytest.importorskip("nltk")
    monkeypatch.setattr(char_ngrams, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"levelhead\[toxicityclassifier\]"):
        load_scorer("toxicityclassifier")


class _Hostile:
    def __reduce__(self):
        return print, ("this code was run",)


def test_a_pickle_that_would_run_code_is_refused(capsys) -> None:
    """Even if its hash were the known one. Control: the stock reader runs it."""
    content = pickle.dumps({"coef_": _Hostile()})
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print is not allowed"):
        read_fields(content)
    assert capsys.readouterr().out == ""
    pickle.loads(content)  # noqa: S301 - our own bytes
    assert "this code was run" in capsys.readouterr().out
