"""Every option of a run, with its default, its limits and its help text, in one place.

The command line builds its flags from these fields, the Python functions take them as keywords,
and `config.json` stores them. `fingerprint()` covers the fields that change results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Unpack

from levelhead.config.checks import (
    check_type,
    check_value,
    limited,
    planned_looks,
    price_texts,
)
from levelhead.config.choices import (
    BIAS_ESTIMATORS,
    BOUNDARY,
    DEVICES,
    DTYPES,
    EMBEDDED_SCORER,
    EVALUATE,
    METHODS,
    PAPER,
    PROTECT,
    PROTOCOLS,
    PRUNE,
    REPAIRS,
    SCORE,
    SELECT,
    TEXT_WINDOWS,
    TOXICITY_INPUTS,
    UNIT_DEFAULTS,
    UNITS,
)
from levelhead.config.fields import option
from levelhead.config.keywords import RunOptions
from levelhead.config.unit_checks import check_repair, check_unit
from levelhead.errors import ConfigError
from levelhead.price import LIMIT

SCORING_SAMPLES, TEST_SAMPLES = 1, 4
"""Texts are the noise of gaps, so the verdict gets more of them than the ranking, which has the
token model to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Options of score, select, evaluate and run.

    A field that is None means "the default that suits the model": see `resolved`.

    Raises:
        ConfigError: a value outside its limits, with the value and the limit.
    """

    model: str | None = option(None, "Hub id or local folder; none: the embedded model.")
    revision: str | None = option(None, "Model revision on the hub.", SCORE, EVALUATE)
    protocol: str = option(
        "default",
        "paper: the authors' settings (22 prompt tokens, 40 new ones, full input, 3 samples, "
        "estimator ablate, their perplexity windows) for all options that are not given.",
        SCORE, EVALUATE, choices=PROTOCOLS,
    )  # fmt: skip
    axis: tuple[str, ...] = option(
        ("gender_and_sex",),
        "Social axis; repeatable. The first is the one heads are selected for.",
        SCORE, EVALUATE,
    )  # fmt: skip
    all_axes: bool = option(
        False, "Evaluate every axis of the prompts, not only the scored ones.", EVALUATE
    )
    prompts: str = option(
        "builtin",
        "builtin, holistic-bias, holistic-bias:FOLDER, or a CSV or JSONL file.",
        SCORE, EVALUATE,
    )  # fmt: skip
    toxicity: str | None = option(
        None,
        "toxicityclassifier (default for the embedded model), detoxify (default for a named one), "
        "profanity-check, sentiment, or a hub id or folder of a sequence classifier; with "
        "over-0.5: in front, the share over 0.5. Identity words are masked, unless --unmasked.",
        SCORE, EVALUATE,
    )  # fmt: skip
    second_toxicity: str | None = option(
        None, "A second scorer of the same texts (default: the other offline one), or none.",
        EVALUATE,
    )  # fmt: skip
    unmasked: bool = option(
        False,
        "Let the classifier read identity words: what it makes of the words themselves (the echo) "
        "then counts as bias.",
        SCORE, EVALUATE,
    )  # fmt: skip
    identity_terms: str | None = option(
        None, "A file of more words that name groups, one a line; they are masked too.",
        SCORE, EVALUATE,
    )  # fmt: skip
    toxicity_input: str = option(
        "continuation",
        "What the classifier reads: only what the model wrote, or prompt and continuation.",
        SCORE, EVALUATE, choices=TOXICITY_INPUTS,
    )  # fmt: skip
    text: str | None = option(
        None,
        "Perplexity text: pydoc (default for the embedded model), wikitext-2 (default for a "
        "named one), literature, everyday, or a text file.",
        SCORE, EVALUATE,
    )  # fmt: skip
    price_text: tuple[str, ...] = option(
        (),
        "Another text to measure the price on, as for --text; repeatable (default: literature and "
        "everyday, which are part of levelhead), or none. The worst text counts.",
        EVALUATE,
    )
    seed: int = option(0, "Seed of continuations and contexts.", SCORE, EVALUATE, minimum=0)
    prompt_seed: int = option(0, "Seed of which prompts are used.", SCORE, EVALUATE, minimum=0)
    samples: int | None = option(
        None, "Continuations per prompt (default: 1 to score, 4 to evaluate).",
        SCORE, EVALUATE, minimum=1,
    )  # fmt: skip
    looks: str | None = option(
        None,
        "Planned looks at the evaluation, continuations per test prompt at each, such as 4,8,16: "
        "they share the 5% error of the verdict, and no other look is taken.",
        EVALUATE,
    )
    max_prompts: int = option(
        400, "Prompts per axis and split, balanced over subgroups.", SCORE, EVALUATE, minimum=4
    )
    new_tokens: int = option(
        40, "Tokens per continuation.", SCORE, EVALUATE, minimum=1, maximum=4096
    )
    prompt_tokens: int | None = option(
        None, "Cut prompts to as many tokens.", SCORE, EVALUATE, minimum=1
    )
    text_windows: str = option(
        "every-token",
        "Perplexity windows: every token once, or as the authors, who skip text.",
        SCORE, EVALUATE, choices=TEXT_WINDOWS,
    )  # fmt: skip
    text_tokens: int = option(16_384, "Tokens of perplexity text.", SCORE, EVALUATE, minimum=256)
    unit: str = option(
        "head",
        "What is scored and pruned: attention heads, MLP neurons, or whole attention layers.",
        SCORE,
        choices=UNITS,
    )
    estimator: str = option(
        "token-gradient", "How bias effects are estimated.", SCORE, choices=BIAS_ESTIMATORS
    )
    unmatched: bool = option(
        False, "Token-level estimators: read every continuation after its own prompt only.", SCORE
    )
    common_random_numbers: bool = option(
        False, "Estimator ablate: every ablated model draws the base model's random numbers.", SCORE
    )
    reliability: float = option(
        0.5, "Split-half reliability of every scored axis to reach: samples are added until then.",
        SCORE, minimum=0, maximum=0.99,
    )  # fmt: skip
    max_samples: int | None = option(
        None, "Most continuations per prompt (default: four times --samples).", SCORE, minimum=1
    )
    time_budget: float | None = option(
        None, "Minutes after which no more samples are added.", SCORE, minimum=0
    )
    two_way: bool = option(
        False, "Standard errors and intervals of effects and gaps over descriptors too, not over "
        "templates alone: wider.", SCORE, EVALUATE,
    )  # fmt: skip
    protect: str = option(
        "curvature",
        "How perplexity effects are found: without ablation, or the exact protected set by racing.",
        SCORE, choices=PROTECT,
    )  # fmt: skip
    exhaustive: bool = option(
        False, "Exact perplexity effects of every head on all of the text, without racing.", SCORE
    )
    method: str = option("fasp", "Selection rule.", SELECT, choices=METHODS)
    gamma: float = option(
        0.3, "Share of heads protected for language modelling.",
        SELECT, BOUNDARY, minimum=0, maximum=1,
    )  # fmt: skip
    alpha: float = option(0.1, "Share of heads pruned.", SELECT, BOUNDARY, minimum=0, maximum=1)
    budget: float | None = option(
        None, "--max-ppl-increase by another name: search for the set that reduces the gap most "
        "within it (FASP's grid, method joint's frontier), instead of naming --gamma and --alpha.",
        SELECT, minimum=0,
    )  # fmt: skip
    core: float | None = option(
        None, "Of the selected heads only those that this share of resamples select.",
        SELECT, minimum=0, maximum=1,
    )  # fmt: skip
    finalists: int = option(
        4, "joint, --budget: sets read with the model before one is taken.",
        SELECT, minimum=0, maximum=50,
    )  # fmt: skip
    soft: bool = option(
        False, "Scale heads by gates from 0 to 1 instead of removing them, at equal cost.", SELECT
    )
    repair: str = option(
        "none", "least-squares: what is kept of a layer takes over what was removed, as far as it "
        "can on the validation text; less perplexity is lost, and less of the gap.",
        PRUNE, choices=REPAIRS,
    )  # fmt: skip
    max_ppl_increase: float = option(
        LIMIT, "Share by which perplexity may rise on the worst text: limit of the search for "
        "heads to remove, and of a warning where they are named.", EVALUATE, minimum=0,
    )  # fmt: skip
    chat_template: bool = option(
        False, "Wrap prompts in the model's chat template.", SCORE, EVALUATE
    )
    device: str = option(
        "auto", "Where to compute.", SCORE, EVALUATE, choices=DEVICES, affects_results=False
    )
    dtype: str = option(
        "auto",
        "Number format of the weights (auto on a CPU: bfloat16 where it is faster, else float32).",
        SCORE, EVALUATE, choices=DTYPES,
    )  # fmt: skip
    threads: int | None = option(
        None, "CPU threads (default: torch's).", SCORE, EVALUATE, minimum=1, affects_results=False
    )
    batch_size: int | None = option(
        None, "Texts per batch (default: fitted to the work and to memory).", SCORE, EVALUATE,
        minimum=1, affects_results=False,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_type("axis", self.axis, "tuple")
        if not self.axis:
            raise ConfigError("no axis given; name at least one with --axis")
        if len(set(self.axis)) != len(self.axis):
            raise ConfigError(f"an axis is named twice: {', '.join(self.axis)}")
        for spec in fields(self):
            check_type(spec.name, getattr(self, spec.name), str(spec.type))
            check_value(spec.name, getattr(self, spec.name), spec.metadata)
        check_unit(self)
        check_repair(self)
        _ = self.planned_looks, self.price_texts
        if self.unmasked and "masked:" in (self.toxicity or ""):
            raise ConfigError(
                f"--unmasked lets the scorer read identity words and --toxicity {self.toxicity} "
                "does not; give one of the two"
            )

    @classmethod
    def of(cls, model: str | None = None, **options: Unpack[RunOptions]) -> RunConfig:
        """Options as a user gives them: `protocol="paper"` fills in those that are not given.

        Where no set of heads is named (`method`, `gamma`, `alpha`), one is searched for, unless
        scoring spends its work where gamma and alpha have their boundary.

        Raises:
            ConfigError: a value outside its limits, with the value and the limit.
        """
        paper = options.get("protocol") == "paper"
        preset = {**UNIT_DEFAULTS.get(options.get("unit", ""), {}), **(PAPER if paper else {})}
        one = cls(model=model, **{**preset, **options})
        searches = one.unit == "head" and not paper and not one.needs_boundary
        return replace(one, **limited(options, searches))

    def resolved(self) -> RunConfig:
        """Fill what depends on the model: offline defaults for the embedded one."""
        scorer, text = (
            (EMBEDDED_SCORER, "pydoc") if self.model is None else ("detoxify", "wikitext-2")
        )
        return replace(self, toxicity=self.toxicity or scorer, text=self.text or text)

    @property
    def ppl_estimator(self) -> str:
        """The estimator of perplexity effects by name: a key of `scoring.PPL_ESTIMATORS`."""
        return "exhaustive" if self.exhaustive else self.protect

    @property
    def price_texts(self) -> tuple[str, ...]:
        """Names of the texts that the price is measured on besides `text`."""
        return price_texts(self.price_text, self.text)

    @property
    def needs_boundary(self) -> bool:
        """Whether scores depend on gamma or alpha: work is spent where they decide."""
        return self.estimator == "hybrid" or self.ppl_estimator == "exact"

    @property
    def most_samples(self) -> int:
        """Continuations per validation prompt at which scoring stops, reliable or not."""
        return max(self.scoring_samples, self.max_samples or 4 * self.scoring_samples)

    @property
    def planned_looks(self) -> tuple[int, ...]:
        """Continuations per test prompt at each planned look, ascending; one where none is named.

        Raises:
            ConfigError: `looks` is no ascending list of whole numbers, or lacks `samples`.
        """
        return planned_looks(self.looks, self.samples, TEST_SAMPLES)

    @property
    def scoring_samples(self) -> int:
        """Continuations per validation prompt that scoring starts with."""
        return self.samples or SCORING_SAMPLES

    @property
    def test_samples(self) -> int:
        """Continuations per test prompt, of either model."""
        return self.samples or self.planned_looks[0]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; `from_json` reads them back."""
        return asdict(self) | {"axis": list(self.axis), "price_text": list(self.price_text)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunConfig:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: a field that does not exist, or a value outside its limits.
        """
        known = {spec.name for spec in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigError(f"unknown option {unknown[0]!r} in config.json")
        values = dict(data)
        listed = [name for name in ("axis", "price_text") if isinstance(values.get(name), list)]
        values |= {name: tuple(values[name]) for name in listed}
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"config.json cannot be read: {error}") from error

    def fingerprint(self, *stages: str) -> str:
        """A short digest of the fields that change the results of these stages (all: of a run)."""
        wanted = {*stages, BOUNDARY} if SCORE in stages and self.needs_boundary else set(stages)
        chosen = {
            spec.name: getattr(self, spec.name)
            for spec in fields(self)
            if spec.metadata["affects_results"]
            and (not stages or spec.name == "model" or wanted & set(spec.metadata["stages"]))
        }
        text = json.dumps(chosen, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
