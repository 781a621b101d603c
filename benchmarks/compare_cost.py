"""What `levelhead compare` saves: points that share their base, against each from scratch.

From scratch is what judging one point takes by itself: load the model, continue the prompts, fit
the token model, remove the heads, read with both models, perplexity of both. `compare` does the
part of the base model once and gates one model in memory. Both are timed on random sets of heads,
in turn, and extrapolated to the points of the default grid.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from levelhead.config import HEAD_METHODS, RunConfig
from levelhead.evaluation.axis import expected_difference
from levelhead.evaluation.base import base_axis, pruned_model
from levelhead.evaluation.text import text_perplexity
from levelhead.experiments.compare import DRAWS
from levelhead.experiments.joint import GROUPS, TEXT_TOKENS, JointEvaluator
from levelhead.experiments.units import Units
from levelhead.models.architectures import head_counts
from levelhead.models.surgery import prune_heads
from levelhead.progress import silent
from levelhead.records import Head, HeadSelection
from levelhead.selection.budget import ALPHAS, GAMMAS
from levelhead.session import Session

AXIS = "gender_and_sex"
PROMPTS = 100
SETS = 4
"""Sets judged with a shared base; half as many from scratch."""
SHARE = 0.1


def measure(quick: bool) -> dict[str, Any]:
    """CPU seconds per point, shared and from scratch."""
    config = RunConfig(threads=1, max_prompts=20 if quick else PROMPTS)
    session = Session(config)
    session.problem(AXIS, "test")  # loaded, as a user of either has it
    rng = np.random.default_rng(0)
    layers, heads = head_counts(session.base.model)
    sets = [_random(rng, layers, heads) for _ in range(SETS)]
    with tempfile.TemporaryDirectory() as folder:
        judge = JointEvaluator(session=session, units=Units(Path(folder), {}), split="test")
        start = time.process_time()
        judge.base(AXIS)
        judge.text([])
        base = time.process_time() - start
        shared, scratch, apart = [], [], []
        for number, chosen in enumerate(sets):
            start = time.process_time()
            expected = judge.expected(AXIS, chosen)["value"]
            judge.text(chosen)
            shared.append(time.process_time() - start)
            if number % 2 == 0:
                start = time.process_time()
                apart.append(abs(_from_scratch(config, chosen) - expected))
                scratch.append(time.process_time() - start)
    points = (len(ALPHAS) - 1) * (len(GAMMAS) + len(HEAD_METHODS) - 1 + DRAWS)
    own, alone = float(np.mean(shared)), float(np.mean(scratch))
    return {
        "prompts": config.max_prompts,
        "points_of_the_default_grid": points,
        "base_cpu_seconds": base,
        "cpu_seconds_per_point": own,
        "cpu_seconds_per_point_from_scratch": alone,
        "sets_measured": [len(shared), len(scratch)],
        "times_less_cpu": points * alone / (base + points * own),
        "largest_difference_of_results": max(apart),
    }


def _random(rng: np.random.Generator, layers: int, heads: int) -> list[Head]:
    chosen = rng.permutation(layers * heads)[: int(SHARE * layers * heads)]
    return [divmod(int(i), heads) for i in chosen]


def _from_scratch(config: RunConfig, heads: list[Head]) -> float:
    """Expected difference of one set, with a model that has lost its heads physically."""
    session = Session(config)
    base = base_axis(session.problem(AXIS, "test"), silent, groups=GROUPS["test"])
    pruned = session.load(session.base_path).model
    prune_heads(pruned, HeadSelection.of(heads).by_layer)
    for name, model in (("base", session.base.model), ("pruned", pruned)):
        text_perplexity(session, model, "test", silent, name, TEXT_TOKENS)
    return expected_difference(base, pruned_model(pruned), silent).value
