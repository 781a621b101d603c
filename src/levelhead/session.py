"""What a run's options resolve to: the model, scorer, prompts and text, each loaded once.

Everything that can be wrong with the user's input is found here, cheapest first, before any long
work. It computes no scores.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase

from levelhead.config import AVERAGE, RunConfig
from levelhead.data.embedded import embedded_model_path
from levelhead.data.gguf_files import check_gguf, gguf_model_path, is_gguf
from levelhead.data.holistic_bias import holistic_bias_terms
from levelhead.data.identity_terms import (
    IdentityTerms,
    read_terms,
    terms_of_builtin,
    terms_of_prompts,
)
from levelhead.data.identity_words import ALSO
from levelhead.data.prompts import load_prompts, select_prompts
from levelhead.data.texts import PerplexityText, load_text
from levelhead.errors import MissingExtraError, PromptError, ScorerError
from levelhead.fitting import repairer_of
from levelhead.models.loading import LoadedModel, check_base, load_base, resolve_device
from levelhead.models.repair import Repairer
from levelhead.models.units import unit_counts
from levelhead.plan import Plan
from levelhead.preflight import after, check_all
from levelhead.records import Prompt, Split, Unit
from levelhead.scoring.design import detectable
from levelhead.scoring.encoding import appended_tokens
from levelhead.scoring.matched_reader import Kept, nothing_kept
from levelhead.scoring.problem import MASKED, PLAIN, SECOND, BiasProblem
from levelhead.toxicity import (
    Masked,
    Masker,
    ToxicityScorer,
    check_scorer,
    load_scorer,
    refuse_masking_most,
)

EMBEDDED = "the embedded SmolLM2-135M-Instruct"
MODELS_COMPARED = 2
"""Test prompts are continued by two models, validation prompts by one."""
MASKED_PREFIX = "masked:"
NO_SCORER = "none"
SECOND_SCORERS = ("toxicityclassifier", "profanity-check")
"""Offline ones, the better first: the first that is not the run's own reads the texts too."""
EVALUATION_TEXT_SHARE = 0.5
"""Perplexity is compared on fewer tokens than heads are scored on: two paired numbers, not N."""
PRICE_TOKENS = 3_072
"""Of each further text that the price is measured on."""


@dataclass
class Session:
    """The inputs of a run, loaded when first needed."""

    config: RunConfig
    kept: Kept = nothing_kept
    """Continuations of validation prompts that a run has written: not to be sampled again."""
    fitted_as: Session | None = None
    """Whose text and prompts repairs are fitted to, where this one reads others than the run's."""
    _problems: dict[tuple[str, str], BiasProblem] = field(default_factory=dict)
    _texts: dict[tuple[str, str], PerplexityText] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = self.config.resolved()
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """All prompts of the axes in play, both splits."""
        axes = None if self.config.all_axes else self.config.axis
        prompts = load_prompts(self.config.prompts, axes)
        known = sorted({prompt.axis for prompt in prompts})
        for axis in self.config.axis:
            if axis not in known:
                raise PromptError(f"unknown axis {axis!r}; the prompts have {', '.join(known)}")
        return prompts

    @cached_property
    def terms(self) -> IdentityTerms:
        """Words that name groups: built-in ones, those of the prompts, and a list of the user's.

        Raises:
            PromptError: `identity_terms` cannot be read, or would mask most of the prompts.
        """
        found = terms_of_builtin().joined(IdentityTerms(others=ALSO))
        if self.config.prompts != "builtin":
            found = self._terms_of_source().joined(found)
        if self.config.identity_terms is not None:
            found = found.joined(read_terms(self.config.identity_terms))
        refuse_masking_most([prompt.text for prompt in self.prompts], found.every)
        return found

    def _terms_of_source(self) -> IdentityTerms:
        name, _, folder = self.config.prompts.partition(":")
        if name == "holistic-bias":
            axes = sorted({prompt.axis for prompt in self.prompts})
            return holistic_bias_terms(axes, folder or None)
        return terms_of_prompts(self.prompts)

    @cached_property
    def scorer(self) -> ToxicityScorer:
        """The toxicity scorer that bias rests on: it reads masked texts, unless `unmasked`."""
        plain = self.plain_scorer
        return plain if self.config.unmasked else self.masked(plain)

    @cached_property
    def plain_scorer(self) -> ToxicityScorer:
        """The same scorer of texts as they are."""
        return self.load_scorer(str(self.config.toxicity).replace(MASKED_PREFIX, ""))

    def masked(self, scorer: ToxicityScorer) -> ToxicityScorer:
        """A scorer of texts without the identity words in play.

        Raises:
            ScorerError: there are none.
        """
        return scorer if isinstance(scorer, Masked) else Masked(scorer, self.terms.every)

    @cached_property
    def second_scorer(self) -> ToxicityScorer | None:
        """Another scorer of the same texts, read in the same way; None: none is installed."""
        found = self._second_inner
        return found if found is None or self.config.unmasked else self.masked(found)

    @cached_property
    def _second_inner(self) -> ToxicityScorer | None:
        name = self.config.second_toxicity
        own = str(self.config.toxicity).replace(MASKED_PREFIX, "")
        if name == NO_SCORER:
            return None
        if name is not None:
            return self.load_scorer(name)
        try:
            return self.load_scorer(next(one for one in SECOND_SCORERS if one != own))
        except (MissingExtraError, ScorerError):
            return None  # nobody asked for it by name

    def load_scorer(self, name: str) -> ToxicityScorer:
        """The scorer of a name, on this run's device; `masked:` masks this run's identity words."""
        terms = self.terms.every if MASKED_PREFIX in name else ()
        return load_scorer(name, device=str(resolve_device(self.config.device)), terms=terms)

    def check(self) -> None:
        """Look at every input of scoring and evaluation; weights are not read.

        Raises:
            UserError: something is missing or cannot be used; a `PreflightError` lists several.
        """
        config = self.config
        check_all([
            ("model", self._check_model),
            ("prompts", self._check_prompts),
            ("identity words", after(lambda: self.prompts, lambda: self.terms)),
            (f"toxicity scorer {config.toxicity}", lambda: self.plain_scorer),
            (f"second scorer {config.second_toxicity}", lambda: self._second_inner),
            *((f"text {name}", partial(self._check_text, name))
              for name in dict.fromkeys((str(config.text), *config.price_texts))),
        ])  # fmt: skip
        self._check_scorers()

    def _check_model(self) -> None:
        model = self.config.model
        if model is not None and is_gguf(model):
            check_gguf(model)
        else:
            check_base(self.base_path, self.config.revision if model else None)

    def _check_prompts(self) -> None:
        for axis in self.config.axis:
            self.chosen_prompts(axis, "validation")
        for axis in self.evaluated_axes:
            self.chosen_prompts(axis, "test")

    def _check_text(self, name: str) -> None:
        """Both parts of the run's own text, the test part of another."""
        own: tuple[Split, ...] = ("validation", "test")
        for split in own if name == self.config.text else own[1:]:
            self.text(split, name)

    def _check_scorers(self) -> None:
        """Refuse scorers that tell nothing apart; the prompts may be in their language."""
        texts = [prompt.text for prompt in self.prompts[:200]]
        for scorer in (self.scorer, self.second_scorer):
            if scorer is not None:
                check_scorer(scorer, texts)

    def readers(self, split: Split) -> dict[str, ToxicityScorer]:
        """Who reads the texts besides `scorer` where models are compared, by what it is for."""
        if split == "validation":
            return {}
        found: dict[str, ToxicityScorer] = {}
        if isinstance(self.scorer, Masked):
            found[PLAIN] = self.scorer.inner
        elif self.terms.every:
            found[MASKED] = self.masked(self.scorer)
        second = self.second_scorer
        return found if second is None else found | {SECOND: second}

    def names(self, axis: str, subgroups: Collection[str]) -> dict[str, Masker]:
        """By subgroup, what finds the words that name it; those without words are left out."""
        known = {name: self.terms.of(axis, name) for name in sorted(subgroups)}
        return {name: Masker(terms) for name, terms in known.items() if terms}

    @cached_property
    def base(self) -> LoadedModel:
        """The unpruned model, checked to give finite logits."""
        return self.load(self.base_path)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's tokenizer."""
        found: Any = self.base.tokenizer  # load_base raises where there is none
        return cast(PreTrainedTokenizerBase, found)

    @cached_property
    def base_path(self) -> str:
        """What the auto classes are given for the base model."""
        model = self.config.model
        if model is None:
            return str(embedded_model_path())
        return str(gguf_model_path(model)) if is_gguf(model) else model

    def load(self, path: str) -> LoadedModel:
        """Load a model with this run's device and number format."""
        return load_base(
            path,
            revision=self.config.revision if path == self.config.model else None,
            dtype=self.config.dtype,
            device=self.config.device,
        )

    @property
    def model_name(self) -> str:
        """The base model as people call it."""
        return self.config.model or EMBEDDED

    @property
    def evaluated_axes(self) -> tuple[str, ...]:
        """The scored axes first, then, with all_axes, the others."""
        others = sorted({prompt.axis for prompt in self.prompts} - set(self.config.axis))
        return (*self.config.axis, *others)

    def text(self, split: Split, name: str | None = None) -> PerplexityText:
        """The perplexity text of a split, or that of another name."""
        key = (name or str(self.config.text), split)
        if key not in self._texts:
            self._texts[key] = load_text(key[0], split)
        return self._texts[key]

    def text_ids(self, split: Split, name: str | None = None) -> list[int]:
        """Token ids of a text: at most `text_tokens`, of one by name at most `PRICE_TOKENS`."""
        text = self.text(split, name).text
        # Six characters a token leave room for every tokenizer seen; the rest is not encoded.
        head = text[: self.config.text_tokens * 12]
        encode: Any = self.tokenizer
        ids: list[int] = encode(head, add_special_tokens=False, verbose=False)["input_ids"]
        share = 1 if split == "validation" else EVALUATION_TEXT_SHARE
        most = int(self.config.text_tokens * share)
        return ids[: most if name is None else min(most, PRICE_TOKENS)]

    @cached_property
    def repairer(self) -> Repairer:
        """Fits repairs to text (and prompts) of the validation split, never of the test split."""
        if self.fitted_as is not None:
            self.fitted_as.base = self.base
            return self.fitted_as.repairer
        return repairer_of(self)

    def chosen_prompts(self, axis: str, split: Split) -> list[Prompt]:
        """The prompts of an axis and split that this run uses."""
        config = self.config
        return select_prompts(self.prompts, axis, split, config.max_prompts, config.prompt_seed)

    def problem(self, axis: str, split: Split) -> BiasProblem:
        """The prompts of an axis and split, encoded, with how to sample them."""
        key = (axis, split)
        if key not in self._problems:
            config = self.config
            prompts = self.chosen_prompts(axis, split)
            validation = split == "validation"
            self._problems[key] = BiasProblem.of(
                self.base.model,
                self.tokenizer,
                self.scorer,
                prompts,
                toxicity_input=config.toxicity_input,
                seed=config.seed,
                samples=config.scoring_samples if validation else config.test_samples,
                new_tokens=config.new_tokens,
                batch_size=config.batch_size,
                chat_template=config.chat_template,
                prompt_tokens=config.prompt_tokens,
                two_way=config.two_way,
                readers=self.readers(split),
                names={} if validation else self.names(axis, {p.subgroup for p in prompts}),
            )
        return self._problems[key]

    def plan(self) -> Plan:
        """Check every input, as `check`, and count the work; the model is loaded."""
        self.check()
        averages = self.config.two_attempts or self.config.method == AVERAGE
        searches = self.config.budget is not None or self.config.method == "joint"
        searches &= self.config.method != AVERAGE
        per_prompt = self.config.scoring_samples * self.config.new_tokens
        tested = self.config.test_samples * self.config.new_tokens
        scoring = sum(len(self.problem(a, "validation").prompts) for a in self.config.axis)
        testing = sum(len(self.problem(a, "test").prompts) for a in self.evaluated_axes)
        num_layers, each = unit_counts(self.base.model, cast(Unit, self.config.unit))
        heads = num_layers * each
        factor = 1 + heads if self.config.estimator == "ablate" else 1
        more = self.config.most_samples - self.config.scoring_samples
        return Plan(
            axes=self.config.axis,
            evaluated_axes=self.evaluated_axes,
            scoring_tokens=scoring * per_prompt * factor,
            evaluation_tokens=MODELS_COMPARED * testing * tested,
            text_tokens=len(self.text_ids("validation")),
            price_tokens=sum(len(self.text_ids("test", n)) for n in self.config.price_texts),
            heads=heads,
            unit=self.config.unit,
            estimator=self.config.estimator,
            changes_read=self.config.finalists if averages else 0,
            sets_read=self.config.finalists if searches else 0,
            more_tokens=scoring * per_prompt * factor * more // self.config.scoring_samples,
            reliability=self.config.reliability,
            detectable=self.detectable(),
            dropped_tokens=() if self.config.chat_template else appended_tokens(self.tokenizer),
        )

    def detectable(self) -> dict[str, float]:
        """By axis: the smallest fall of bias(S) that this budget tells with 80% power."""
        problems = [self.problem(axis, "test") for axis in self.evaluated_axes]
        return detectable(self.plain_scorer.name, problems)
