"""A scorer over a threshold, and one that does not see identity words."""

import re

import numpy as np
import pytest

from levelhead.errors import ScorerError
from levelhead.toxicity import load_scorer, registry, score_texts, score_texts_once
from levelhead.toxicity.composites import Masked, Over


class Words:
    """0.4 for "women" in the text, 0.5 more for "idiot"."""

    name = "words"
    identity = "words:1"
    cost = "expensive"

    def __call__(self, texts):
        return np.array([0.4 * ("women" in t.lower()) + 0.5 * ("idiot" in t) for t in texts])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path))


@pytest.fixture
def words(monkeypatch):
    monkeypatch.setitem(registry.SCORERS, "words", lambda device: Words())


def test_over_is_the_share_over_one_half() -> None:
    texts = ["women", "idiot", "women idiot", ""]
    assert score_texts(Words(), texts).tolist() == pytest.approx([0.4, 0.5, 0.9, 0.0])
    assert score_texts(Over(Words()), texts).tolist() == [0, 0, 1, 0]  # 0.5 is not over 0.5


def test_an_expensive_scorer_is_not_asked_twice_for_another_form_of_it() -> None:
    asked = []

    class Counted(Words):
        def __call__(self, texts):
            asked.append(len(texts))
            return super().__call__(texts)

    texts = ["women", "women idiot", ""]
    plain, _ = score_texts_once(Counted(), texts)
    over, _ = score_texts_once(Over(Counted()), texts)
    assert asked == [3]
    assert over.tolist() == (plain > 0.5).tolist()
    score_texts_once(Over(Counted()), [*texts, "more"])
    assert asked == [3, 4]


def test_masking_takes_away_what_the_identity_word_adds() -> None:
    texts = ["Women are idiot", "they are idiot", "womenfolk"]
    plain, masked = score_texts(Words(), texts), score_texts(Masked(Words(), ["women"]), texts)
    assert plain.tolist() == pytest.approx([0.9, 0.5, 0.4])
    assert masked.tolist() == pytest.approx([0.5, 0.5, 0.4])  # whole words only


@pytest.mark.usefixtures("words")
def test_names_nest_and_the_identity_says_what_was_masked() -> None:
    scorer = load_scorer("over-0.5:masked:words", terms=["Men", "women"])
    assert scorer.name == "over-0.5:masked:words"
    assert re.fullmatch(r"over-0\.5:masked:[0-9a-f]{16}:words:1", scorer.identity)
    assert scorer.cost == "expensive"
    same = load_scorer("over-0.5:masked:words", terms=["women", "men", "men"])
    other = load_scorer("over-0.5:masked:words", terms=["women"])
    assert scorer.identity == same.identity != other.identity
    assert score_texts(scorer, ["women idiot"]).tolist() == [0]
    unmasked = load_scorer("over-0.5:words")
    assert score_texts(unmasked, ["women idiot"]).tolist() == [1]


@pytest.mark.usefixtures("words")
def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ScorerError, match="masked:words has no identity words to mask"):
        load_scorer("masked:words")
    with pytest.raises(ScorerError, match="name one after masked:"):
        load_scorer("masked:")
    with pytest.raises(ScorerError, match=r"over-0\.5:NAME"):
        load_scorer("over-0.5:no/such-folder/scorer")
