"""Which output of a sequence classifier means "toxic", and how its logits become a probability.

Pure rules over a config's label names; knows no model, no tokenizer and no weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from levelhead.errors import ScorerError

Activation = Literal["sigmoid", "softmax"]

OVERALL = ("toxicity", "toxic")
"""Labels that name toxicity itself; where a model has one, it wins over every other label."""
KINDS = ("hate", "hateful", "hate speech", "hatespeech", "offensive", "abusive")
"""Labels that name one kind of it; taken where a model has exactly one of them."""


@dataclass(frozen=True, slots=True)
class ToxicOutput:
    """The output to read, its label, and how to read it."""

    index: int
    label: str
    activation: Activation


def find_toxic_output(
    model: str, id2label: Mapping[int, str], problem_type: str | None, wanted: str | None = None
) -> ToxicOutput:
    """The output of a classifier that means "toxic".

    Labels are compared without regard to case, and with "-" and "_" as spaces. In this order:

    1. `wanted`, the part after "#" of `MODEL#LABEL`;
    2. the only output, where there is one;
    3. the label "toxicity" or "toxic" (not "severe_toxic" and the like: these are kinds of it);
    4. the only label among "hate", "hateful", "hate speech", "offensive" and "abusive";
    5. LABEL_1 of two outputs named LABEL_0 and LABEL_1: by convention the second is the positive.

    The activation is the sigmoid for one output, for `multi_label_classification`, and where
    "toxic" and "severe_toxic" are both labels (they do not exclude each other); else the softmax.

    Raises:
        ScorerError: no label or several fit, or the outputs are no probabilities (regression).
    """
    labels = [id2label[index] for index in sorted(id2label)]
    if problem_type == "regression":
        raise ScorerError(
            f"{model!r} is a regression model: its output is not a probability in [0, 1]; "
            "choose a classifier with --scorer"
        )
    index = _pick(model, labels, wanted)
    return ToxicOutput(index, labels[index], _activation(labels, problem_type))


def _pick(model: str, labels: Sequence[str], wanted: str | None) -> int:
    plain = [_plain(label) for label in labels]
    if wanted is not None:
        if plain.count(_plain(wanted)) == 1:
            return plain.index(_plain(wanted))
        raise ScorerError(f"{model!r} has no label {wanted!r}; its labels are {_listed(labels)}")
    if len(plain) == 1:
        return 0
    for names in (OVERALL, KINDS):
        found = [i for i, label in enumerate(plain) if label in names]
        if len(found) == 1:
            return found[0]
        if found:
            break
    if plain == ["label 0", "label 1"]:
        return 1
    raise ScorerError(
        f"cannot tell which label of {model!r} means toxic: {_listed(labels)}; name it, as in "
        f"--scorer '{model}#{labels[-1]}'"
    )


def _activation(labels: Sequence[str], problem_type: str | None) -> Activation:
    if len(labels) == 1 or problem_type == "multi_label_classification":
        return "sigmoid"
    plain = {_plain(label) for label in labels}
    nested = plain & set(OVERALL) and plain & {f"severe {label}" for label in OVERALL}
    return "sigmoid" if problem_type is None and nested else "softmax"


def _plain(label: str) -> str:
    return " ".join(str(label).casefold().replace("_", " ").replace("-", " ").split())


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(repr(str(label)) for label in labels)
