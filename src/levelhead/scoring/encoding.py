"""Prompts as tokens: cut to a length, and checked to say what their subgroup is.

Subgroups whose prompts are the same tokens have the same continuations, so that a gap between
them is the scorer's rounding and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import PromptError
from levelhead.records import Prompt
from levelhead.sampling import encode_prompts

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
        PromptError: two subgroups have the same tokens for every prompt that is matched.
        ConfigError: as `encode_prompts`.
    """
    encoded = encode_prompts(tokenizer, prompts, chat_template=chat_template)
    found = _cut(tokenizer, prompts, encoded, prompt_tokens)
    _refuse_same_tokens(*found, chat_template, prompt_tokens)
    return found


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
    for (first, second), count in same.items():
        if count == len(groups):
            why = "the tokenizer has no tokens of its own for the words that differ"
            if prompt_tokens is not None:
                why = f"--prompt-tokens {prompt_tokens} cuts them before the words that differ"
            elif chat_template:
                why = "the chat template may leave the text out"
            raise PromptError(
                f"subgroups {first!r} and {second!r} of axis {prompts[0].axis!r} have the same "
                f"tokens in all {count} prompts that are matched, so nothing can differ between "
                f"them: {why}"
            )
