"""The control sentences, and scorers that are refused because they tell nothing apart."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.toxicity.test_classifier import SIZE, save
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from levelhead.data.builtin_prompts import builtin_prompts
from levelhead.errors import ScorerError
from levelhead.toxicity import check_scorer, load_scorer
from levelhead.toxicity.composites import Masked, Over
from levelhead.toxicity.controls import controls

LABELS = {0: "ok", 1: "toxic"}


class Function:
    name = identity = "function"
    cost = "cheap"

    def __init__(self, score: Callable[[str], float]) -> None:
        self._score = score

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self._score(text) for text in texts])


def constant(text: str) -> float:
    return 0.25


def sees_idiot(text: str) -> float:
    return 0.9 if "idiot" in text else 0.1


def test_the_sentences_are_what_they_are_said_to_be() -> None:
    held = controls()
    assert len(held.frames) >= 12
    assert len(held.toxic) == len(held.ordinary) + len(held.sad)
    assert len(set(held.texts)) == len(held.texts)
    assert all(frame.count("{who}") == 1 for frame in held.frames)
    assert not any(frame.startswith("{who}") for frame in held.frames), "phrases are lower-case"
    names = {prompt.descriptor.lower() for prompt in builtin_prompts()}
    names |= {prompt.subgroup for prompt in builtin_prompts()} | {"black", "gay", "muslim", "deaf"}
    said = " ".join(held.texts).lower()
    assert [name for name in names if re.search(rf"\b{re.escape(name)}\b", said)] == []


@pytest.mark.parametrize("wrap", [lambda s: s, Over, lambda s: Masked(s, ["women"])])
def test_a_scorer_of_one_value_is_refused_and_another_is_not(wrap) -> None:
    with pytest.raises(ScorerError, match=r"gives one value, 0(\.25)?, for all of 96 English"):
        check_scorer(wrap(Function(constant)))
    with pytest.raises(ScorerError, match="one value"):  # a difference of rounding is none
        check_scorer(wrap(Function(lambda text: 0.25 + 1e-9 * len(text))))
    check_scorer(wrap(Function(sees_idiot)))


def test_texts_of_the_users_own_may_be_what_it_tells_apart() -> None:
    german = Function(lambda text: 0.9 if "Dummkopf" in text else 0.1)
    with pytest.raises(ScorerError, match="one value"):
        check_scorer(german)
    with pytest.raises(ScorerError, match=r"96 English control sentences and 2 texts of yours"):
        check_scorer(german, ["Guten Tag", "Gute Nacht"])
    check_scorer(german, ["Guten Tag", "du Dummkopf"])


def test_the_contract_is_checked_too() -> None:
    with pytest.raises(ScorerError, match="must be a finite number"):
        check_scorer(Function(lambda text: float(len(text))))


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A trained classifier's folder, as far as its files go; its tokenizer knows w0 to w29."""
    torch.manual_seed(0)  # only the weights of this checkpoint
    return save(BertForSequenceClassification(BertConfig(id2label=LABELS, **SIZE)), tmp_path)


def test_a_classifier_without_its_tokenizer_is_refused(classifier: Path) -> None:
    for file in classifier.glob("tokenizer*"):
        file.unlink()
    made = AutoTokenizer.from_pretrained(classifier)
    assert made("You idiot").input_ids[1:-1] == [made.unk_token_id] * 2  # what is to be refused
    with pytest.raises(ScorerError, match=r"every word of every text is unknown .*save_pretrained"):
        load_scorer(str(classifier))
    with pytest.raises(ScorerError, match="no usable tokenizer"):
        load_scorer(f"over-0.5:{classifier}")


def test_a_classifier_that_knows_no_word_is_refused(classifier: Path) -> None:
    scorer = load_scorer(str(classifier))
    assert scorer.unknown_share(["w1 idiot", "you"]) == pytest.approx(2 / 3)
    with pytest.raises(ScorerError, match="knows none of the words of 96 English"):
        check_scorer(scorer)
    with pytest.raises(ScorerError, match="knows none of the words"):
        check_scorer(load_scorer(f"over-0.5:{classifier}"))
    check_scorer(scorer, ["w1 w2 w3", "w4"])  # the user's texts are in its language


@pytest.mark.parametrize("name", ["profanity-check", "toxicityclassifier", "sentiment"])
def test_the_offline_scorers_pass(name: str) -> None:
    package = {"profanity-check": "profanity_check", "sentiment": "vaderSentiment"}.get(name, name)
    pytest.importorskip("nltk" if name == "toxicityclassifier" else package)
    check_scorer(load_scorer(name))
    check_scorer(load_scorer(f"over-0.5:{name}"))
