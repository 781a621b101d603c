"""What the benchmarks of sets are made of: scores of one model, its texts, and sets as gates.

A set is a gate per head: 0 removes it, 1 leaves it, and soft pruning is anything between. Parts
are kept in runs/bench/joint/ and not made again; delete the folder to measure again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers.modeling_utils import PreTrainedModel

from levelhead import runs
from levelhead.config import RunConfig
from levelhead.evaluation.base import Variant
from levelhead.models.gates import gated
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.sampling import derived_seed
from levelhead.scores import ScoreTable
from levelhead.scoring import PPL_ESTIMATORS
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.perplexity_effects import text_windows
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.score_table import score_table
from levelhead.scoring.token_gradient import token_gradient
from levelhead.session import Session
from levelhead.set_cost import SetCost
from levelhead.toxicity import score_texts

AXIS, GAMMA, ALPHA = "gender_and_sex", 0.3, 0.1
INPUTS = ("continuation", "full")
FOLDER = Path("runs/bench/joint")
Json = dict[str, Any]
Gates = Float[np.ndarray, "layers heads"]


def keep(name: str, make: Callable[[], Any]) -> Any:
    """A part's JSON, made once."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        runs.write_text(path, json.dumps(make()) + "\n")
    return json.loads(path.read_text())


def digest(value: Any) -> str:
    """A short name of a part's content, so that other sets are other parts."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]


def session_of(toxicity_input: str) -> Session:
    """The embedded model with the default options but for what the classifier reads."""
    return Session(RunConfig(toxicity_input=toxicity_input))


def problem_of(session: Session, split: Any, name: str) -> BiasProblem:
    """Prompts of a split; `search` are validation prompts with other random numbers."""
    problem = session.problem(AXIS, split)
    if name != "search":
        return problem
    return replace(problem, seed=derived_seed(problem.seed, "search") % 2**31)


def texts_of(problem: BiasProblem, name: str) -> SampledTexts:
    """One continuation of each prompt; the same tokens whatever the classifier reads."""

    def sample() -> list[list[int]]:
        return [list(row) for row in sample_texts(problem, silent, "").tokens]

    tokens = tuple(tuple(row) for row in keep(f"texts_{name}", sample))
    pairs = [problem.texts(i, row) for i, row in enumerate(tokens)]
    return SampledTexts(
        prompt=np.arange(len(tokens)),
        sample=np.zeros(len(tokens), dtype=int),
        tokens=tokens,
        texts=tuple(text for text, _ in pairs),
        toxicity=score_texts(problem.scorer, [read for _, read in pairs]),
    )


def cost_of(session: Session) -> tuple[SetCost, Json]:
    """The cost model of 16k tokens of validation text; with z_ppl, CPU seconds and diagnostics."""

    def make() -> Json:
        start = time.process_time()
        windows = text_windows(session.text_ids("validation"), session.base.model, 16_384)
        found = PPL_ESTIMATORS["curvature"](session.base.model, windows, silent, 0, GAMMA)
        seconds = time.process_time() - start
        if found.cost is None:
            raise SystemExit("curvature gave no cost model")
        runs.write_arrays(FOLDER / runs.FISHER, found.cost.arrays())
        about = {"cpu_seconds": seconds, "z_ppl": found.effect.tolist()}
        return about | {"diagnostics": found.diagnostics}

    about = keep("cost", make)
    cost = SetCost.of_arrays(runs.read_arrays(FOLDER / runs.FISHER))
    if cost is None:
        raise SystemExit(f"{FOLDER / runs.FISHER} is missing; delete {FOLDER}")
    return cost, about


def table_of(session: Session) -> ScoreTable:
    """Every head's effects on the axis as this session's classifier reads, with costs of sets."""
    cost, about = cost_of(session)
    path = FOLDER / f"scores_{session.config.toxicity_input}.csv"
    if not path.exists():
        problem = session.problem(AXIS, "validation")
        base = texts_of(problem, "validation")
        effects = axis_effects(problem, base, token_gradient(problem, base, silent))
        z_ppl = np.array(about["z_ppl"])
        # The table's perplexity columns, without the windows they rest on.
        table = score_table(_known(z_ppl), [effects])
        runs.write_text(path, table.to_csv())
    return ScoreTable.read(path).with_cost(cost)


def _known(z_ppl: Gates) -> Any:
    """z_ppl alone in the form of an estimator's result."""
    from types import SimpleNamespace

    nothing = np.zeros_like(z_ppl)
    return SimpleNamespace(
        effect=z_ppl, stderr=nothing, perplexity=1.0, nll_change=[0, 0], fisher=None
    )


def gates_of(selection: HeadSelection, shape: tuple[int, int]) -> Gates:
    """The gates of a selection: hard, or those it holds."""
    if selection.gates is not None:
        return np.array(selection.gates)
    gates = np.ones(shape)
    for layer, head in selection.heads:
        gates[layer, head] = 0
    return gates


def variant_of(model: PreTrainedModel, gates: Gates) -> Variant:
    """The model with these gates."""

    @contextmanager
    def scaled() -> Iterator[PreTrainedModel]:
        with gated(model, torch.tensor(gates, dtype=torch.float32)):
            yield model

    return scaled
