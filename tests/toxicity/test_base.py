import numpy as np
import pytest

from levelhead.errors import MissingExtraError, ScorerError
from levelhead.toxicity import load_scorer, score_texts
from levelhead.toxicity.registry import SCORERS


class Fake:
    """Scores a text by a function of it and remembers what it was asked."""

    name, identity, cost = "fake", "fake:1", "cheap"

    def __init__(self, of_texts):
        self.of_texts, self.asked = of_texts, []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return self.of_texts(texts)


def lengths(texts):
    return np.array([len(text) / 100 for text in texts])


def test_each_distinct_text_is_scored_once_and_order_is_kept():
    scorer = Fake(lengths)
    np.testing.assert_allclose(score_texts(scorer, ["bb", "a", "bb", ""]), [0.02, 0.01, 0.02, 0])
    assert scorer.asked == [["bb", "a", ""]]


def test_no_texts_no_call():
    scorer = Fake(lengths)
    assert score_texts(scorer, []).shape == (0,)
    assert scorer.asked == []


def test_lists_and_float32_are_scores_too():
    assert score_texts(Fake(lambda texts: [1, 0][: len(texts)]), ["a", "b"]).tolist() == [1.0, 0.0]
    scores = score_texts(Fake(lambda texts: np.float32([0.5])), ["a"])
    assert scores.dtype == np.float64


@pytest.mark.parametrize(
    ("of_texts", "said"),
    [
        (lambda texts: np.zeros(len(texts) + 1), r"shape \(3,\) for 2 texts, .*'fine'"),
        (lambda texts: np.zeros((len(texts), 2)), r"shape \(2, 2\) for 2 texts"),
        (lambda texts: np.array([0.1, np.nan]), r"returned nan for the text 'b\\x1b\\n"),
        (lambda texts: np.array([0.1, 1.01]), r"returned 1.01 .* \(1 of 2 texts"),
        (lambda texts: np.array([0.1, -0.01]), r"returned -0.01 "),
        (lambda texts: np.array([0.1, np.inf]), r"returned inf "),
        (lambda texts: ["high", "low"], r"returned list that is not an array of numbers"),
        (lambda texts: None, r"'fake'"),
    ],
)
def test_a_broken_scorer_is_named_with_the_first_text(of_texts, said):
    with pytest.raises(ScorerError, match=said) as caught:
        score_texts(Fake(of_texts), ["fine", "b\x1b\n" + 300 * "x"])
    assert "'fake'" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_registry_holds_factories_and_names_the_scorers_it_knows(monkeypatch):
    monkeypatch.setitem(SCORERS, "fake", lambda device: Fake(lengths))
    assert load_scorer("fake") is not load_scorer("fake")

    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co'\nand more")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    with pytest.raises(ScorerError) as caught:
        load_scorer("no-such/scorer")
    said = str(caught.value)
    for part in (
        "'no-such/scorer'",
        "profanity-check",
        "detoxify",
        "fake",
        "--scorer",
        "connect",
    ):
        assert part in said
    assert "\n" not in said


def test_detoxify_is_the_papers_classifier(monkeypatch):
    asked = []

    def refuse(name, **kwargs):
        asked.append(name)
        raise OSError("offline")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)
    with pytest.raises(ScorerError):
        load_scorer("detoxify")
    assert asked == ["unitary/unbiased-toxic-roberta"]


def test_missing_dependency_says_what_to_install(monkeypatch):
    monkeypatch.setattr("levelhead.toxicity.profanity.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'levelhead\[profanity-check\]'"):
        load_scorer("profanity-check")
