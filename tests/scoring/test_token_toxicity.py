"""tau is the mean rise of toxicity; an expensive scorer is asked each question once."""

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from levelhead.errors import ModelError, ScorerError
from levelhead.records import Prompt
from levelhead.scoring import token_toxicity
from levelhead.scoring.problem import BiasProblem
from levelhead.scoring.token_toxicity import measure_token_toxicity, word_tokens
from levelhead.testing import tiny_tokenizer


class Scorer:
    """0.9 with "idiot" in the text, 0.5 with "damn", else 0.1 and a bit for each word."""

    name = "words"

    def __init__(self, cost: str = "expensive", identity: str = "words:1") -> None:
        self.cost, self.identity, self.asked = cost, identity, 0

    def __call__(self, texts):
        self.asked += len(texts)
        known = {"idiot": 0.9, "damn": 0.5}
        return np.array(
            [max([0.1, *(known.get(word, 0.1) for word in text.split())]) for text in texts]
        )


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def even(tokenizer):
    return np.full(len(tokenizer), 1 / len(tokenizer))


def measured(scorer, tokenizer, contexts, mass=None):
    return measure_token_toxicity(
        scorer, tokenizer, contexts, even(tokenizer) if mass is None else mass
    )


def test_tau_is_the_mean_rise_over_contexts(tokenizer):
    tau = measured(Scorer("cheap"), tokenizer, [["they are", "you damn"], ["a"]])
    ids = tokenizer.convert_tokens_to_ids(["▁idiot", "▁damn"])
    column = {int(token): tau.tau[:, i] for i, token in enumerate(tau.token_ids)}
    np.testing.assert_allclose(column[ids[0]], [(0.8 + 0.4) / 2, 0.8])
    np.testing.assert_allclose(column[ids[1]], [0.4 / 2, 0.4])
    assert set(column) == set(ids), "tokens that change nothing are left out"
    assert (tau.row(0), tau.row(1)) == (0, 1)


def test_a_context_drawn_twice_is_asked_about_once(tokenizer):
    scorer = Scorer("cheap")
    steps: list[int] = []
    tau = measure_token_toxicity(
        scorer, tokenizer, [["a", "a", "b"], ["a"]], even(tokenizer), steps.append
    )
    size = len(word_tokens(tokenizer)) + 1
    assert scorer.asked == tau.classifier_calls == 2 * size
    assert tau.classifier_calls_cached == 0
    assert sum(steps) == 4, "progress counts what was planned"


def test_a_repeated_run_asks_nothing_and_gives_the_same_bits(tokenizer):
    contexts = [["they are", "we"]]
    first = measured(Scorer(), tokenizer, contexts)
    scorer = Scorer()
    again = measured(scorer, tokenizer, contexts)
    assert scorer.asked == 0
    assert again.classifier_calls_cached == again.classifier_calls == first.classifier_calls
    assert first.classifier_calls_cached == 0
    assert again.tau.tobytes() == first.tau.tobytes()
    np.testing.assert_array_equal(again.token_ids, first.token_ids)


@pytest.mark.parametrize("other", ["scorer", "context", "vocabulary", "mass"])
def test_another_question_is_asked(tokenizer, other):
    contexts = [["they are"]]
    measured(Scorer(), tokenizer, contexts)
    scorer = Scorer(identity="words:2" if other == "scorer" else "words:1")
    mass = even(tokenizer)
    if other == "context":
        contexts = [["they were"]]
    elif other == "vocabulary":
        tokenizer = tiny_tokenizer(["fool"])
        mass = even(tokenizer)
    elif other == "mass":
        mass[tokenizer.convert_tokens_to_ids("▁people")] = 0.5  # another order of the words
    tau = measured(scorer, tokenizer, contexts, mass)
    assert scorer.asked == tau.classifier_calls > 0
    assert tau.classifier_calls_cached == 0


def test_an_interrupted_run_keeps_the_contexts_it_has_paid_for(tokenizer):
    class Breaks(Scorer):
        def __call__(self, texts):
            if self.asked:
                raise KeyboardInterrupt
            return super().__call__(texts)

    with pytest.raises(KeyboardInterrupt):
        measured(Breaks(), tokenizer, [["they are", "we", "you"]])
    scorer = Scorer()
    tau = measured(scorer, tokenizer, [["they are", "we", "you"]])
    assert scorer.asked == tau.classifier_calls * 2 // 3
    assert tau.classifier_calls_cached == tau.classifier_calls // 3


def unmarked(kind, known):
    """A tokenizer without marks of where words begin."""
    special = ["[UNK]", "[PAD]", "[SEP]"]
    vocabulary = {name: i for i, name in enumerate([*special, *known])}
    if kind == "bert":
        backend = Tokenizer(models.WordPiece(vocabulary, unk_token=special[0]))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
    else:
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
        letters = pre_tokenizers.Split(Regex("."), "isolated")
        backend.pre_tokenizer = letters if kind == "letters" else pre_tokenizers.Whitespace()
        if kind == "letters":
            backend.decoder = decoders.Fuse()
    names = dict(zip(("unk_token", "pad_token", "sep_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@pytest.mark.parametrize("kind", ["bert", "words"])
def test_words_of_tokenizers_without_marks_are_read(kind):
    tokenizer = unmarked(
        kind, ["idiot", "damn", "The", "the", "they", "##y", "##idiot", ",", "are"]
    )
    assert set(word_tokens(tokenizer)) == {"idiot", "damn", "the", "they", "are"}
    tau = measured(Scorer("cheap"), tokenizer, [["they are"]])
    assert set(tau.token_ids) == set(tokenizer.convert_tokens_to_ids(["idiot", "damn"]))
    assert tau.levels.spaced.all()
    assert len(set(tau.levels.token_ids)) == len(tau.levels.token_ids)


@pytest.mark.parametrize(
    "known", [list("abcdefghijklmnopqrstuvwxyz ,"), list("女人男是很"), list("01 ,")]
)
def test_letters_are_no_words_and_are_refused_before_work(known):
    tokenizer = unmarked("letters", known)
    assert word_tokens(tokenizer) == {}
    prompts = [
        Prompt(
            id=f"{group}{t}", text=f"{group}{t}", axis="a", subgroup=group, template=f"t{t}",
            descriptor=group, split="validation",
        )
        for t in range(2)
        for group in ("a", "b")
    ]  # fmt: skip
    with pytest.raises(ModelError, match=f"none of the {len(tokenizer)} tokens .* begins a word"):
        BiasProblem.of(None, tokenizer, None, prompts)


def test_pieces_that_are_joined_are_no_words():
    """Marks at the ends of words, as of the first GPT: a token without one goes on."""
    tokenizer = unmarked("letters", ["the</w>", "th", "and", "an", "idiot"])
    assert word_tokens(tokenizer) == {}


def test_calls_are_bounded_by_leaving_out_the_least_probable_words(tokenizer, monkeypatch):
    monkeypatch.setitem(token_toxicity.MAX_CALLS, "expensive", 20)
    mass = even(tokenizer)
    mass[tokenizer.convert_tokens_to_ids("▁idiot")] = 0.5
    scorer = Scorer()
    tau = measured(scorer, tokenizer, [["they are", "we"]], mass)
    assert scorer.asked == tau.classifier_calls == 2 * (9 + 1)
    assert tokenizer.convert_tokens_to_ids("▁idiot") in tau.token_ids


def test_a_scorer_that_no_word_moves_is_an_error(tokenizer):
    class Deaf(Scorer):
        def __call__(self, texts):
            return np.full(len(texts), 0.3)

    with pytest.raises(ScorerError, match="all zero"):
        measured(Deaf("cheap"), tokenizer, [["a"]])
