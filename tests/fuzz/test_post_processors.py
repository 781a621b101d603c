"""tokenizer.json post-processors: whatever they put around a text, a prompt ends where it does."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.test_properties import examples
from tokenizers import processors

from levelhead.records import Prompt
from levelhead.scoring.encoding import appended_tokens, encoded_prompts
from levelhead.testing import SPECIAL_TOKENS, tiny_tokenizer

TOKENIZER: Any = tiny_tokenizer()
IDS = {name: TOKENIZER.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}

around = st.lists(st.sampled_from([name for name in SPECIAL_TOKENS if name != "<unk>"]), max_size=3)
pieces = st.lists(
    st.sampled_from(["women", "I think", "女", "?!", *SPECIAL_TOKENS]), min_size=1, max_size=4
)


def prompt(text: str, number: int) -> Prompt:
    return Prompt(
        id=str(number), text=text, axis="a", subgroup="s", template=f"t{number}",
        descriptor="", split="validation",
    )  # fmt: skip


@examples(60, 2000)
@given(before=around, after=around, texts=st.lists(pieces, min_size=1, max_size=3))
def test_a_prompt_ends_where_its_text_does(
    before: list[str], after: list[str], texts: list[list[str]]
) -> None:
    process = processors.TemplateProcessing(
        single=" ".join([*before, "$A", *after]), special_tokens=list(IDS.items())
    )
    TOKENIZER.backend_tokenizer.post_processor = process
    prompts = [prompt(f"people {' '.join(own)}", number) for number, own in enumerate(texts)]
    _, encoded = encoded_prompts(TOKENIZER, prompts, chat_template=False, prompt_tokens=None)
    for one, ids in zip(prompts, encoded, strict=True):
        bare = TOKENIZER(one.text, add_special_tokens=False)["input_ids"]
        assert list(ids) == [*(IDS[name] for name in before), *bare]
    assert appended_tokens(TOKENIZER) == tuple(after)
