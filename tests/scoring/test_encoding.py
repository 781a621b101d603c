"""Prompts as tokens: what is cut, and subgroups that no token tells apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Regex, normalizers, processors

from levelhead.errors import ConfigError, PromptError
from levelhead.records import Prompt
from levelhead.scoring.encoding import appended_tokens, encoded_prompts
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


def encode(given: list[Prompt], prompt_tokens: int | None = None, template: Any = None):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return encoded_prompts(
        tokenizer, given, chat_template=template is not None, prompt_tokens=prompt_tokens
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
    with pytest.raises(
        PromptError, match=r"'a1' and 'a2'.*same tokens in all 3 matched .* no tokens of"
    ):
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


def test_most_templates_of_the_same_tokens_are() -> None:
    given = prompts({"women": "women", "men": "men"}, templates=5)
    with pytest.raises(PromptError, match=r"in 3 of 5 matched .*--prompt-tokens 4 cuts them"):
        encode(given, prompt_tokens=4)


def test_prompts_that_are_not_matched_are_not_compared() -> None:
    given = prompts({"women": "women"}) + prompts({"men": "women"}, templates=5)[3:]
    assert len(encode(given)[0]) == len(given)


def test_prompts_that_nothing_matches_are_refused_where_all_of_them_are_the_same() -> None:
    """A file without templates, in letters that the tokenizer does not know."""
    given = [replace(p, template=p.id) for p in prompts({"a": "女人", "b": "男人", "c": "men"})]
    with pytest.raises(PromptError, match=r"'a' and 'b' .*same tokens in all of their prompts"):
        encode(given)
    assert len(encode([p for p in given if p.subgroup != "b"])[0]) == 6


PARTS = (
    "{% for m in messages %}user{% for c in m['content'] %}{% if c['type'] == 'text' %} "
    "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} say"
)
PARTS_ALONE = "{{ messages[0]['content'][0]['text'] + ' say' }}"
TEXT = "user {{ messages[0]['content'] | trim }} say"
EITHER = (
    "user {% if messages[0]['content'] is string %}{{ messages[0]['content'] }}{% else %}"
    "{{ messages[0]['content'][0]['text'] }}{% endif %} say"
)


@pytest.mark.parametrize("template", [PARTS, PARTS_ALONE, TEXT, EITHER])
def test_a_chat_template_is_given_content_as_it_wants_it(template: str) -> None:
    given = prompts({"women": "women", "men": "men"})
    tokenizer = tiny_tokenizer()
    for prompt, ids in zip(given, encode(given, template=template)[1], strict=True):
        said = tokenizer.decode(list(ids))
        assert said.removeprefix("user ") == f"{prompt.text} say"


def test_a_template_that_leaves_the_text_out_is_refused() -> None:
    with pytest.raises(PromptError, match="the chat template may leave the text out"):
        encode(prompts({"women": "women", "men": "men"}), template="user say")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('a system message is required') }}", "a system message is required"),
        ("{% for m in messages %}{{ m['content'] ", "unexpected end of template"),
        ({"tool_use": "x", "rag": "y"}, "multiple chat templates"),
        ("{{ messages[0]['content'] | no_such_filter }}", "no_such_filter"),
        ("{{ 1 // 0 }}", "zero"),
    ],
)
def test_a_chat_template_that_fails_is_told_with_its_own_message(template: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"--chat-template: .*fails: .*{said}.*omit the option"):
        encode(prompts({"women": "women", "men": "men"}), template=template)


def ending(single: str, *, ignores: bool = False) -> Any:
    """A tokenizer that puts tokens around every text; also where it is asked not to."""
    tokenizer = tiny_tokenizer()
    tokens = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<s>", "</s>", "<pad>")]
    process = processors.TemplateProcessing(single=single, special_tokens=tokens)
    tokenizer.backend_tokenizer.post_processor = process
    if ignores:
        call = type(tokenizer).__call__
        own = type("Own", (type(tokenizer),), {})
        own.__call__ = lambda self, text, **_: call(self, text)
        tokenizer.__class__ = own
    return tokenizer


@pytest.mark.parametrize(
    ("single", "left", "dropped"),
    [
        ("$A", [], ()),
        ("<s> $A", ["<s>"], ()),
        ("$A </s>", [], ("</s>",)),
        ("<s> $A </s>", ["<s>"], ("</s>",)),
        ("<s> $A </s> <pad>", ["<s>"], ("</s>", "<pad>")),
    ],
)
def test_what_a_tokenizer_puts_at_the_end_is_left_out(
    single: str, left: list[str], dropped: tuple[str, ...]
) -> None:
    tokenizer = ending(single)
    given = prompts({"women": "women", "men": "men", "unknown": "女"})
    _, ids = encoded_prompts(tokenizer, given, chat_template=False, prompt_tokens=None)
    for prompt, row in zip(given, ids, strict=True):
        bare = tokenizer.tokenize(prompt.text)
        assert tokenizer.convert_ids_to_tokens(list(row)) == [*left, *bare]
    assert appended_tokens(tokenizer) == dropped


def test_also_by_a_class_that_does_so_unasked() -> None:
    tokenizer = ending("<s> $A </s>", ignores=True)
    given = prompts({"women": "women", "men": "men"})
    _, ids = encoded_prompts(tokenizer, given, chat_template=False, prompt_tokens=None)
    assert {row[0] for row in ids} == {tokenizer.bos_token_id}
    assert tokenizer.eos_token_id not in {token for row in ids for token in row}
    assert appended_tokens(tokenizer) == ("</s>",)


def test_a_special_token_of_the_users_own_stays() -> None:
    given = [replace(p, text=f"{p.text}</s>") for p in prompts({"women": "women", "men": "men"})]
    _, ids = encoded_prompts(ending("$A </s>"), given, chat_template=False, prompt_tokens=None)
    end = tiny_tokenizer().eos_token_id
    assert all(row[-1] == end and row[-2] != end for row in ids)


def test_an_unknown_letter_at_the_end_stays_also_where_it_is_the_end_token() -> None:
    tokenizer = ending("$A")
    tokenizer.eos_token = tokenizer.unk_token
    given = [replace(p, text=f"{p.text} 女") for p in prompts({"women": "women", "men": "men"})]
    _, ids = encoded_prompts(tokenizer, given, chat_template=False, prompt_tokens=None)
    assert {row[-1] for row in ids} == {tokenizer.unk_token_id}


def test_a_text_of_no_tokens_is_told() -> None:
    tokenizer = ending("<s> $A </s>")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("[^a-z ]"), "")
    given = [replace(p, text="?!") for p in prompts({"women": "women", "men": "men"})]
    with pytest.raises(ConfigError, match="has no tokens"):
        encoded_prompts(tokenizer, given, chat_template=False, prompt_tokens=None)
