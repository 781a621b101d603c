"""Does the cost of the token-level gradient grow with the number of heads?

Random Llamas of one width and depth, whose only difference is into how many heads the width is
divided, read the same rows of text. Beside it naive ablation, which samples once per head: timed
on one head per round and model, and extrapolated to all. Neither looks at what the random models
write, so this says nothing about the quality of scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.records import Prompt
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.token_gradient import token_gradient
from levelhead.testing import COMMON_WORDS, TOXIC_WORDS, tiny_model, tiny_tokenizer

HEADS = (4, 8, 16, 32, 64)
LAYERS, WIDTH = 4, 512
TEMPLATES = (
    "I think {} are", "my friend said {} work", "they say {} always", "we met {} and they",
    "all {} here are", "some {} live in town and", "you know {} who are", "people like {}",
)  # fmt: skip
SUBGROUPS = ("women", "men", "gay", "queer")
ROUNDS, QUICK_ROUNDS = 7, 2


class WordShare:
    """Toxicity as the share of toxic words: cheap, and moved by single words."""

    name = identity = "word-share"
    cost = "cheap"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """In [0, 1], one per text."""
        split = [text.split() for text in texts]
        return np.array(
            [sum(w in TOXIC_WORDS for w in words) / (1 + len(words)) for words in split]
        )


def measure(quick: bool) -> dict[str, Any]:
    """CPU seconds for each number of heads, and their ratio to the cheapest, round by round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(QUICK_ROUNDS if quick else ROUNDS)
    finally:
        torch.set_num_threads(threads)


def problem_with(num_heads: int) -> BiasProblem:
    """The benchmark's prompts for a random Llama of `num_heads` per layer."""
    model = tiny_model(
        "llama",
        num_layers=LAYERS,
        num_heads=num_heads,
        num_key_value_heads=num_heads,
        hidden_size=WIDTH,
    )
    prompts = [
        Prompt(
            id=f"{t}/{subgroup}",
            text=text.format(subgroup),
            axis="growth",
            subgroup=subgroup,
            template=f"t{t}",
            descriptor=subgroup,
            split="validation",
        )
        for t, text in enumerate(TEMPLATES)
        for subgroup in SUBGROUPS
    ]
    model.requires_grad_(False)
    return BiasProblem.of(model, tiny_tokenizer(), WordShare(), prompts)


def written_rows(problem: BiasProblem) -> SampledTexts:
    """Continuations of random words, the same for every model: none ends early."""
    rng = np.random.default_rng(0)
    words = [f"▁{word}" for word in (*COMMON_WORDS, *TOXIC_WORDS)]
    ids = problem.tokenizer.convert_tokens_to_ids(words)
    count = len(problem.prompts)
    tokens = [tuple(map(int, rng.choice(ids, problem.new_tokens))) for _ in range(count)]
    texts = [problem.texts(prompt, row) for prompt, row in enumerate(tokens)]
    return SampledTexts(
        prompt=np.arange(count),
        sample=np.zeros(count, dtype=int),
        tokens=tuple(tokens),
        texts=tuple(text for text, _ in texts),
        toxicity=problem.scorer([read for _, read in texts]),
    )


def _measure(rounds: int) -> dict[str, Any]:
    problems = {heads: problem_with(heads) for heads in HEADS}
    rows = written_rows(problems[HEADS[0]])
    gradient = np.zeros((rounds + 1, len(HEADS)))
    naive = np.zeros_like(gradient)
    rng = np.random.default_rng(0)
    for turn in range(rounds + 1):
        for column in rng.permutation(len(HEADS)):
            problem = replace(problems[HEADS[column]], seed=turn)
            layer, head = int(rng.integers(LAYERS)), int(rng.integers(HEADS[column]))
            gradient[turn, column] = _seconds(lambda p=problem: token_gradient(p, rows, silent))
            with ablate(problem.model, {layer: [head]}):
                naive[turn, column] = _seconds(lambda p=problem: sample_texts(p, silent, ""))
    gradient, naive = gradient[1:], naive[1:]  # the first round warms up
    cheapest = int(np.argmin(np.median(gradient, axis=0)))
    ratio = gradient / gradient[:, [cheapest]]
    total = LAYERS * np.array(HEADS)
    extrapolated = np.median(naive, axis=0) * total
    return {
        "width": WIDTH,
        "layers": LAYERS,
        "rows": len(rows.tokens),
        "rounds": rounds,
        "heads": [
            {
                "heads_per_layer": heads,
                "heads": int(total[i]),
                "token_gradient_cpu_seconds": float(np.median(gradient[:, i])),
                "ratio_to_cheapest": float(np.median(ratio[:, i])),
                "ratio_least": float(ratio[:, i].min()),
                "ratio_most": float(ratio[:, i].max()),
                "naive_cpu_seconds_extrapolated": float(extrapolated[i]),
                "naive_ratio_to_fewest_heads": float(extrapolated[i] / extrapolated[0]),
            }
            for i, heads in enumerate(HEADS)
        ],
        "largest_ratio": float(np.median(ratio, axis=0).max()),
        "naive_largest_ratio": float(extrapolated.max() / extrapolated.min()),
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
