import json
import shutil

import numpy as np
import pytest
import torch
from tests.rounding import SAME
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from levelhead.errors import ScorerError
from levelhead.permissions import pickles_allowed
from levelhead.toxicity import classifier, load_scorer, score_texts
from levelhead.weight_files import in_folder

WORDS = [f"w{i}" for i in range(30)]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
UNITARY = {0: "toxicity", 1: "severe_toxicity", 2: "obscene"}
SIZE = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
    "pad_token_id": 1,
}


def tokenizer(**special):
    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[3]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=SPECIAL[3], **special)


def save(model, folder, **special):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # scores that differ from text to text
    model.save_pretrained(folder)
    tokenizer(**(special or {"pad_token": SPECIAL[1]})).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def unitary(tmp_path_factory):
    """Like unitary/unbiased-toxic-roberta: RoBERTa, several labels that do not exclude another."""
    torch.manual_seed(0)  # only the weights of this checkpoint
    config = RobertaConfig(id2label=UNITARY, problem_type="multi_label_classification", **SIZE)
    return save(RobertaForSequenceClassification(config), tmp_path_factory.mktemp("unitary"))


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 15))) for _ in range(70)]


def one_by_one(folder, texts, read):
    model = RobertaForSequenceClassification.from_pretrained(folder).eval()
    encode = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        return [read(model(**encode(t, return_tensors="pt")).logits[0]).item() for t in texts]


def test_equals_the_model_text_by_text(unitary, texts):
    scorer = load_scorer(str(unitary))
    expected = one_by_one(unitary, texts, lambda logits: logits[0].sigmoid())
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(score_texts(scorer, texts), expected, atol=1e-5)
    assert scorer.cost == "expensive"
    other = load_scorer(f"{unitary}#obscene")
    expected = one_by_one(unitary, texts, lambda logits: logits[2].sigmoid())
    np.testing.assert_allclose(score_texts(other, texts), expected, atol=1e-5)


def test_labels_that_exclude_each_other_get_a_softmax(tmp_path, texts):
    config = RobertaConfig(id2label={0: "neutral", 1: "toxic"}, **SIZE)
    save(RobertaForSequenceClassification(config), tmp_path)
    expected = one_by_one(tmp_path, texts, lambda logits: logits.softmax(-1)[1])
    np.testing.assert_allclose(load_scorer(str(tmp_path))(texts), expected, atol=1e-5)


def test_long_texts_are_cut_to_what_the_model_reads(unitary):
    scorer = load_scorer(str(unitary))
    assert scorer.max_tokens == 18  # RoBERTa's 20 positions start at padding_idx + 1 = 2
    words = WORDS[:18]
    whole, cut, *others = score_texts(
        scorer,
        [" ".join(words), " ".join(words + WORDS), *(" ".join([*words[:-1], w]) for w in WORDS)],
    )
    assert cut == pytest.approx(whole, abs=SAME)
    assert np.ptp(others) > 50 * SAME  # the last word that is read counts


def test_bert_reads_all_its_positions(tmp_path):
    save(BertForSequenceClassification(BertConfig(id2label={0: "a", 1: "hate"}, **SIZE)), tmp_path)
    scorer = load_scorer(str(tmp_path))
    assert scorer.max_tokens == 20
    assert score_texts(scorer, [" ".join(WORDS)]).shape == (1,)


@pytest.mark.parametrize("special", [{"pad_token": "<pad>"}, {"eos_token": "</s>"}])
def test_decoders_with_and_without_a_pad_token(tmp_path, texts, special):
    config = GPT2Config(
        vocab_size=34, n_embd=16, n_layer=1, n_head=2, n_positions=20, id2label={0: "a", 1: "toxic"}
    )
    config.pad_token_id = None
    save(GPT2ForSequenceClassification(config), tmp_path, **special)
    scorer = load_scorer(str(tmp_path))
    alone = [score_texts(scorer, [text])[0] for text in texts]
    assert np.ptp(alone) > 0.05
    np.testing.assert_allclose(score_texts(scorer, texts), alone, atol=1e-5)


def test_empty_texts_are_scored_as_in_company(unitary):
    scorer = load_scorer(str(unitary))
    scores = score_texts(scorer, ["", " ", "w1 w2"])
    assert scores[0] == pytest.approx(scores[1], abs=SAME)
    assert score_texts(scorer, [""])[0] == pytest.approx(scores[0], abs=SAME)
    assert scores[0] != pytest.approx(scores[2], abs=100 * SAME)


def test_identity_follows_the_files_not_the_folder(unitary, tmp_path):
    one = load_scorer(str(unitary)).identity
    copy = shutil.copytree(unitary, tmp_path / "elsewhere")
    (copy / "README.md").write_text("about it")
    assert load_scorer(str(copy)).identity == one
    assert load_scorer(f"{copy}#obscene").identity != one
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert load_scorer(str(copy)).identity != one


def test_pickled_weights_only_on_request(unitary, tmp_path, texts):
    copy = shutil.copytree(unitary, tmp_path / "pickled")
    model = RobertaForSequenceClassification.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(ScorerError, match=r"only as a pickle .* --allow-pickle"):
        load_scorer(str(copy))
    with pickles_allowed():
        scorer = load_scorer(str(copy))
    np.testing.assert_allclose(scorer(texts), load_scorer(str(unitary))(texts), atol=SAME)


def test_a_language_model_is_not_a_classifier(tmp_path):
    config = GPT2Config(vocab_size=34, n_embd=16, n_layer=1, n_head=2, n_positions=20)
    save(GPT2LMHeadModel(config), tmp_path)
    with pytest.raises(ScorerError, match=r"not a trained sequence classifier.*score.weight"):
        load_scorer(str(tmp_path))


def test_ambiguous_labels_are_an_error(tmp_path):
    labels = {0: "hate", 1: "offensive", 2: "normal"}
    save(RobertaForSequenceClassification(RobertaConfig(id2label=labels, **SIZE)), tmp_path)
    with pytest.raises(ScorerError, match="'hate', 'offensive', 'normal'"):
        load_scorer(str(tmp_path))
    assert load_scorer(f"{tmp_path}#hate").output.label == "hate"


@pytest.mark.parametrize("name", ["my#classifier", "a#b#hate", "rev@1#2"])
def test_a_folder_with_a_number_sign_in_its_name(tmp_path, name):
    labels = {0: "hate", 1: "toxic", 2: "C#"}
    folder = tmp_path / name
    save(RobertaForSequenceClassification(RobertaConfig(id2label=labels, **SIZE)), folder)
    assert load_scorer(str(folder)).output.label == "toxic"
    assert load_scorer(f"{folder}#hate").output.label == "hate"
    assert load_scorer(f"over-0.5:{folder}#C#").inner.output.label == "C#"


@pytest.mark.parametrize("name", ["", "folder"])
def test_a_folder_without_a_model(tmp_path, name):
    with pytest.raises(ScorerError, match="no toxicity scorer"):
        load_scorer(str(tmp_path / name))


def test_weights_and_tokenizer_come_from_one_commit(unitary, monkeypatch):
    """A branch may move between two requests, and weights be taken from a pull request."""
    import transformers

    asked = {}
    for cls in ("AutoModelForSequenceClassification", "AutoTokenizer", "AutoConfig"):
        load = getattr(transformers, cls).from_pretrained

        def from_hub(name, *, load=load, cls=cls, **kwargs):
            if name != "org/model":
                return load(name, **kwargs)
            asked[cls] = kwargs.pop("revision")
            loaded = load(unitary, **kwargs)
            if cls == "AutoConfig":
                loaded._commit_hash = "c0ffee"
            return loaded

        monkeypatch.setattr(getattr(transformers, cls), "from_pretrained", from_hub)
    monkeypatch.setattr(classifier, "_locate", lambda name, revision: in_folder(unitary))
    scorer = load_scorer("org/model@v2#toxicity")
    assert asked == {
        "AutoConfig": "v2",
        "AutoModelForSequenceClassification": "c0ffee",
        "AutoTokenizer": "c0ffee",
    }
    assert scorer.identity == "classifier:org/model@c0ffee#toxicity"
