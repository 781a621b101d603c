"""config.json, tensors and tokenizers as other programs leave them: loaded, or refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.rounding import SAME
from tests.rounding import difference as apart
from torch import Tensor

from levelhead.errors import CheckpointError, ModelError
from levelhead.models.checkpoint import load, save_pruned
from levelhead.models.loading import check_base, load_base
from levelhead.models.surgery import prune_heads
from levelhead.testing import save_tiny_checkpoint, tiny_model, tiny_tokenizer


def with_config(folder: Path, family: str = "llama", **fields: Any) -> Path:
    save_tiny_checkpoint(folder, family)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def with_tensors(folder: Path, change: Callable[[str, Tensor], tuple[str, Tensor]]) -> Path:
    save_tiny_checkpoint(folder, "llama")
    file = folder / "model.safetensors"
    save_file(dict(change(*one) for one in load_file(file).items()), file, {"format": "pt"})
    return folder


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "switch",
    [
        {"return_dict": False}, {"output_attentions": True}, {"output_hidden_states": True},
        {"use_cache": False}, {"torchscript": True}, {"gradient_checkpointing": True},
    ],
)  # fmt: skip
def test_switches_of_what_a_model_returns_change_nothing(
    switch: dict[str, Any], family: str, tmp_path: Path, logits: Any
) -> None:
    model = load_base(with_config(tmp_path / "m", family, **switch), device="cpu").model
    plain = tiny_model(family)
    assert apart(logits(model), logits(plain)) < SAME
    for pruned in (model, plain):
        prune_heads(pruned, {0: [1]})
    for form in ("compact", "zeroed"):
        saved = save_pruned(model, tmp_path / form, form)
        assert apart(logits(load(saved)), logits(plain)) < SAME


def test_an_output_matrix_of_its_own_counts_whatever_the_config_says(
    tmp_path: Path, logits: Any
) -> None:
    folder = with_config(tmp_path / "m", tie_word_embeddings=True)
    model = load_base(folder, device="cpu").model
    plain = tiny_model("llama")
    assert apart(logits(model), logits(plain)) < SAME
    for pruned in (model, plain):
        prune_heads(pruned, {0: [1]})
    assert apart(logits(load(save_pruned(model, tmp_path / "o"))), logits(plain)) < SAME


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["torch.bfloat16", "fp32", "float8_e4m3fn", 16])
def test_a_number_format_that_is_none(key: str, value: Any, tmp_path: Path) -> None:
    folder = with_config(tmp_path / "m", **{key: value})
    for act in (check_base, load_base):
        with pytest.raises(ModelError, match=rf"{key}=.*write one of float32, bfloat16"):
            act(folder)
    with pytest.raises(CheckpointError, match="write one of float32"):
        load(folder)


@pytest.mark.parametrize("dtype", ["auto", "saved", "bfloat16"])
def test_mixed_number_formats_become_one(dtype: str, tmp_path: Path, logits: Any) -> None:
    folder = with_tensors(
        tmp_path / "m", lambda name, t: (name, t.bfloat16() if "mlp" in name else t)
    )
    model = load_base(folder, device="cpu", dtype=dtype).model
    assert len({weight.dtype for weight in model.parameters()}) == 1
    prune_heads(model, {0: [1]})
    back = load(save_pruned(model, tmp_path / "o"))
    assert apart(logits(back), logits(model)) < SAME


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_names_that_a_wrapper_left_are_told(prefix: str, tmp_path: Path) -> None:
    folder = with_tensors(tmp_path / "m", lambda name, t: (prefix + name, t))
    for act, error in ((load_base, ModelError), (load, CheckpointError)):
        with pytest.raises(error, match=rf"lacks .* called {prefix}\.\.\..*off their names"):
            act(folder)


@pytest.mark.parametrize("count", [1, 3])
def test_tokens_beyond_the_embedding(count: int, tmp_path: Path) -> None:
    folder = save_tiny_checkpoint(tmp_path / "m", "llama")
    tokenizer = tiny_tokenizer()
    rows = len(tokenizer)
    added: Any = tokenizer
    added.add_tokens([f"<extra{n}>" for n in range(count)])
    tokenizer.save_pretrained(folder)
    more = r" and 2 more tokens" if count > 1 else ""
    said = rf"'<extra0>' \(id {rows}\){more}, .* ends at {rows - 1}.*resize_token_embeddings"
    for act in (check_base, load_base):
        with pytest.raises(ModelError, match=said):
            act(folder)
    assert load_base(folder, device="cpu", need_tokenizer=False).tokenizer is not None
    model = tiny_model("llama")
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)  # as the message says
    assert load_base(folder, device="cpu").model.config.vocab_size == rows + count
