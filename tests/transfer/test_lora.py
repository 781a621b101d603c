"""peft's LoRA on a pruned model: it trains, is saved, merges, and the result is saved."""

from __future__ import annotations

import pytest
import torch
from removed import HEADS

from levelhead.models.checkpoint import load, save_pruned
from levelhead.models.removed_heads import removed_heads
from levelhead.testing import tiny_model

peft = pytest.importorskip("peft", reason="peft is not installed: LoRA on pruned models untested")
# peft calls by the old name what transformers has renamed.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

TARGETS = {
    "llama": ["q_proj", "v_proj", "o_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "bloom": ["query_key_value", "dense"],
    "gpt_oss": "all-linear",
}


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits[inputs["attention_mask"].bool()]


def trained(model, inputs, family):
    """A LoRA of the model after six steps, and the loss before each."""
    lora = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS[family], fan_in_fan_out=family == "gpt2",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = peft.get_peft_model(model, lora).train()
        optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=2e-2)
        losses = []
        for _ in range(6):
            loss = adapted(**inputs, labels=inputs["input_ids"]).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return adapted.eval(), losses


@pytest.mark.parametrize(
    "family",
    ["llama", "gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in list(TARGETS)[2:])],
)
def test_lora_trains_merges_and_reloads(family, inputs, pruned, tmp_path):
    heads = {1: [5], 2: [1, 2, 3, 5]}
    save_pruned(pruned(family, heads), tmp_path / "compact")
    base = load(tmp_path / "compact")
    before = logits(base, inputs)
    frozen = {name: p.clone() for name, p in base.named_parameters()}
    adapted, losses = trained(base, inputs, family)
    after = logits(adapted, inputs)

    assert losses[-1] < losses[0] - 0.1
    assert (after - before).abs().max() > 1e-2
    adapted.save_pretrained(tmp_path / "lora")
    again = peft.PeftModel.from_pretrained(load(tmp_path / "compact"), tmp_path / "lora")
    torch.testing.assert_close(logits(again.eval(), inputs), after, rtol=1e-5, atol=1e-5)
    with adapted.disable_adapter():
        torch.testing.assert_close(logits(adapted, inputs), before)  # pruned weights are frozen

    merged = adapted.merge_and_unload()
    torch.testing.assert_close(logits(merged, inputs), after, rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(p, frozen[name]) for name, p in merged.named_parameters())
    for folder in (save_pruned(merged, tmp_path / "merged"), tmp_path / "stock"):
        if not folder.exists():
            merged.save_pretrained(folder)
        reloaded = load(folder)
        torch.testing.assert_close(logits(reloaded, inputs), logits(merged, inputs))
        assert removed_heads(reloaded) == {1: (5,), 2: (1, 2, 3, 5)}


def test_lora_of_a_layer_without_heads(inputs, pruned):
    """peft warns that it initialises matrices of width 0; nothing else is special."""
    with pytest.warns(UserWarning, match="zero-element"):
        adapted, losses = trained(pruned("llama", HEADS), inputs, "llama")
    assert losses[-1] < losses[0] - 0.1
    expected = logits(adapted, inputs)
    torch.testing.assert_close(
        logits(adapted.merge_and_unload(), inputs), expected, rtol=1e-4, atol=1e-5
    )


def test_a_lora_of_the_whole_model_does_not_fit_the_pruned_one(inputs, pruned, tmp_path):
    """It is refused by shape, never applied to other heads than it was trained for."""
    adapted, _ = trained(tiny_model("llama"), inputs, "llama")
    adapted.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.PeftModel.from_pretrained(pruned("llama", {1: [5]}), tmp_path)
