"""Prompts as tokens: cut to a length, and checked to say what their subgroup is.

Subgroups whose prompts are the same tokens have the same continuations, so that a gap between
them is the scorer's rounding and nothing else. A prompt goes on: what a tokenizer puts at the end
of a text (EOS, [SEP]) is left out, what it puts in front (BOS) stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import ConfigError, PromptError
from levelhead.records import Prompt

MOST_ALIKE = 0.5
"""Share of matched prompts that may be the same tokens for two subgroups: a long template may be
cut before the word, and a gap of which most is nothing is none."""
SHOWN_CHARACTERS = 300
"""Of an error in a chat template."""

Encoded = tuple[list[Prompt], list[tuple[int, ...]]]


def encoded_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    chat_template: bool,
    prompt_tokens: int | None,
) -> Encoded:
    """Prompts and their tokens, at most `prompt_tokens` of them; the texts are cut alike.

    Raises:
        PromptError: two subgroups have the same tokens in more than `MOST_ALIKE` of the matched
            prompts or, where none are matched, in all of their prompts.
        ConfigError: a chat template is asked for and there is none, or it fails; an empty prompt.
    """
    encoded = _encode(tokenizer, prompts, chat_template)
    found = _cut(tokenizer, prompts, encoded, prompt_tokens)
    _refuse_same_tokens(*found, chat_template, prompt_tokens)
    return found


def appended_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The special tokens that a tokenizer puts at the end of a text, which prompts are without."""
    encode: Any = tokenizer
    ids = encode("a word")["input_ids"]
    names: Any = tokenizer.convert_ids_to_tokens(ids[len(_without_end(tokenizer, "a word", ids)) :])
    return tuple(map(str, names))


def _encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], chat_template: bool
) -> list[tuple[int, ...]]:
    texts = [prompt.text for prompt in prompts]
    encode: Any = tokenizer
    if chat_template:  # it writes its special tokens itself, and may end in one
        texts = _in_template(tokenizer, texts)
        encoded = [encode(text, add_special_tokens=False)["input_ids"] for text in texts]
    else:
        encoded = [_without_end(tokenizer, text, encode(text)["input_ids"]) for text in texts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not ids:
            raise ConfigError(f"prompt {prompt.id!r} has no tokens: {prompt.text!r}")
    return [tuple(ids) for ids in encoded]


def _without_end(tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int]) -> list[int]:
    """The tokens of a text up to what the tokenizer adds after it."""
    encode: Any = tokenizer
    bare = encode(text, add_special_tokens=False)["input_ids"]
    # Some classes put their tokens there whatever they are asked; a text may also hold them itself.
    while bare and _is_end(tokenizer, text, bare[-1]):
        bare = bare[:-1]
    if not bare:
        return []
    for end in range(len(ids), len(bare) - 1, -1):
        if ids[end - len(bare) : end] == bare:
            return ids[:end]
    while ids and _is_end(tokenizer, text, ids[-1]):
        ids = ids[:-1]
    return ids


def _is_end(tokenizer: PreTrainedTokenizerBase, text: str, token: int) -> bool:
    ends = {tokenizer.eos_token_id, getattr(tokenizer, "sep_token_id", None)}
    ends.discard(tokenizer.unk_token_id)  # GPT-2's is its EOS: then it is a letter of the text's
    written: Any = tokenizer.convert_ids_to_tokens(token)
    return token in ends and not text.endswith(str(written))


def _in_template(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """Texts as the chat template writes them, as what a user says.

    Some templates read a message as text, others as a list of parts: the first form that leaves
    every text in is taken.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError("--chat-template: this model's tokenizer has no chat template; omit it")
    forms = (list(texts), [[{"type": "text", "text": text}] for text in texts])
    written: list[list[str]] = []
    failed: list[Exception] = []
    for contents in forms:
        try:
            said = [_rendered(tokenizer, content) for content in contents]
        except Exception as error:  # templates are programs, and raise what they like
            failed.append(error)
            continue
        if all(text in one for text, one in zip(texts, said, strict=True)):
            return said
        written.append(said)
    if written:
        return written[0]
    why = " ".join(str(failed[0]).split())[:SHOWN_CHARACTERS] or type(failed[0]).__name__
    raise ConfigError(
        f"--chat-template: the chat template of this model's tokenizer fails: {why}; mend "
        "chat_template in its tokenizer_config.json (or chat_template.jinja), or omit the option"
    ) from failed[0]


def _rendered(tokenizer: PreTrainedTokenizerBase, content: Any) -> str:
    apply: Any = tokenizer.apply_chat_template
    messages = [{"role": "user", "content": content}]
    return str(apply(messages, add_generation_prompt=True, tokenize=False))


def _cut(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    encoded: Sequence[tuple[int, ...]],
    most: int | None,
) -> Encoded:
    """Prompts of at most so many tokens; the classifier then reads the text that is left, too."""
    cut = []
    for prompt, ids in zip(prompts, encoded, strict=True):
        if most is None or len(ids) <= most:
            cut.append((prompt, ids))
            continue
        text = str(tokenizer.decode(list(ids[:most]), skip_special_tokens=True))
        cut.append((replace(prompt, text=text), ids[:most]))
    return [prompt for prompt, _ in cut], [ids for _, ids in cut]


def _refuse_same_tokens(
    prompts: Sequence[Prompt],
    encoded: Sequence[tuple[int, ...]],
    chat_template: bool,
    prompt_tokens: int | None,
) -> None:
    tokens = dict(zip((prompt.id for prompt in prompts), encoded, strict=True))
    groups = matched_groups(prompts)
    same = Counter(
        (a.subgroup, b.subgroup)
        for group in groups
        for a, b in combinations(group, 2)
        if tokens[a.id] == tokens[b.id]
    )
    found = [
        (pair, f"{f'all {n}' if n == len(groups) else f'{n} of {len(groups)}'} matched prompts")
        for pair, n in same.most_common(1)
        if n > MOST_ALIKE * len(groups)
    ]
    if not groups:
        own: dict[str, set[tuple[int, ...]]] = {}
        for prompt in prompts:
            own.setdefault(prompt.subgroup, set()).add(tokens[prompt.id])
        pairs = combinations(sorted(own), 2)
        found = [((a, b), "all of their prompts") for a, b in pairs if own[a] == own[b]]
    if found:
        (first, second), where = found[0]
        why = "the tokenizer has no tokens of its own for the words that differ"
        if prompt_tokens is not None:
            why = f"--prompt-tokens {prompt_tokens} cuts them before the words that differ"
        elif chat_template:
            why = "the chat template may leave the text out"
        raise PromptError(
            f"subgroups {first!r} and {second!r} of axis {prompts[0].axis!r} have the same tokens "
            f"in {where}, so nothing can differ between them: {why}"
        )
