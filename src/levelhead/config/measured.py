"""Options of what is measured: the model, prompts, scorers and texts, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass

from levelhead.config.choices import (
    EVALUATE,
    PROTOCOLS,
    SCORE,
    TEXT_WINDOWS,
    TOXICITY_INPUTS,
)
from levelhead.config.fields import option


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions:
    """What scoring and evaluating both read and write; a part of `RunConfig`."""

    model: str | None = option(None, "Hub id or local folder; none: the embedded model.")
    revision: str | None = option(None, "Model revision on the hub.", SCORE, EVALUATE)
    protocol: str = option(
        "default",
        "paper: the authors' settings (22 prompt tokens, 40 new ones, full input, 3 samples, "
        "estimator ablate, their perplexity windows) for all options that are not given.",
        SCORE, EVALUATE, choices=PROTOCOLS,
    )  # fmt: skip
    axis: tuple[str, ...] = option(
        ("gender_and_sex",),
        "Social axis; repeatable. The first is the one heads are selected for.",
        SCORE, EVALUATE, common=True,
    )  # fmt: skip
    all_axes: bool = option(
        False, "Evaluate every axis of the prompts, not only the scored ones.", EVALUATE
    )
    prompts: str = option(
        "builtin",
        "builtin, holistic-bias, holistic-bias:FOLDER, or a CSV or JSONL file.",
        SCORE, EVALUATE, common=True,
    )  # fmt: skip
    toxicity: str | None = option(
        None,
        "toxicityclassifier (default for the embedded model), detoxify (default for a named one), "
        "profanity-check, sentiment, or a hub id or folder of a sequence classifier; with "
        "over-0.5: in front, the share over 0.5. Identity words are masked, unless --unmasked.",
        SCORE, EVALUATE, common=True, flag="--scorer", old=("--toxicity",),
    )  # fmt: skip
    second_toxicity: str | None = option(
        None, "A second scorer of the same texts (default: the other offline one), or none.",
        EVALUATE, flag="--second-scorer", old=("--second-toxicity",),
    )  # fmt: skip
    unmasked: bool = option(
        False,
        "Let the classifier read identity words: what it makes of the words themselves (the echo) "
        "then counts as bias.",
        SCORE, EVALUATE,
    )  # fmt: skip
    identity_terms: str | None = option(
        None, "A file of more words that name groups, one a line; they are masked too.",
        SCORE, EVALUATE,
    )  # fmt: skip
    toxicity_input: str = option(
        "continuation",
        "What the classifier reads: only what the model wrote, or prompt and continuation.",
        SCORE, EVALUATE, choices=TOXICITY_INPUTS, flag="--scorer-input", old=("--toxicity-input",),
    )  # fmt: skip
    text: str | None = option(
        None,
        "Perplexity text: pydoc (default for the embedded model), wikitext-2 (default for a "
        "named one), literature, everyday, or a text file.",
        SCORE, EVALUATE, common=True,
    )  # fmt: skip
    price_text: tuple[str, ...] = option(
        (),
        "Another text to measure the price on, as for --text; repeatable (default: literature and "
        "everyday, which are part of levelhead), or none. The worst text counts.",
        EVALUATE,
    )
    seed: int = option(
        0, "Seed of continuations and contexts.", SCORE, EVALUATE, minimum=0, common=True
    )
    prompt_seed: int = option(0, "Seed of which prompts are used.", SCORE, EVALUATE, minimum=0)
    samples: int | None = option(
        None, "Continuations per prompt (default: 1 to score, 4 to evaluate).",
        SCORE, EVALUATE, minimum=1, common=True,
    )  # fmt: skip
    looks: str | None = option(
        None,
        "Planned looks at the evaluation, continuations per test prompt at each, such as 4,8,16: "
        "they share the 5% error of the verdict, and no other look is taken.",
        EVALUATE,
    )
    max_prompts: int = option(
        400, "Prompts per axis and split, balanced over subgroups.", SCORE, EVALUATE, minimum=4,
        common=True,
    )  # fmt: skip
    new_tokens: int = option(
        40, "Tokens per continuation.", SCORE, EVALUATE, minimum=1, maximum=4096
    )
    prompt_tokens: int | None = option(
        None, "Cut prompts to as many tokens.", SCORE, EVALUATE, minimum=1
    )
    text_windows: str = option(
        "every-token",
        "Perplexity windows: every token once, or as the authors, who skip text.",
        SCORE, EVALUATE, choices=TEXT_WINDOWS,
    )  # fmt: skip
    text_tokens: int = option(16_384, "Tokens of perplexity text.", SCORE, EVALUATE, minimum=256)
    chat_template: bool = option(
        False, "Wrap prompts in the model's chat template.", SCORE, EVALUATE
    )
