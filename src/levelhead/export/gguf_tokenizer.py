"""The tokenizer's part of a GGUF file: byte-level BPE, cut in a way that llama.cpp has a name for.

llama.cpp cuts text by rules compiled into it, one per name (`tokenizer.ggml.pre`). A tokenizer that
cuts otherwise would silently read other tokens there, so it is refused. So are SentencePiece
vocabularies (Llama 2): tokenizer.json lacks the scores that llama.cpp merges by.
"""

from __future__ import annotations

import json
from typing import Any

from transformers import PreTrainedTokenizerBase

from levelhead.errors import CheckpointError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""`tokenizer.ggml.token_type`."""
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
SPLITS = {LLAMA3_SPLIT: "llama-bpe", QWEN2_SPLIT: "qwen2"}
OTHER_WAY = (
    "save it as format zeroed and use the converter of llama.cpp (convert_hf_to_gguf.py) on that "
    "folder"
)
SPECIAL = ("bos", "eos", "unk", "pad")


def write_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    """Add a tokenizer to a `gguf.GGUFWriter`.

    Args:
        vocab_size: rows of the embedding; rows that no token has become unused tokens.

    Raises:
        CheckpointError: a tokenizer that the file could not say exactly.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(
            f"the tokenizer has no tokenizer.json to take words from; {OTHER_WAY}"
        )
    stored = json.loads(backend.to_str())
    pre = _pre_tokenizer_name(stored)
    tokens, types = _tokens(stored, vocab_size)
    merges = [m if isinstance(m, str) else " ".join(m) for m in stored["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for name in SPECIAL:
        token_id = getattr(tokenizer, f"{name}_token_id", None)
        if token_id is not None:
            getattr(writer, f"add_{name}_token_id")(int(token_id))
    encode: Any = tokenizer
    begun = encode("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(bool(begun and tokenizer.bos_token_id is not None))
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, str):
        writer.add_chat_template(template)


def _pre_tokenizer_name(stored: dict[str, Any]) -> str:
    """llama.cpp's name for how this tokenizer cuts text before merging."""
    model = stored["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        kind = "SentencePiece-style" if model.get("byte_fallback") else str(model["type"])
        raise CheckpointError(
            f"the tokenizer is {kind}, the GGUF writer knows byte-level BPE only; {OTHER_WAY}"
        )
    steps = stored.get("pre_tokenizer") or {}
    kinds = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    match [step.get("type") for step in kinds], kinds[-1].get("use_regex"):
        case ["ByteLevel"], True:
            return "gpt-2"
        case ["Digits", "ByteLevel"], True if kinds[0]["individual_digits"]:
            return "smollm"
        case ["Split", "ByteLevel"], False:
            pattern = kinds[0]["pattern"].get("Regex")
            if pattern in SPLITS:
                return SPLITS[pattern]
    raise CheckpointError(
        "the tokenizer cuts text in a way that the GGUF writer has no name for "
        f"({[step.get('type') for step in kinds]}); {OTHER_WAY}"
    )


def _tokens(stored: dict[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    words: dict[int, str] = {index: token for token, index in stored["model"]["vocab"].items()}
    kinds = dict.fromkeys(words, NORMAL)
    for added in stored["added_tokens"]:
        words[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if words and max(words) >= vocab_size:
        raise CheckpointError(
            f"the tokenizer has token {max(words)}, the model's embedding {vocab_size} rows; "
            "is it the tokenizer of another model?"
        )
    tokens = [words.get(index, f"[PAD{index}]") for index in range(vocab_size)]
    return tokens, [kinds.get(index, UNUSED) for index in range(vocab_size)]
