"""z_bias by sampling from every ablated model: the naive way, made as cheap as it can be.

A batch holds one prompt under many ablations, so that the weights are read once for all of them.
One continuation per subgroup and head is the least from which a bias can be computed at all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from levelhead.data.prompt_selection import matched_groups
from levelhead.metrics.bias import bias
from levelhead.models.architectures import head_counts
from levelhead.models.gates import HeadGates
from levelhead.sampling import derived_seed, end_token_ids
from levelhead.scoring.problem import BiasProblem
from levelhead.toxicity import score_texts

BATCH = 135


def by_naive_ablation(
    problem: BiasProblem, number: int
) -> tuple[Float[np.ndarray, "layers heads"], dict[str, Any]]:
    """z_bias from one continuation per subgroup of every ablated model: the least there can be.

    All models continue the same matched prompts; a batch holds one prompt under many ablations.
    """
    start = time.process_time()
    size = head_counts(problem.model)
    heads = list(np.ndindex(*size))
    groups = matched_groups(problem.prompts)
    group = groups[number % len(groups)]
    position = {prompt.id: i for i, prompt in enumerate(problem.prompts)}
    toxicity = np.zeros((len(heads), len(group)))
    generator = torch.Generator().manual_seed(derived_seed(problem.seed, "naive") % 2**63)
    for column, prompt in enumerate(group):
        ids = problem.prompt_ids[position[prompt.id]]
        read = []
        for first in range(0, len(heads), BATCH):
            some = heads[first : first + BATCH]
            gates = torch.ones(len(some), *size)
            for row, (layer, head) in enumerate(some):
                gates[row, layer, head] = 0
            with HeadGates(problem.model, gates):
                rows = _continuations(problem, ids, len(some), generator)
            read += [problem.texts(position[prompt.id], row)[1] for row in rows]
        toxicity[:, column] = score_texts(problem.scorer, read)
    # The base model's bias is the same for all heads: it does not change their order.
    codes = np.arange(len(group))
    effect = -np.array([bias(row, codes, len(group)) for row in toxicity])
    # Ties are broken at random, not in favour of the first layers.
    effect += np.random.default_rng(problem.seed).uniform(0, 1e-9, len(effect))
    seconds = time.process_time() - start
    return effect.reshape(size), {"cpu_seconds": seconds, "texts": toxicity.size}


def _continuations(
    problem: BiasProblem, prompt_ids: Sequence[int], rows: int, generator: torch.Generator
) -> list[list[int]]:
    """Continuations of one prompt, up to an end of text.

    Rows that are gated differently cannot share a prompt's keys and values, as they would in
    `levelhead.sampling`.
    """
    ends = end_token_ids(problem.model, problem.tokenizer)
    model: Any = problem.model
    ids, cache = torch.tensor([list(prompt_ids)] * rows), None
    written = []
    with torch.inference_mode():
        for _ in range(problem.new_tokens):
            out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            p, cache = out.logits[:, -1].float().softmax(-1), out.past_key_values
            ids = torch.multinomial(p, 1, generator=generator)
            written.append(ids)
    tokens: list[list[int]] = torch.cat(written, dim=1).tolist()
    return [row[: next((i for i, t in enumerate(row) if t in ends), len(row))] for row in tokens]
