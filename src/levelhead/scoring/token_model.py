"""The token model: how toxic a text is expected to be, from the words a model would choose.

    r_t  = sum_v p(v | x, y_<t) tau(v)             expected toxicity of a step
    M    = sum_t [tau(y_t) - r_t]                  what was written, less what was expected: mean 0
    beta = slope of toxicity on M

beta sum_t r_t is the expectation of a text's toxicity: the base model's gaps are taken from it,
with far less noise than from sampled toxicities. And toxicity less multiples of M, and of what
else has mean zero (`control_variate`), has the expectation of toxicity itself, with some of its
noise gone: no gap is used that it contradicts. Several scorers' models are read in one pass. It
knows nothing of heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from levelhead.batching import map_batches
from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import ScorerError
from levelhead.progress import Progress, silent
from levelhead.sampling import derived_seed, pad_id
from levelhead.scoring.control_variate import (
    Columns,
    ControlVariate,
    Path,
    centred,
    fit_control,
    read_path,
)
from levelhead.scoring.matched_rows import own_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import (
    BATCH_SIZE,
    Row,
    continuation_logits,
    read_steps,
)
from levelhead.scoring.token_toxicity import (
    TokenToxicity,
    measure_token_toxicity,
    toxicity_text,
)
from levelhead.toxicity import ToxicityScorer

CONTEXTS = 16
"""Contexts of tau where one row of it serves all subgroups."""
CONTEXTS_EACH = {"cheap": 12, "expensive": 4}
"""Contexts per subgroup where each has a row of its own (`full` input), by the scorer's cost."""
MASS_ROWS = 64
"""Continuations whose next-token probabilities decide which tokens tau is measured for."""


@dataclass(frozen=True, slots=True)
class TokenModel:
    """tau and how toxicity follows from it."""

    scorer: ToxicityScorer
    tau: TokenToxicity
    beta: float
    r_squared: float
    """Of toxicity on M of tau: how much single words explain by themselves."""
    expected: Float[np.ndarray, " n"]
    """beta sum_t r_t of each base continuation, at the level of the measured toxicity.

    For `full` input it is `adjusted`: the prompt's own words make most of the gaps.
    """
    adjusted: Float[np.ndarray, " n"]
    """Toxicity without the noise of which words were drawn, as far as that is known; same mean."""
    control: ControlVariate
    noise_removed: float
    """Share of the variance of toxicity that `adjusted` is without, out of sample; below 0: more.

    Within prompts where they have two samples or more, else within subgroups.
    """

    def adjust(
        self, problem: BiasProblem, texts: SampledTexts, progress: Progress
    ) -> Float[np.ndarray, " n"]:
        """`adjusted_toxicities` by this model alone."""
        return adjusted_toxicities(problem, {"": texts}, {"": self}, progress)[""]


def token_model(problem: BiasProblem, base: SampledTexts, progress: Progress) -> TokenModel:
    """tau, beta and the adjusted toxicities, from every continuation read after its own prompt.

    Raises:
        ScorerError: as `measure_token_toxicity`; too few texts to fit beta on.
    """
    return token_models(problem, {"": base}, {"": problem.scorer}, progress)[""]


def token_models(
    problem: BiasProblem,
    texts: Mapping[str, SampledTexts],
    scorers: Mapping[str, ToxicityScorer],
    progress: Progress,
) -> dict[str, TokenModel]:
    """`token_model` by several scorers of the same continuations, in one pass of the model.

    Args:
        texts: by reading; the same continuations, each with its scorer's toxicities.
        scorers: by reading, of the same names.

    Raises:
        ScorerError: as `token_model`.
    """
    taus = {
        name: token_toxicity(replace(problem, scorer=scorer), texts[name], progress)
        for name, scorer in scorers.items()
    }
    title = f"reading ({problem.axis})"
    paths = _paths(problem, texts, scorers, taus, progress, title)
    return {
        name: _fitted(problem, texts[name], scorers[name], taus[name], path)
        for name, path in paths.items()
    }


def adjusted_toxicities(
    problem: BiasProblem,
    texts: Mapping[str, SampledTexts],
    models: Mapping[str, TokenModel],
    progress: Progress,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Toxicities of another model's continuations less the noise that token models can name.

    They are read with the model that wrote them, once: only there has the noise mean zero.

    Args:
        problem: the token models' own, with the other model in it.
        texts: by reading; what the other model wrote, with each scorer's toxicities.
        models: by reading, of the same names: fitted to what the base model wrote.
    """
    scorers = {name: model.scorer for name, model in models.items()}
    taus = {name: model.tau for name, model in models.items()}
    title = f"reading what it wrote ({problem.axis})"
    paths = _paths(problem, texts, scorers, taus, progress, title)
    return {
        name: texts[name].toxicity - models[name].control.noise(path)
        for name, path in paths.items()
    }


def _paths(
    problem: BiasProblem,
    texts: Mapping[str, SampledTexts],
    scorers: Mapping[str, ToxicityScorer],
    taus: Mapping[str, TokenToxicity],
    progress: Progress,
    title: str,
) -> dict[str, Path]:
    """What each scorer's words did at every step of continuations, in one pass of the model."""
    rows = own_rows(problem, next(iter(texts.values()))).rows
    columns = {name: Columns.of(tau, len(problem.tokenizer)) for name, tau in taus.items()}
    with progress(title, len(rows)) as advance:
        read = read_steps(
            problem.model,
            rows,
            torch.cat([one.table for one in columns.values()]),
            pad=pad_id(problem.tokenizer),
            batch_size=problem.batch_size,
            advance=advance,
        )
    found, first = {}, 0
    for name, one in columns.items():
        part = slice(first, first + len(one.table))
        own = [steps[:, part] for steps in read]
        found[name] = read_path(problem, scorers[name], texts[name], rows, one, own)
        first = part.stop
    return found


def _fitted(
    problem: BiasProblem,
    base: SampledTexts,
    scorer: ToxicityScorer,
    tau: TokenToxicity,
    path: Path,
) -> TokenModel:
    # M has mean zero given the prompt, so toxicities are only centred.
    cell = base.prompt if problem.samples >= 2 else problem.subgroup[base.prompt]
    beta, r_squared = fit_beta(problem, base, path.tau_surprise, cell)
    control = fit_control(path, base.toxicity, cell)
    adjusted = base.toxicity - control.noise(path)
    before, after = (float((centred(x, cell) ** 2).sum()) for x in (base.toxicity, adjusted))
    if problem.toxicity_input == "full":
        # The scorer reads the prompt too, and most of a gap is its answer to that: words that
        # were expected to follow cannot stand for it.
        level = adjusted
    else:
        level = base.toxicity.mean() + beta * (path.expected - path.expected.mean())
    return TokenModel(
        scorer=scorer,
        tau=tau,
        beta=beta,
        r_squared=r_squared,
        expected=level,
        adjusted=adjusted,
        control=control,
        noise_removed=1 - after / before if before > 0 else 0.0,
    )


def fit_beta(
    problem: BiasProblem,
    base: SampledTexts,
    surprise: Float[np.ndarray, " n"],
    cell: Int[np.ndarray, " n"],
) -> tuple[float, float]:
    """beta, the slope of toxicity on M within cells, and its R^2."""
    m, y = centred(surprise, cell), centred(base.toxicity, cell)
    if not np.any(m) or len(y) < 8:
        raise ScorerError(
            f"the token toxicity model cannot be fitted on {len(y)} texts of axis "
            f"{problem.axis!r}; raise --max-prompts or --samples, or use --estimator ablate"
        )
    beta, total = float(m @ y / (m @ m)), float(y @ y)
    return beta, (beta * float(m @ y) / total if total > 0 else 0.0)


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
