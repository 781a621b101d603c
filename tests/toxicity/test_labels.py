import pytest

from levelhead.errors import ScorerError
from levelhead.toxicity.labels import ToxicOutput, find_toxic_output

MULTI = "multi_label_classification"
UNITARY = ["toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat"]
JIGSAW = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


def find(labels, problem_type=None, wanted=None):
    return find_toxic_output("org/model", dict(enumerate(labels)), problem_type, wanted)


@pytest.mark.parametrize(
    ("labels", "problem_type", "expected"),
    [
        (UNITARY, MULTI, ToxicOutput(0, "toxicity", "sigmoid")),
        (UNITARY, None, ToxicOutput(0, "toxicity", "sigmoid")),
        (JIGSAW, None, ToxicOutput(0, "toxic", "sigmoid")),
        (["neutral", "toxic"], None, ToxicOutput(1, "toxic", "softmax")),
        (["TOXIC", "NON_TOXIC"], None, ToxicOutput(0, "TOXIC", "softmax")),
        (["NON-HATE", "HATE"], None, ToxicOutput(1, "HATE", "softmax")),
        (["normal", "Hate-Speech"], None, ToxicOutput(1, "Hate-Speech", "softmax")),
        (["non-offensive", "offensive"], None, ToxicOutput(1, "offensive", "softmax")),
        (["LABEL_0", "LABEL_1"], None, ToxicOutput(1, "LABEL_1", "softmax")),
        (["LABEL_0"], None, ToxicOutput(0, "LABEL_0", "sigmoid")),
        (["hate", "offensive", "toxic"], None, ToxicOutput(2, "toxic", "softmax")),
    ],
)
def test_rule(labels, problem_type, expected):
    assert find(labels, problem_type) == expected


@pytest.mark.parametrize(
    "labels",
    [
        ["hate", "normal", "offensive"],
        ["negative", "neutral", "positive"],
        ["LABEL_0", "LABEL_1", "LABEL_2"],
        ["not toxic", "very toxic"],
    ],
)
def test_ambiguous_labels_are_listed_with_the_way_to_pick_one(labels):
    with pytest.raises(ScorerError, match=f"--scorer 'org/model#{labels[-1]}'") as caught:
        find(labels)
    assert all(repr(label) in str(caught.value) for label in labels)


def test_the_wanted_label_wins_in_any_spelling():
    assert find(UNITARY, MULTI, "Severe-Toxicity") == ToxicOutput(1, "severe_toxicity", "sigmoid")
    assert find(["hate", "normal", "offensive"], None, "offensive").index == 2
    with pytest.raises(ScorerError, match="no label 'rude'; its labels are 'toxicity'"):
        find(UNITARY, MULTI, "rude")


def test_regression_is_refused():
    with pytest.raises(ScorerError, match="regression"):
        find(["toxicity"], "regression")
