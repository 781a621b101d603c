"""GGUF files that transformers reads back as the same model, and refusals that say why."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from levelhead.data.gguf_files import convert_gguf
from levelhead.errors import CheckpointError, ConfigError, MissingExtraError, ModelError
from levelhead.export import gguf as writer
from levelhead.export.files import logits_difference
from levelhead.export.gguf import HEADS, SAMPLE, export_gguf
from levelhead.export.gguf_tokenizer import LLAMA3_SPLIT, QWEN2_SPLIT
from levelhead.models.surgery import prune_heads, zero_heads
from levelhead.models.uniform import uniform_model
from levelhead.testing import tiny_model, tiny_tokenizer

gguf = pytest.importorskip("gguf")
VOCABULARY = 300
ZEROED = {0: [0, 3], 1: [0, 1, 2, 3, 4, 5]}


def byte_level(pre: str = "gpt-2") -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few merges, cut as llama.cpp's `pre` cuts."""
    from tokenizers import Regex, Tokenizer, decoders, models, trainers
    from tokenizers import pre_tokenizers as cut

    backend = Tokenizer(models.BPE())
    plain = cut.ByteLevel(add_prefix_space=False)
    splits = {"llama-bpe": LLAMA3_SPLIT, "qwen2": QWEN2_SPLIT}
    if pre == "smollm":
        backend.pre_tokenizer = cut.Sequence([cut.Digits(individual_digits=True), plain])
    elif pre in splits:
        split = cut.Split(Regex(splits[pre]), behavior="isolated")
        fixed = cut.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = cut.Sequence([split, fixed])
    else:
        backend.pre_tokenizer = plain
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 5,
        special_tokens=["<|end|>", "<|begin|>"],
        initial_alphabet=cut.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([SAMPLE * 3, "the women and the men said hello"], trainer)
    fast: Any = PreTrainedTokenizerFast
    special = {"eos_token": "<|end|>", "bos_token": "<|begin|>", "pad_token": "<|end|>"}
    tokenizer: PreTrainedTokenizerFast = fast(tokenizer_object=backend, **special)
    tokenizer.chat_template = "{{ messages[0].content }}"
    return tokenizer


def model_of(family: str, **options: int) -> PreTrainedModel:
    return tiny_model(family, num_layers=2, hidden_size=96, vocab_size=VOCABULARY, **options)


def read(path: Path) -> PreTrainedModel:
    with writer._quiet():
        return AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )


def apart(a: PreTrainedModel, b: PreTrainedModel) -> float:
    with torch.no_grad():
        return logits_difference(a, lambda ids, mask: b(ids, attention_mask=mask).logits)


def test_a_zeroed_llama_comes_back_the_same_and_another_one_does_not(tmp_path: Path) -> None:
    whole = model_of("llama")
    model, other = copy.deepcopy(whole), copy.deepcopy(whole)
    zero_heads(model, ZEROED)
    zero_heads(other, {0: [1, 3], 1: ZEROED[1]})
    done = export_gguf(model, byte_level("smollm"), tmp_path / "zeroed.gguf")
    assert done.difference < 1e-5
    assert done.num_bytes == (tmp_path / "zeroed.gguf").stat().st_size
    back = read(tmp_path / "zeroed.gguf")
    assert apart(model, back) < 1e-5
    assert apart(other, back) > 0.01
    fields = gguf.GGUFReader(tmp_path / "zeroed.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    assert fields["tokenizer.chat_template"].contents() == "{{ messages[0].content }}"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_a_compact_model_is_refused_or_filled_with_zeros(tmp_path: Path) -> None:
    model = model_of("llama")
    prune_heads(model, ZEROED)
    with pytest.raises(CheckpointError, match=r"compact \(uneven\).*--zero-fill"):
        export_gguf(model, byte_level(), tmp_path / "x.gguf")
    assert list(tmp_path.iterdir()) == []
    assert export_gguf(model, byte_level(), tmp_path / "x.gguf", zero_fill=True).difference < 1e-5
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    assert json.loads(fields[HEADS].contents()) == {str(k): v for k, v in ZEROED.items()}


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_uniform_model_needs_no_zeros(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    prune_heads(model, {0: [0, 1, 2], 1: [3, 4, 5]})  # a whole group of each layer
    uniform = uniform_model(model)
    if family == "qwen2":  # transformers reads no head width from a Qwen2 file
        with pytest.raises(CheckpointError, match="a head width of 16"):
            export_gguf(uniform, byte_level("qwen2"), tmp_path / "x.gguf")
        return
    assert export_gguf(uniform, byte_level(), tmp_path / "x.gguf").difference < 1e-5
    assert apart(model, read(tmp_path / "x.gguf")) < 1e-5
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    assert fields["llama.attention.head_count"].contents() == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "q8_0"])
def test_smaller_numbers_make_smaller_files(dtype: str, tmp_path: Path) -> None:
    model = model_of("llama")
    small = export_gguf(model, byte_level(), tmp_path / "small.gguf", dtype=dtype)
    large = export_gguf(model, byte_level(), tmp_path / "large.gguf")
    assert large.difference < 1e-5 < small.difference < 0.1
    assert small.num_bytes < 0.7 * large.num_bytes


@pytest.mark.parametrize(
    ("family", "pre", "options"),
    [
        ("qwen2", "qwen2", {}),
        ("llama", "llama-bpe", {"num_key_value_heads": 6}),
    ],
)
def test_other_families_and_tokenizers(
    family: str, pre: str, options: dict[str, int], tmp_path: Path
) -> None:
    tokenizer = byte_level(pre)
    done = export_gguf(model_of(family, **options), tokenizer, tmp_path / "x.gguf")
    assert done.difference < 1e-5
    assert gguf.GGUFReader(tmp_path / "x.gguf").fields["tokenizer.ggml.pre"].contents() == pre


def test_qwen3(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=128, max_position_embeddings=64,
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config).eval()
    assert export_gguf(model, byte_level("qwen2"), tmp_path / "x.gguf").difference < 1e-5


def test_what_gguf_cannot_say_is_refused_with_the_reason(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    with pytest.raises(CheckpointError, match=r"not 'gpt2'.*format zeroed"):
        export_gguf(model_of("gpt2"), byte_level(), target)
    scaled = model_of("llama")
    scaled.config.rope_parameters = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}
    with pytest.raises(CheckpointError, match="rope_type 'llama3'"):
        export_gguf(scaled, byte_level(), target)
    with pytest.raises(CheckpointError, match="head width of 16"):
        export_gguf(model_of("qwen3"), byte_level(), target)
    with pytest.raises(CheckpointError, match="WordPiece"):
        export_gguf(tiny_model("llama"), tiny_tokenizer(), target)
    with pytest.raises(CheckpointError, match="the model's embedding 50 rows"):
        export_gguf(tiny_model("llama", vocab_size=50), byte_level(), target)
    strange = byte_level("qwen2")
    from tokenizers import Regex
    from tokenizers import pre_tokenizers as cut

    split = cut.Split(Regex(r"\d"), behavior="isolated")
    strange.backend_tokenizer.pre_tokenizer = cut.Sequence([split, cut.ByteLevel(use_regex=False)])
    with pytest.raises(CheckpointError, match="has no name for"):
        export_gguf(model_of("llama"), strange, target)
    with pytest.raises(ConfigError, match="q4_k"):
        export_gguf(model_of("llama"), byte_level(), target, dtype="q4_k")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_refused_and_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_in_ggml_order", lambda name, weight, config: weight)
    with pytest.raises(CheckpointError, match="does not compute"):
        export_gguf(model_of("llama"), byte_level(), tmp_path / "x.gguf")
    assert list(tmp_path.iterdir()) == []
    # Control: the llama family's order of rows is what was wrong.
    export_gguf(model_of("qwen2"), byte_level(), tmp_path / "x.gguf")


def test_other_tokens_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "levelhead.export.gguf_tokenizer._pre_tokenizer_name", lambda stored: "llama-bpe"
    )
    with pytest.raises(CheckpointError, match="reads other tokens"):
        export_gguf(model_of("llama"), byte_level("gpt-2"), tmp_path / "x.gguf")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"levelhead\[gguf\]"):
        export_gguf(model_of("llama"), byte_level(), tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"llama.block_count", b"llama.block_xount", "nothing of its blocks"),
        (b"blk.1.", b"blk.7.", "lacks"),
        (b"blk.1.", b"bxk.1.", "2 blocks and holds tensors of 1"),
        (b"blk.1.ffn_up.weight", b"blk.1.ffn_xp.weight", r"lacks 1 .*up_proj"),
    ],
)
def test_a_file_without_some_weights_is_refused(
    old: bytes, new: bytes, said: str, tmp_path: Path
) -> None:
    """transformers would fill them in at random."""
    path = tmp_path / "model.gguf"
    export_gguf(model_of("llama"), byte_level(), path, zero_fill=False)
    convert_gguf(path, tmp_path / "whole", sha256="", licence="")  # control
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(ModelError, match=said):
        convert_gguf(path, tmp_path / "damaged", sha256="", licence="")
    assert not (tmp_path / "damaged").exists()
