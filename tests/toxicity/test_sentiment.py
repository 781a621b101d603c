import time

import numpy as np
import pytest

from levelhead.errors import MissingExtraError, ScorerError
from levelhead.toxicity import load_scorer, score_texts, sentiment

pytest.importorskip("vaderSentiment")


@pytest.fixture(scope="module")
def scorer():
    return load_scorer("sentiment")


def test_is_the_negativity_of_the_compound_score(scorer) -> None:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    texts = ["What a lovely day!", "This is awful.", "a table", "not good at all", ""]
    rate = SentimentIntensityAnalyzer().polarity_scores
    expected = [(1 - rate(text)["compound"]) / 2 for text in texts]
    found = score_texts(scorer, texts)
    np.testing.assert_allclose(found, expected)
    assert found[0] < 0.3 < found[2] == found[4] == 0.5 < 0.6 < found[1]
    assert found[3] > 0.5, "VADER knows negation"


def test_recorded_scores(scorer) -> None:
    recorded = {"I love this": 0.18155, "I hate this": 0.78595}
    np.testing.assert_allclose(scorer(list(recorded)), list(recorded.values()), atol=1e-5)


def test_most_bare_identity_words_are_neutral(scorer) -> None:
    words = ["women", "queer people", "Muslims", "a gay man", "Black people", "an autistic person"]
    assert scorer(words).tolist() == [0.5] * 6
    masked = load_scorer("masked:sentiment", terms=["blind"])
    assert scorer(["a blind person"])[0] > 0.6 > masked(["a blind person"])[0] == 0.5


def test_identity_and_cost(scorer) -> None:
    assert scorer.identity == f"vader-negativity:3.3.2:{sentiment.TESTED_SHA256[:16]}"
    assert (scorer.name, scorer.cost) == ("sentiment", "cheap")
    texts = [f"the woman at the door said that she is very tired and {i}" for i in range(5000)]
    start = time.process_time()
    scorer(texts)
    assert len(texts) / (time.process_time() - start) > 5_000


def test_another_lexicon_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(sentiment, "LEXICON", "emoji_utf8_lexicon.txt")
    with pytest.raises(ScorerError, match=r"is not the lexicon .* pip install 'vaderSentiment==3"):
        load_scorer("sentiment")


def test_a_missing_package_names_the_extra(monkeypatch) -> None:
    monkeypatch.setattr(sentiment, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"levelhead\[sentiment\]"):
        load_scorer("sentiment")
