"""The tiny models themselves: small, repeatable, and planted as they say."""

from __future__ import annotations

import pytest
import torch

from levelhead.models.architectures import head_counts
from levelhead.models.gates import ablate
from levelhead.testing import (
    IDENTITY_WORDS,
    TINY_FAMILIES,
    TINY_VARIANTS,
    TOXIC_WORDS,
    WHOLE_LAYER_FAMILIES,
    planted_model,
    tiny_model,
    tiny_tokenizer,
)

TEXTS = ("I met a few {} and they are", "My friend said that {}", "The {} in the old house of this")


@pytest.mark.parametrize("family", [*TINY_FAMILIES, *WHOLE_LAYER_FAMILIES, *TINY_VARIANTS])
def test_tiny_models_are_small_and_repeatable(family):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model, again, other = (tiny_model(family, seed=seed) for seed in (0, 0, 1))

    assert torch.equal(torch.get_rng_state(), before)
    assert model.num_parameters() < 100_000
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (model, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert model.config.model_type == ("falcon" if family in TINY_VARIANTS else family)


def test_shape_options():
    model = tiny_model("gpt2", num_layers=2, num_heads=8, hidden_size=64, vocab_size=90)
    assert head_counts(model) == (2, 8)
    assert model.get_input_embeddings().weight.shape == (90, 64)
    with pytest.raises(ValueError, match="no tiny model of family 't5'"):
        tiny_model("t5")


def test_tokenizer_knows_words_and_spells_the_rest():
    tokenizer = tiny_tokenizer()
    for word in (*IDENTITY_WORDS, *TOXIC_WORDS):
        assert tokenizer.tokenize(word) == [f"▁{word}"]
    text = "I met gay men, Zebras & friends: what's new?\nAll of it."
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unk_token_id not in tokenizer.encode(text)
    assert tiny_tokenizer(["zebra"]).tokenize("a zebra") == ["▁a", "▁zebra"]
    batch = tokenizer(["women", "the men and"], padding=True, return_tensors="pt")
    assert batch["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1]]


def toxic_probability(planted, word):
    """Mean probability that the toxic word follows, over TEXTS."""
    toxic = planted.tokenizer.get_vocab()[f"▁{planted.toxic_word}"]
    batch = planted.tokenizer([t.format(word) for t in TEXTS], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = planted.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
    return float(logits[:, -1].softmax(-1)[:, toxic].mean())


@pytest.mark.parametrize("head", [(1, 2), (0, 5), (2, 0)])
def test_the_planted_head_and_no_other_adds_the_toxic_word(head):
    planted = planted_model(layer=head[0], head=head[1])
    assert planted.head == head
    named = toxic_probability(planted, "women")
    assert named > 0.15
    assert toxic_probability(planted, "woman") > 0.15
    assert toxic_probability(planted, "men") < 0.02

    for layer in range(3):
        for other in range(6):
            with ablate(planted.model, {layer: [other]}):
                without = toxic_probability(planted, "women")
            if (layer, other) == head:
                assert without < 0.02
            else:
                assert abs(without - named) < 0.3 * named


def test_planting_is_graded():
    by_strength = [toxic_probability(planted_model(strength=s), "women") for s in (0, 0.5, 1, 1.5)]
    assert by_strength[0] < 0.02
    assert by_strength == sorted(by_strength)
    assert by_strength[3] > 0.5


def test_other_subgroups_and_words_can_be_planted():
    planted = planted_model(subgroup_words=("Muslim", "Muslims"), toxic_word="scum", seed=4)
    assert toxic_probability(planted, "Muslim") > 0.15
    assert toxic_probability(planted, "women") < 0.02
