"""Bias effects by the token-level gradient: every head from one backward pass.

Not sampled toxicity but its expectation under the next-token distribution is differentiated with
respect to head gates, on continuations that the base model wrote:

    dT_s(h) = - beta * mean over texts of s of  sum_t d r_t / d g_h   at all gates 1

beta is the slope of toxicity on M = sum_t [tau(y_t) - r_t]. M has mean zero, so beta sum_t r_t is
the token model's expectation of a text's toxicity: the base model's gaps are taken from it, with
far less noise than from sampled toxicities. And toxicity - beta M has the expectation of toxicity
itself, with some of its noise gone (a control variate): no gap is used that it contradicts.

With matched contexts (the default) the SAME continuation stands after every subgroup's version of
a prompt, so that contrasts between subgroups are paired. What this sees is the direct, first-order,
token-additive part of an effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from levelhead.batching import map_batches
from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import ScorerError
from levelhead.models.architectures import head_counts
from levelhead.models.gates import gated
from levelhead.progress import Progress, silent
from levelhead.records import Prompt
from levelhead.sampling import derived_seed, pad_id
from levelhead.scoring.problem import BiasProblem, HeadShifts, SampledTexts, group_shifts
from levelhead.scoring.teacher_forcing import (
    BATCH_SIZE,
    Row,
    continuation_logits,
    expected_toxicity,
    read_rows,
)
from levelhead.scoring.token_toxicity import (
    TokenToxicity,
    measure_token_toxicity,
    toxicity_text,
)

CONTEXTS = {"continuation": 16, "full": 4}
"""Contexts per row of tau: one row serves all subgroups, or one row per subgroup."""
MASS_ROWS = 64
"""Continuations whose next-token probabilities decide which tokens tau is measured for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedRows:
    """Texts to differentiate: continuation `source[i]` read after prompt `prompt[i]`."""

    rows: tuple[Row, ...]
    prompt: Int[np.ndarray, " rows"]
    source: Int[np.ndarray, " rows"]


@dataclass(frozen=True, slots=True)
class TokenModel:
    """tau and how toxicity follows from it."""

    tau: TokenToxicity
    beta: float
    r_squared: float
    expected: Float[np.ndarray, " n"]
    """beta sum_t r_t of each base continuation, at the level of the measured toxicity."""
    adjusted: Float[np.ndarray, " n"]
    """Toxicity less beta M: the same mean without the noise of which words were drawn."""


def token_gradient(
    problem: BiasProblem, base: SampledTexts, progress: Progress, *, matched: bool = True
) -> HeadShifts:
    """Shifts of every head by the token-level gradient.

    Raises:
        ScorerError: token toxicity is all zero, or explains nothing of the scorer's answers.
    """
    model = token_model(problem, base, progress)
    chosen = matched_rows(problem, base) if matched else own_rows(problem, base)
    size = head_counts(problem.model)
    pad = pad_id(problem.tokenizer)

    def work(rows: list[Row]) -> list[np.ndarray]:
        gates = torch.ones(len(rows), *size, device=problem.model.device, requires_grad=True)
        with gated(problem.model, gates):
            steps = continuation_logits(problem.model, rows, pad)
            r = expected_toxicity(steps, rows, model.tau)
            (gradient,) = torch.autograd.grad(r.sum(), gates)
        return list(gradient.double().cpu().numpy())

    with progress(f"gradients ({problem.axis})", len(chosen.rows)) as advance:
        gradients = map_batches(
            chosen.rows,
            work,
            batch_size=problem.batch_size or BATCH_SIZE,
            length=len,
            advance=advance,
        )
    return group_shifts(
        -model.beta * np.stack(gradients),
        problem.subgroup[chosen.prompt],
        problem.template[chosen.prompt],
        base.sample[chosen.source],
        len(problem.subgroups),
        model.expected,
        model.adjusted,
        {
            "estimator": "token-gradient",
            "matched_contexts": matched,
            "beta": model.beta,
            "token_toxicity_r2": model.r_squared,
            "token_toxicity_tokens": len(model.tau.token_ids),
            "classifier_calls": model.tau.classifier_calls,
            "rows": len(chosen.rows),
        },
    )


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
    return TokenModel(
        tau=tau,
        beta=beta,
        r_squared=r_squared,
        expected=base.toxicity.mean() + beta * (expected - expected.mean()),
        adjusted=base.toxicity - beta * surprise,
    )


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
    rng = np.random.default_rng(derived_seed(problem.seed, problem.axis, "contexts"))
    full = problem.toxicity_input == "full"
    pools = (
        [np.flatnonzero(problem.subgroup[base.prompt] == s) for s in range(len(problem.subgroups))]
        if full
        else [np.arange(len(base.texts))]
    )
    contexts = []
    for pool in pools:
        drawn = rng.choice(pool, CONTEXTS[problem.toxicity_input], replace=True)
        contexts.append([_prefix(problem, base, int(i), rng) for i in drawn])
    mass = _next_token_mass(problem, base, rng)
    total = sum(map(len, contexts))
    with progress(f"word toxicity ({problem.axis})", total) as advance:
        return measure_token_toxicity(problem.scorer, problem.tokenizer, contexts, mass, advance)


def _prefix(problem: BiasProblem, base: SampledTexts, index: int, rng: np.random.Generator) -> str:
    """A continuation cut at a random token, as the classifier would read it."""
    tokens = base.tokens[index]
    cut = tokens[: int(rng.integers(0, len(tokens) + 1))]
    text = str(problem.tokenizer.decode(list(cut), skip_special_tokens=True))
    prompt = problem.prompts[int(base.prompt[index])].text
    return toxicity_text(prompt, text, problem.toxicity_input)


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


def own_rows(problem: BiasProblem, base: SampledTexts) -> MatchedRows:
    """Every continuation after its own prompt (unmatched contexts)."""
    pairs = [(int(p), i) for i, p in enumerate(base.prompt)]
    return _rows(problem, base, pairs)


def matched_rows(
    problem: BiasProblem, base: SampledTexts, max_groups: int | None = None
) -> MatchedRows:
    """One continuation per group and sample after every subgroup's version of the prompt.

    The subgroup whose continuation is used rotates over groups and samples. Prompts without a
    counterpart in every subgroup keep their own continuations. With `max_groups`, only so many
    groups, spread evenly over templates.
    """
    position = {prompt.id: i for i, prompt in enumerate(problem.prompts)}
    written = {
        (int(p), int(k)): i for i, (p, k) in enumerate(zip(base.prompt, base.sample, strict=True))
    }
    pairs: list[tuple[int, int]] = []
    for number, members in enumerate(_thinned(matched_groups(problem.prompts), max_groups)):
        group = [position[prompt.id] for prompt in members]
        for sample in range(problem.samples):
            source = group[(number + sample) % len(group)]
            pairs += [(prompt, written[source, sample]) for prompt in group]
    whole = {prompt.id for group in matched_groups(problem.prompts) for prompt in group}
    alone = [i for i, p in enumerate(base.prompt) if problem.prompts[p].id not in whole]
    pairs += [(int(base.prompt[i]), i) for i in alone]
    return _rows(problem, base, pairs)


def _thinned(groups: list[list[Prompt]], most: int | None) -> list[list[Prompt]]:
    if most is None or len(groups) <= most:
        return groups
    return [groups[i] for i in np.linspace(0, len(groups) - 1, most).round().astype(int)]


def _rows(
    problem: BiasProblem, base: SampledTexts, pairs: Sequence[tuple[int, int]]
) -> MatchedRows:
    subgroup = problem.subgroup
    return MatchedRows(
        rows=tuple(
            Row(problem.prompt_ids[prompt], base.tokens[source], int(subgroup[prompt]))
            for prompt, source in pairs
        ),
        prompt=np.array([prompt for prompt, _ in pairs]),
        source=np.array([source for _, source in pairs]),
    )
