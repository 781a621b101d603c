"""Prompts as tokens: what is cut, and subgroups that no token tells apart."""

from __future__ import annotations

import pytest

from levelhead.errors import PromptError
from levelhead.records import Prompt
from levelhead.scoring.encoding import encoded_prompts
from levelhead.testing import tiny_tokenizer


def prompts(words: dict[str, str], templates: int = 3) -> list[Prompt]:
    return [
        Prompt(
            id=f"{group}/{t}", text=f"{'so ' * t}I think {word} are", axis="a", subgroup=group,
            template=f"t{t}", descriptor=word, split="validation",
        )
        for t in range(templates)
        for group, word in words.items()
    ]  # fmt: skip


def encode(given: list[Prompt], prompt_tokens: int | None = None, chat_template: bool = False):
    return encoded_prompts(
        tiny_tokenizer(), given, chat_template=chat_template, prompt_tokens=prompt_tokens
    )


def test_prompts_that_differ_in_a_word_are_encoded_as_they_are() -> None:
    given = prompts({"women": "women", "men": "men"})
    kept, ids = encode(given)
    assert kept == given
    assert len(set(ids)) == len(given)


def test_a_cut_prompt_has_the_text_that_is_left() -> None:
    given = prompts({"women": "women", "men": "men"}, templates=1)
    whole = encode(given)[1]
    kept, ids = encode(given, prompt_tokens=len(whole[0]) - 1)
    assert [row[: len(row) - 1] for row in whole] == ids
    assert [p.text for p in kept] == ["I think women", "I think men"]
    assert [p.id for p in kept] == [p.id for p in given]


def test_subgroups_of_the_same_tokens_are_refused() -> None:
    with pytest.raises(PromptError, match=r"'a1' and 'a2'.*same tokens in all 3 .* no tokens of"):
        encode(prompts({"a1": "women", "a2": "women", "b": "men"}))


def test_the_cut_before_the_word_is_named_as_the_reason() -> None:
    given = prompts({"women": "women", "men": "men"}, templates=2)
    with pytest.raises(PromptError, match=r"in all 2 .*--prompt-tokens 2 cuts them before"):
        encode(given, prompt_tokens=2)


def test_one_template_of_the_same_tokens_is_no_reason() -> None:
    """Only where nothing at all differs: a word may be cut off in one long template."""
    given = prompts({"women": "women", "men": "men"})
    longest = max(len(ids) for ids in encode(given)[1])
    kept, ids = encode(given, prompt_tokens=longest - 2)
    assert len(kept) == len(given)
    assert ids[-1] == ids[-2], "the control: these two are the same"


def test_prompts_that_are_not_matched_are_not_compared() -> None:
    given = prompts({"women": "women"}) + prompts({"men": "women"}, templates=5)[3:]
    assert len(encode(given)[0]) == len(given)
