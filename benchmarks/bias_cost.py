"""What scoring every head costs: the token-level gradient against naive ablation.

Both on the same prompts; naive ablation (one sample per prompt from every ablated model) is
measured on a few heads, interleaved, and extrapolated to all of them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from levelhead.config import RunConfig
from levelhead.models.architectures import head_counts
from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.scoring.problem import sample_texts
from levelhead.scoring.token_gradient import token_gradient
from levelhead.session import Session


def measure(quick: bool) -> dict[str, Any]:
    """CPU seconds of both, and their ratio."""
    session = Session(RunConfig(max_prompts=20 if quick else 100))
    problem = session.problem("gender_and_sex", "validation")
    num_layers, num_heads = head_counts(problem.model)
    rng = np.random.default_rng(0)
    chosen = [divmod(int(i), num_heads) for i in rng.permutation(num_layers * num_heads)]
    gradient, naive = [], []
    for turn, (layer, head) in enumerate(chosen[: 1 if quick else 3]):
        again = replace(problem, seed=turn)
        start = time.process_time()
        base = sample_texts(again, silent, "")
        token_gradient(again, base, silent)
        gradient.append(time.process_time() - start)
        start = time.process_time()
        with ablate(problem.model, {layer: [head]}):
            sample_texts(again, silent, "", stream="without ")
        naive.append(time.process_time() - start)
    heads = num_layers * num_heads
    extrapolated = float(np.mean(naive)) * heads
    return {
        "prompts": len(problem.prompts),
        "heads": heads,
        "token_gradient_cpu_seconds": float(np.mean(gradient)),
        "naive_cpu_seconds_per_head": float(np.mean(naive)),
        "naive_cpu_seconds_extrapolated": extrapolated,
        "naive_heads_measured": len(naive),
        "times_less": extrapolated / float(np.mean(gradient)),
    }
