"""What an estimator of bias effects is given and what it returns: the interface of `scoring`.

Every estimator turns a `BiasProblem` and the base model's own continuations into `HeadShifts`:
by how much each subgroup's mean toxicity moves when a head is ablated, in replicates that can be
split and resampled. `effects.py` does the rest (z_bias, standard errors, reliability) for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import PromptError
from levelhead.progress import Progress
from levelhead.records import Continuation, Prompt
from levelhead.sampling import Draw, sample_continuations
from levelhead.scoring.encoding import encoded_prompts
from levelhead.scoring.token_toxicity import refuse_without_words, toxicity_text
from levelhead.toxicity import Masked, Masker, ToxicityScorer, score_texts, score_texts_once

MAIN, PLAIN, MASKED, SECOND = "main", "plain", "masked", "second"
"""Readings by what they are for: the one that verdicts rest on, and those that stand beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasProblem:
    """One axis to measure: a model, a scorer, prompts, and how to sample."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    scorer: ToxicityScorer
    prompts: tuple[Prompt, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    toxicity_input: str
    seed: int
    samples: int
    new_tokens: int
    batch_size: int | None
    first_sample: int = 0
    """Continuations are numbered from here: other numbers, other random draws."""
    two_way: bool = False
    """Standard errors over descriptors too, not over templates alone."""
    readers: Mapping[str, ToxicityScorer] = field(default_factory=dict)
    """Other scorers that read the same texts where models are compared, by what they are for:
    `PLAIN` or `MASKED`, `SECOND`."""
    names: Mapping[str, Masker] = field(default_factory=dict)
    """By subgroup: finds the words that name it."""

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scorer: ToxicityScorer,
        prompts: Sequence[Prompt],
        *,
        toxicity_input: str = "continuation",
        seed: int = 0,
        samples: int = 1,
        new_tokens: int = 40,
        batch_size: int | None = None,
        chat_template: bool = False,
        prompt_tokens: int | None = None,
        two_way: bool = False,
        readers: Mapping[str, ToxicityScorer] | None = None,
        names: Mapping[str, Masker] | None = None,
    ) -> BiasProblem:
        """Encode the prompts of one axis, cut to `prompt_tokens` if that is given.

        Raises:
            PromptError: fewer than two subgroups have prompts, they are of a single template, or
                two subgroups have the same tokens.
            ModelError: the tokenizer has no words.
        """
        if len({prompt.template for prompt in prompts}) == 1:
            raise PromptError(
                f"the prompts of axis {prompts[0].axis!r} are all of one template, "
                f"{prompts[0].template!r}: intervals and reliability compare templates; give at "
                "least 2 (column `template`), better 20 or more, or a larger --max-prompts"
            )
        found = {prompt.subgroup for prompt in prompts}
        if len(found) < 2:
            raise PromptError(
                f"an axis needs at least two subgroups with prompts; found {len(found)}"
                f" ({', '.join(sorted(found)) or 'no prompts'})"
            )
        alone = {p.subgroup: p.descriptor for p in prompts}
        if two_way and (single := [g for g in alone if _descriptors(prompts, g) < 2]):
            raise PromptError(
                f"--two-way takes descriptors as random, but subgroup {single[0]!r} has only one "
                f"({alone[single[0]]!r}): give at least 2 (column `descriptor`), or leave it out"
            )
        refuse_without_words(tokenizer)
        prompts, encoded = encoded_prompts(
            tokenizer, prompts, chat_template=chat_template, prompt_tokens=prompt_tokens
        )
        return cls(
            model=model,
            tokenizer=tokenizer,
            scorer=scorer,
            prompts=tuple(prompts),
            prompt_ids=tuple(encoded),
            toxicity_input=toxicity_input,
            seed=seed,
            samples=samples,
            new_tokens=new_tokens,
            batch_size=batch_size,
            two_way=two_way,
            readers=readers or {},
            names=names or {},
        )

    @property
    def axis(self) -> str:
        """The axis of the prompts."""
        return self.prompts[0].axis

    @property
    def subgroups(self) -> tuple[str, ...]:
        """Subgroup names, sorted; their positions are the codes used in arrays."""
        return tuple(sorted({prompt.subgroup for prompt in self.prompts}))

    @property
    def subgroup(self) -> Int[np.ndarray, " prompts"]:
        """Subgroup code of each prompt."""
        codes = {name: code for code, name in enumerate(self.subgroups)}
        return np.array([codes[prompt.subgroup] for prompt in self.prompts])

    @property
    def template(self) -> Int[np.ndarray, " prompts"]:
        """Template code of each prompt: the clusters of intervals."""
        names = sorted({prompt.template for prompt in self.prompts})
        codes = {name: code for code, name in enumerate(names)}
        return np.array([codes[prompt.template] for prompt in self.prompts])

    @property
    def descriptors(self) -> tuple[tuple[str, ...], ...]:
        """The words that name each subgroup, sorted; their places are the codes of `descriptor`."""
        names: dict[str, set[str]] = {}
        for prompt in self.prompts:
            names.setdefault(prompt.subgroup, set()).add(prompt.descriptor)
        return tuple(tuple(sorted(names[subgroup])) for subgroup in self.subgroups)

    @property
    def descriptor(self) -> Int[np.ndarray, " prompts"]:
        """Place of each prompt's descriptor among its subgroup's."""
        named = zip(self.subgroups, self.descriptors, strict=True)
        place = {(group, name): i for group, own in named for i, name in enumerate(own)}
        return np.array([place[prompt.subgroup, prompt.descriptor] for prompt in self.prompts])

    @property
    def weights(self) -> Float[np.ndarray, " subgroups"]:
        """Share of the axis' prompts that each subgroup has; T_S is the mean of T_s by weight."""
        counts = np.bincount(self.subgroup, minlength=len(self.subgroups))
        share: Float[np.ndarray, " subgroups"] = counts / counts.sum()
        return share

    def texts(self, prompt: int, tokens: Sequence[int]) -> tuple[str, str]:
        """(what the model wrote, what the classifier reads) for one continuation."""
        text = str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))
        return text, toxicity_text(self.prompts[prompt].text, text, self.toxicity_input)


def _descriptors(prompts: Sequence[Prompt], subgroup: str) -> int:
    return len({prompt.descriptor for prompt in prompts if prompt.subgroup == subgroup})


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTexts:
    """Continuations of a problem's prompts by one model, n = prompts x samples, with toxicity."""

    prompt: Int[np.ndarray, " n"]
    sample: Int[np.ndarray, " n"]
    tokens: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    toxicity: Float[np.ndarray, " n"]

    def read_by(self, scorer: ToxicityScorer, problem: BiasProblem) -> SampledTexts:
        """The same continuations with another scorer's toxicities."""
        read = [
            toxicity_text(problem.prompts[int(p)].text, text, problem.toxicity_input)
            for p, text in zip(self.prompt, self.texts, strict=True)
        ]
        return replace(self, toxicity=score_texts_once(scorer, read)[0])

    def records(
        self, problem: BiasProblem, model: Literal["base", "pruned"] = "base"
    ) -> list[Continuation]:
        """The continuations as they are kept in the run folder."""
        plain: Sequence[float | None] = [None] * len(self.texts)
        if isinstance(problem.scorer, Masked):
            plain = [float(x) for x in self.read_by(problem.scorer.inner, problem).toxicity]
        return [
            Continuation(
                prompt_id=problem.prompts[p].id,
                axis=problem.prompts[p].axis,
                subgroup=problem.prompts[p].subgroup,
                sample=int(k),
                split=problem.prompts[p].split,
                model=model,
                seed=problem.seed,
                text=text,
                toxicity=float(tox),
                toxicity_plain=unmasked,
                token_ids=tokens,
            )
            for p, k, text, tox, unmasked, tokens in zip(
                self.prompt, self.sample, self.texts, self.toxicity, plain, self.tokens, strict=True
            )
        ]


def sample_texts(
    problem: BiasProblem, progress: Progress, description: str, *, stream: str = ""
) -> SampledTexts:
    """Sample and score every prompt `samples` times.

    The subgroups' versions of a prompt use common random numbers, which pairs their gaps.

    Args:
        stream: draws with another stream are independent; the same stream and seed give common
            random numbers to whatever model is in the problem.
    """
    prompt = np.repeat(np.arange(len(problem.prompts)), problem.samples)
    numbers = problem.first_sample + np.arange(problem.samples)
    sample = np.tile(numbers, len(problem.prompts))
    noise = {
        record.id: f"{record.template}/{record.variant}"
        for group in matched_groups(problem.prompts)
        for record in group
    }
    draws = []
    for p, k in zip(prompt, sample, strict=True):
        name = problem.prompts[p].id
        draws.append(Draw(problem.prompt_ids[p], stream + noise.get(name, name), int(k)))
    with progress(description, len(draws)) as advance:
        tokens = sample_continuations(
            problem.model,
            problem.tokenizer,
            draws,
            seed=problem.seed,
            new_tokens=problem.new_tokens,
            batch_size=problem.batch_size,
            advance=advance,
        )
    pairs = [problem.texts(int(p), ids) for p, ids in zip(prompt, tokens, strict=True)]
    return SampledTexts(
        prompt=prompt,
        sample=sample,
        tokens=tuple(tokens),
        texts=tuple(text for text, _ in pairs),
        toxicity=score_texts(problem.scorer, [read for _, read in pairs]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadShifts:
    """Change of each subgroup's mean toxicity when a head is ablated, in replicates.

    Positive: ablating the head makes what is written about the subgroup more toxic. A replicate
    is one (template, descriptor, sample); `count` is how many texts stand behind each of its
    entries.
    """

    shift: Float[np.ndarray, "replicates subgroups layers heads"]
    count: Float[np.ndarray, "replicates subgroups"]
    template: Int[np.ndarray, " replicates"]
    sample: Int[np.ndarray, " replicates"]
    descriptor: Int[np.ndarray, " replicates"]
    """As `BiasProblem.descriptor`."""
    toxicity: Float[np.ndarray, " n"]
    """Toxicity of each base continuation as the estimator sees it: what `shift` is a change of."""
    unbiased: Float[np.ndarray, " n"]
    """The same with the scorer's expectation, if noisier: what `toxicity` must not contradict."""
    diagnostics: dict[str, Any]


def group_shifts(
    rows: Float[np.ndarray, "rows layers heads"],
    subgroup: Int[np.ndarray, " rows"],
    template: Int[np.ndarray, " rows"],
    sample: Int[np.ndarray, " rows"],
    num_subgroups: int,
    toxicity: Float[np.ndarray, " n"],
    unbiased: Float[np.ndarray, " n"],
    diagnostics: dict[str, Any],
    descriptor: Int[np.ndarray, " rows"] | None = None,
) -> HeadShifts:
    """Average per-text shifts into replicates (template, descriptor, sample)."""
    descriptor = np.zeros_like(template) if descriptor is None else descriptor
    keys, unit = np.unique(
        np.stack([template, descriptor, sample], axis=1), axis=0, return_inverse=True
    )
    shift = np.zeros((len(keys), num_subgroups, *rows.shape[1:]))
    count = np.zeros((len(keys), num_subgroups))
    np.add.at(shift, (unit.reshape(-1), subgroup), rows)
    np.add.at(count, (unit.reshape(-1), subgroup), 1.0)
    shift /= np.maximum(count, 1)[:, :, None, None]
    return HeadShifts(
        shift=shift,
        count=count,
        template=keys[:, 0],
        descriptor=keys[:, 1],
        sample=keys[:, 2],
        toxicity=toxicity,
        unbiased=unbiased,
        diagnostics=diagnostics,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorOptions:
    """What a user may choose about estimators; each takes what concerns it."""

    matched: bool = True
    """Token-level estimators: the same continuation after every subgroup's version of a prompt."""
    common_random_numbers: bool = False
    """`ablate`: every ablated model draws the base model's random numbers."""
    alpha: float = 0.1
    """`hybrid`: share of heads to be pruned, whose boundary deserves the finite estimate."""
    protected: Bool[np.ndarray, "layers heads"] | None = None
    """`hybrid`: heads that cannot be pruned, whatever their effect on bias."""


DEFAULTS = EstimatorOptions()


class Estimator(Protocol):
    """Every estimator of bias effects: problem, the base model's continuations, progress."""

    def __call__(
        self,
        problem: BiasProblem,
        base: SampledTexts,
        progress: Progress,
        options: EstimatorOptions = DEFAULTS,
    ) -> HeadShifts:
        """Shifts of every head, one round: all samples of `base` belong to `problem`."""
        ...
