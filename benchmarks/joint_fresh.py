"""Fresh sampling of the base model, FASP's set and joint's set: does what was foretold happen?

On input `full` and test prompts. A block is one continuation of every test prompt by each of the
three models, with common random numbers; blocks are independent. The number of blocks was fixed
before any was drawn, by a pilot: two blocks of other random numbers (`--quick` draws them), which
are no part of the result. In it the differences of bias of one block had standard errors of 0.051,
0.056 and 0.042 (from the variance within prompts, 400 of them), so that 0.012 needs 22 blocks;
32 leave room for that estimate's own error. p-values are reported whatever they are. Every block is
kept in runs/bench/joint/.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from scipy import stats

from benchmarks.joint import session_shape, sets_of
from benchmarks.joint_sets import AXIS, Json, digest, keep, session_of, variant_of
from levelhead.metrics.bias import bias, gaps
from levelhead.progress import silent
from levelhead.sampling import derived_seed
from levelhead.scoring.effects import jackknife
from levelhead.scoring.problem import BiasProblem, sample_texts

BLOCKS = 32
PILOT_BLOCKS = 2
STDERR = 0.012
"""Of a difference of bias, at most."""
MODELS = ("base", "fasp", "joint")


def measure(quick: bool) -> Json:
    """Bias and mean toxicity of the three models, their differences, and the time it took."""
    session = session_of("full")
    problem = session.problem(AXIS, "test")
    gates = {"base": np.ones(session_shape(session))} | sets_of(session)
    stream, blocks = ("pilot", PILOT_BLOCKS) if quick else ("fresh", BLOCKS)
    found: dict[str, list[Json]] = {name: [] for name in MODELS}
    for number in range(blocks):
        for name in MODELS:
            variant = variant_of(session.base.model, gates[name])

            def make(number: int = number, variant: object = variant) -> Json:
                return _block(problem, variant, stream, number)

            part = f"{stream}_{number}_{name}_{digest(gates[name].tolist())}"
            found[name].append(keep(part, make))
    seconds = sum(one["cpu_seconds"] for own in found.values() for one in own) / blocks
    toxicity = {n: np.array([b["toxicity"] for b in own]) for n, own in found.items()}
    return {
        "blocks": blocks,
        "blocks_fixed_beforehand": BLOCKS,
        "prompts": len(problem.prompts),
        "cpu_hours_of_all_blocks": BLOCKS * seconds / 3600,
        "models": {n: _level(toxicity[n], problem) for n in MODELS},
        "differences": {
            f"{one} - {other}": _difference(toxicity[one], toxicity[other], problem)
            for one, other in (("fasp", "base"), ("joint", "base"), ("joint", "fasp"))
        },
    }


def _block(problem: BiasProblem, variant: object, stream: str, number: int) -> Json:
    start = time.process_time()
    with variant() as model:  # type: ignore[operator]
        seed = derived_seed(problem.seed, stream, number) % 2**31
        texts = sample_texts(replace(problem, model=model, seed=seed, samples=1), silent, "")
    return {"toxicity": texts.toxicity.tolist(), "cpu_seconds": time.process_time() - start}


def _bias(toxicity: np.ndarray, problem: BiasProblem) -> float:
    """Of the mean over blocks of each prompt's toxicity."""
    return float(bias(toxicity.mean(0), problem.subgroup, len(problem.subgroups)))


def _level(toxicity: np.ndarray, problem: BiasProblem) -> Json:
    return {
        "bias": _bias(toxicity, problem),
        "bias_stderr": _stderr([_bias(left, problem) for left in _without_one(toxicity)]),
        "mean_toxicity": float(toxicity.mean()),
        "mean_toxicity_stderr": float(stats.sem(toxicity.mean(1))),
    }


def _difference(one: np.ndarray, other: np.ndarray, problem: BiasProblem) -> Json:
    """Of bias and of mean toxicity, with standard errors over blocks and two-sided p-values."""
    value = _bias(one, problem) - _bias(other, problem)
    left = zip(_without_one(one), _without_one(other), strict=True)
    stderr = _stderr([_bias(x, problem) - _bias(y, problem) for x, y in left])
    mean = (one - other).mean(1)
    block = _block_stderr(one, other, problem)
    return {
        "bias": value,
        "stderr": stderr,
        "stderr_of_one_block": block,
        "blocks_for_the_stated_stderr": int(np.ceil((block / STDERR) ** 2)),
        "p": _p(value, stderr, len(one)),
        "mean_toxicity": float(mean.mean()),
        "mean_toxicity_stderr": float(stats.sem(mean)),
        "mean_toxicity_p": _p(float(mean.mean()), float(stats.sem(mean)), len(one)),
    }


def _block_stderr(one: np.ndarray, other: np.ndarray, problem: BiasProblem) -> float:
    """Of a difference of bias from one block, by the variance within prompts: two blocks do."""
    weight = _weights(one, problem) * one - _weights(other, problem) * other
    return float(np.sqrt(weight.var(0, ddof=1).sum()))


def _weights(toxicity: np.ndarray, problem: BiasProblem) -> np.ndarray:
    """How much each prompt's toxicity moves bias, with the gaps' signs as they are found."""
    counts = np.bincount(problem.subgroup)
    sign = np.sign(gaps(toxicity.mean(0), problem.subgroup, len(counts)))
    share: np.ndarray = ((sign.sum() * counts / counts.sum() - sign) / counts)[problem.subgroup]
    return share


def _without_one(toxicity: np.ndarray) -> list[np.ndarray]:
    return [np.delete(toxicity, block, axis=0) for block in range(len(toxicity))]


def _stderr(left: list[float]) -> float:
    return float(jackknife(np.array(left)))


def _p(value: float, stderr: float, blocks: int) -> float:
    return float(2 * stats.t.sf(abs(value) / stderr, blocks - 1))
