"""Confirming and naive ablation, on a tiny model whose biased head is known and strong."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.naive_ablation import by_naive_ablation
from benchmarks.planted_heads import TOP, TOXICITY, _recall
from benchmarks.planted_text import confirm, mentions, of_target, scaled
from benchmarks.planting import PlantedHead, head_outputs, planted, reading_direction

from levelhead.progress import silent
from levelhead.records import Prompt
from levelhead.scoring.problem import BiasProblem, sample_texts
from levelhead.scoring.teacher_forcing import Row
from levelhead.testing import PlantedModel, planted_model
from levelhead.toxicity import Masker

TEMPLATES = (
    "I think {} are", "my friend said {} work", "they say {} always", "all {} here are",
    "we met {} and they", "some {} live in town and", "people like {}", "I love {} and",
)  # fmt: skip


class WordScorer:
    """Toxicity 0.9 for a text with the word in it, 0.1 for any other."""

    name = identity = "word"
    cost = "cheap"

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([0.9 if self.word in text.lower().split() else 0.1 for text in texts])


@pytest.fixture(scope="module")
def known() -> PlantedModel:
    found = planted_model()
    found.model.requires_grad_(False)
    return found


@pytest.fixture(scope="module")
def problem(known: PlantedModel) -> BiasProblem:
    prompts = [
        Prompt(
            id=f"{name}/{t}",
            text=text.format(name),
            axis="gender",
            subgroup=name,
            template=f"t{t}",
            descriptor=name,
            split="validation",
        )
        for t, text in enumerate(TEMPLATES)
        for name in ("women", "men", "person")
    ]
    scorer = WordScorer(known.toxic_word)
    return BiasProblem.of(known.model, known.tokenizer, scorer, prompts, new_tokens=6)


def head_at(place: tuple[int, int]) -> PlantedHead:
    """Nothing added: the head is as it is in the known model."""
    layer, head = place
    return PlantedHead(layer=layer, head=head, reads=torch.ones(8), writes=torch.ones(48), gain=0)


def test_the_known_head_is_confirmed_and_another_is_not(problem, known) -> None:
    layer, head = known.head
    women = problem.subgroups.index("women")
    heads = [head_at(known.head), head_at((layer, (head + 1) % 6))]
    own, other = confirm(problem, women, heads, (25, 15))
    assert own["confirmed"]
    assert own["interval"][0] < own["effect"] < own["interval"][1]
    assert own["effect"] > 0.3
    assert abs(other["effect"]) < own["effect"] / 3
    # Control: there is nothing to confirm where the head does not raise toxicity.
    (unaffected,) = confirm(problem, problem.subgroups.index("men"), heads[:1], (25, 15))
    assert not unaffected["confirmed"] or unaffected["effect"] < own["effect"] / 3


def test_every_row_of_naive_ablation_has_its_own_head_ablated(problem, known) -> None:
    """An effect this large shows in a single continuation per subgroup."""
    places = []
    for number in range(4):  # four groups of matched prompts
        effect, details = by_naive_ablation(problem, number)
        order = np.argsort(-effect, axis=None)
        places.append(int(np.flatnonzero(order == known.head[0] * 6 + known.head[1])[0]))
        assert details["texts"] == effect.size * 3
    assert np.median(places) == 0


def reader_of_men(men, known, word: str, gain: float) -> PlantedHead:
    """A head of the tiny model that reads prompts about men and writes a word."""
    outputs = head_outputs(known.model, [Row(ids, (5, 6, 7), 0) for ids in men.prompt_ids], 0)
    token = known.tokenizer.get_vocab()[f"▁{word}"]
    return PlantedHead(
        layer=2,
        head=0,
        reads=reading_direction(outputs.output[:, 2, 0], outputs.subgroup, 0),
        writes=known.model.get_parameter("lm_head.weight")[token].clone(),
        gain=gain,
    )


def test_gains_are_scaled_by_what_is_sampled(problem, known) -> None:
    men = of_target(problem, problem.subgroups.index("men"))
    start = reader_of_men(men, known, known.toxic_word, gain=0.05)
    (found,) = scaled(men, [start], TOXICITY)
    before = sample_texts(men, silent, "").toxicity.mean()
    with planted(known.model, [found]):
        toxicity = sample_texts(men, silent, "").toxicity.mean()
    assert before < 0.25  # men are not the subgroup of the known head
    assert found.gain != start.gain
    assert 0.25 < toxicity < 0.85


def test_a_gain_can_be_scaled_by_how_often_a_group_is_named(problem, known) -> None:
    """And what names the group is confirmed by it."""
    code = problem.subgroups.index("men")
    asked = replace(problem, names={"men": Masker({"men": "plural"})})
    men = of_target(asked, code)
    start = reader_of_men(men, known, "men", gain=4.0)
    (found,) = scaled(men, [start], (0.3, 0.7), mentions)
    with planted(known.model, [found]):
        assert mentions(men, sample_texts(men, silent, "")).mean() > 0.1
        (told,) = confirm(asked, code, [found], (25, 25), mentions)
    assert told["confirmed"]
    (nothing,) = confirm(asked, code, [found], (25, 25), mentions)  # control: it is not planted
    assert not nothing["confirmed"] or nothing["effect"] < told["effect"] / 2


def test_recall_counts_the_confirmed_heads_among_the_first_ten() -> None:
    effect = np.zeros((4, 10))
    effect[0] = np.arange(10, 0, -1)  # ten heads in front
    found = _recall(effect, [(0, 0), (0, 9), (3, 3)], [True, False, True])
    assert found["ranks"][:2] == [1, TOP]
    assert found["ranks"][2] > TOP
    assert found["recall_of_confirmed"] == 1 / 2
    assert found["recall_of_planted"] == 2 / 3
