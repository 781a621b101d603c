"""The options as keywords of Python functions."""

from __future__ import annotations

from typing import TypedDict


class RunOptions(TypedDict, total=False):
    """Keywords of `score`, `evaluate` and `run`: the fields of `RunConfig` but `model`."""

    revision: str | None
    protocol: str
    axis: tuple[str, ...]
    all_axes: bool
    prompts: str
    toxicity: str | None
    second_toxicity: str | None
    unmasked: bool
    identity_terms: str | None
    toxicity_input: str
    text: str | None
    price_text: tuple[str, ...]
    seed: int
    prompt_seed: int
    samples: int | None
    looks: str | None
    max_prompts: int
    new_tokens: int
    prompt_tokens: int | None
    text_windows: str
    text_tokens: int
    unit: str
    estimator: str
    unmatched: bool
    common_random_numbers: bool
    reliability: float
    max_samples: int | None
    time_budget: float | None
    two_way: bool
    protect: str
    exhaustive: bool
    method: str
    gamma: float
    alpha: float
    budget: float | None
    average_what: str
    average_keep: str | None
    core: float | None
    finalists: int
    soft: bool
    repair: str
    max_ppl_increase: float
    chat_template: bool
    device: str
    dtype: str
    threads: int | None
    batch_size: int | None
