"""Expensive answers are paid for once, are never mixed up, and survive damage to their files."""

import json

import numpy as np
import pytest

from levelhead.toxicity import score_texts_once
from levelhead.toxicity.score_cache import FOLDER


class Counting:
    """Scores with digits that only a lossless file keeps; counts the texts it is asked about."""

    name = "counting"

    def __init__(self, identity: str = "counting:1", cost: str = "expensive") -> None:
        self.identity, self.cost, self.asked = identity, cost, 0

    def __call__(self, texts):
        self.asked += len(texts)
        return np.array([1 / (3 + len(text)) for text in texts])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path))
    return tmp_path / FOLDER


TEXTS = ["a", "ab\nc", "naïve \ud800", "a"]


def test_the_second_time_nothing_is_asked_and_every_bit_is_the_same():
    scorer = Counting()
    first, kept = score_texts_once(scorer, TEXTS)
    assert (kept, scorer.asked) == (False, 3)  # "a" is asked once
    fresh = Counting()
    second, kept = score_texts_once(fresh, TEXTS)
    assert (kept, fresh.asked) == (True, 0)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize(
    ("identity", "texts"),
    [
        ("counting:2", TEXTS),
        ("counting:1", TEXTS[:3]),
        ("counting:1", TEXTS[::-1]),
        ("counting:1", ["a", "ab c", *TEXTS[2:]]),
    ],
)
def test_another_scorer_or_other_texts_are_another_question(identity, texts):
    score_texts_once(Counting(), TEXTS)
    scorer = Counting(identity)
    scores, kept = score_texts_once(scorer, texts)
    assert not kept
    assert scorer.asked == len(set(texts))
    assert scores.tolist() == [1 / (3 + len(text)) for text in texts]


def damaged(content: bytes) -> list[bytes]:
    kept = json.loads(content)
    return [
        b"",
        content[: len(content) // 2],
        b"[]",
        b"null",
        json.dumps(kept | {"scores": [0.5] * 4}).encode(),  # numbers, but not those written
        json.dumps(kept | {"scores": kept["scores"][:3]}).encode(),
        json.dumps(kept | {"scores": {"0": 1}}).encode(),
        json.dumps({"scores": kept["scores"]}).encode(),
        b"\xff\xfe",
    ]


@pytest.mark.parametrize("damage", range(9))
def test_a_damaged_file_is_asked_for_again_and_repaired(folder, damage):
    expected, _ = score_texts_once(Counting(), TEXTS)
    (file,) = folder.iterdir()
    written = file.read_bytes()
    file.write_bytes(damaged(written)[damage])
    scores, kept = score_texts_once(Counting(), TEXTS)
    assert not kept
    np.testing.assert_array_equal(scores, expected)
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert file.read_bytes() == written


def test_a_file_under_another_name_is_no_answer(folder):
    score_texts_once(Counting(), TEXTS)
    (first,) = folder.iterdir()
    score_texts_once(Counting(), TEXTS[::-1])
    (second,) = set(folder.iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    assert score_texts_once(Counting(), TEXTS[::-1])[1] is False


def test_a_cheap_scorer_leaves_no_file(folder):
    for _ in range(2):
        scorer = Counting(cost="cheap")
        _, kept = score_texts_once(scorer, TEXTS)
        assert (kept, scorer.asked) == (False, 3)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_only_costs_a_repetition(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.setenv("LEVELHEAD_CACHE", str(file))
    for _ in range(2):
        scores, kept = score_texts_once(Counting(), TEXTS)
        assert not kept
        assert len(scores) == 4


def test_an_answer_that_breaks_off_leaves_nothing(folder):
    class Interrupted(Counting):
        def __call__(self, texts):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_texts_once(Interrupted(), TEXTS)
    assert not folder.exists()


def test_no_texts_need_no_file(folder):
    scores, kept = score_texts_once(Counting(), [])
    assert (len(scores), kept) == (0, False)
    assert not folder.exists()
