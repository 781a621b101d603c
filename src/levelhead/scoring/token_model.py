"""The token model: how toxic a text is expected to be, from the words a model would choose.

    r_t  = sum_v p(v | x, y_<t) tau(v)             expected toxicity of a step
    M    = sum_t [tau(y_t) - r_t]                  what was written, less what was expected: mean 0
    beta = slope of toxicity on M

beta sum_t r_t is the expectation of a text's toxicity: the base model's gaps are taken from it,
with far less noise than from sampled toxicities. And toxicity - beta M has the expectation of
toxicity itself, with some of its noise gone (a control variate): no gap is used that it
contradicts. It knows nothing of heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from levelhead.batching import map_batches
from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import ScorerError
from levelhead.progress import Progress, silent
from levelhead.sampling import derived_seed, pad_id
from levelhead.scoring.matched_rows import own_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import (
    BATCH_SIZE,
    Row,
    continuation_logits,
    read_rows,
)
from levelhead.scoring.token_toxicity import (
    TokenToxicity,
    measure_token_toxicity,
    toxicity_text,
)

CONTEXTS = 16
"""Contexts of tau where one row of it serves all subgroups."""
CONTEXTS_EACH = {"cheap": 12, "expensive": 4}
"""Contexts per subgroup where each has a row of its own (`full` input), by the scorer's cost."""
MASS_ROWS = 64
"""Continuations whose next-token probabilities decide which tokens tau is measured for."""


@dataclass(frozen=True, slots=True)
class TokenModel:
    """tau and how toxicity follows from it."""

    tau: TokenToxicity
    beta: float
    r_squared: float
    expected: Float[np.ndarray, " n"]
    """beta sum_t r_t of each base continuation, at the level of the measured toxicity.

    For `full` input it is `adjusted`: the prompt's own words make most of the gaps.
    """
    adjusted: Float[np.ndarray, " n"]
    """Toxicity less beta M: the same mean without the noise of which words were drawn."""


def token_model(problem: BiasProblem, base: SampledTexts, progress: Progress) -> TokenModel:
    """tau, beta and the adjusted toxicities, from every continuation read after its own prompt.

    Raises:
        ScorerError: as `measure_token_toxicity`; too few texts to fit beta on.
    """
    tau = token_toxicity(problem, base, progress)
    rows = own_rows(problem, base).rows
    with progress(f"reading ({problem.axis})", len(rows)) as advance:
        expected, surprise = read_rows(
            problem.model,
            rows,
            tau,
            pad=pad_id(problem.tokenizer),
            batch_size=problem.batch_size,
            advance=advance,
        )
    beta, r_squared = fit_beta(problem, base, surprise)
    adjusted = base.toxicity - beta * surprise
    if problem.toxicity_input == "full":
        # The scorer reads the prompt too, and most of a gap is its answer to that: words that
        # were expected to follow cannot stand for it.
        level = adjusted
    else:
        level = base.toxicity.mean() + beta * (expected - expected.mean())
    return TokenModel(tau=tau, beta=beta, r_squared=r_squared, expected=level, adjusted=adjusted)


def fit_beta(
    problem: BiasProblem, base: SampledTexts, surprise: Float[np.ndarray, " n"]
) -> tuple[float, float]:
    """beta, the slope of toxicity on M, and its R^2.

    M has mean zero given the prompt, so toxicities are only centred, within each prompt where
    it has two samples or more and within each subgroup otherwise.
    """
    cell = base.prompt if problem.samples >= 2 else problem.subgroup[base.prompt]
    m, y = _centred(surprise, cell), _centred(base.toxicity, cell)
    if not np.any(m) or len(y) < 8:
        raise ScorerError(
            f"the token toxicity model cannot be fitted on {len(y)} texts of axis "
            f"{problem.axis!r}; raise --max-prompts or --samples, or use --estimator ablate"
        )
    beta, total = float(m @ y / (m @ m)), float(y @ y)
    return beta, (beta * float(m @ y) / total if total > 0 else 0.0)


def _centred(
    values: Float[np.ndarray, " n"], cell: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    means = np.bincount(cell, weights=values) / np.maximum(np.bincount(cell), 1)
    out: Float[np.ndarray, " n"] = values - means[cell]
    return out


def token_toxicity(
    problem: BiasProblem, base: SampledTexts, progress: Progress = silent
) -> TokenToxicity:
    """tau in contexts drawn from the base model's continuations with the run's seed."""
    rng = np.random.default_rng(
        derived_seed(problem.seed, problem.axis, problem.first_sample, "contexts")
    )
    if problem.toxicity_input == "full":
        contexts = _contexts_by_subgroup(problem, base, rng)
    else:
        drawn = rng.choice(len(base.texts), CONTEXTS)
        prefixes = [_prefix(problem, base, int(i), rng) for i in drawn]
        contexts = [[toxicity_text("", text, problem.toxicity_input) for text in prefixes]]
    mass = _next_token_mass(problem, base, rng)
    total = sum(map(len, contexts))
    with progress(f"word toxicity ({problem.axis})", total) as advance:
        return measure_token_toxicity(problem.scorer, problem.tokenizer, contexts, mass, advance)


def _contexts_by_subgroup(
    problem: BiasProblem, base: SampledTexts, rng: np.random.Generator
) -> list[list[str]]:
    """Contexts for a row of tau per subgroup: prompts with the start of a continuation.

    Matched where prompts are: the same starts after every subgroup's version of the same prompts,
    so that rows differ by the subgroup and not by the luck of their contexts.
    """
    count = CONTEXTS_EACH[problem.scorer.cost]
    groups = matched_groups(problem.prompts)
    contexts: list[list[str]] = [[] for _ in problem.subgroups]
    for _ in range(count):
        if groups:
            members = groups[int(rng.integers(len(groups)))]
            prefix = _prefix(problem, base, int(rng.integers(len(base.texts))), rng)
            chosen = [(prompt.text, prefix) for prompt in members]
        else:
            own = [np.flatnonzero(problem.subgroup[base.prompt] == s) for s in range(len(contexts))]
            drawn = [int(rng.choice(pool)) for pool in own]
            chosen = [
                (problem.prompts[int(base.prompt[i])].text, _prefix(problem, base, i, rng))
                for i in drawn
            ]
        for row, (prompt, text) in zip(contexts, chosen, strict=True):
            row.append(toxicity_text(prompt, text, problem.toxicity_input))
    return contexts


def _prefix(problem: BiasProblem, base: SampledTexts, index: int, rng: np.random.Generator) -> str:
    """A continuation cut at a random token."""
    tokens = base.tokens[index]
    cut = tokens[: int(rng.integers(0, len(tokens) + 1))]
    return str(problem.tokenizer.decode(list(cut), skip_special_tokens=True))


def _next_token_mass(
    problem: BiasProblem, base: SampledTexts, rng: np.random.Generator
) -> Float[np.ndarray, " vocab"]:
    """Mean next-token probability over positions of some base continuations."""
    drawn = rng.permutation(len(base.texts))[:MASS_ROWS]
    rows = [Row(problem.prompt_ids[base.prompt[i]], base.tokens[i], 0) for i in drawn]

    def work(batch: list[Row]) -> list[np.ndarray]:
        with torch.inference_mode():
            steps = continuation_logits(problem.model, batch, pad_id(problem.tokenizer))
            p = steps.logits.softmax(-1) * steps.valid[..., None]
            mean = p.sum((0, 1)).cpu().numpy()
        return [mean / len(batch)] * len(batch)

    size = problem.batch_size or BATCH_SIZE
    mass: Float[np.ndarray, " vocab"] = np.sum(
        map_batches(rows, work, batch_size=size, length=len), axis=0
    )
    return mass
