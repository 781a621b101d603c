"""Every option of a run, with its default, its limits and its help text.

What is measured stands in `measured.py`, how heads are scored in `scored.py`, which are chosen and
where to compute here. The command line builds its flags from these fields, the Python functions
take them as keywords, and `config.json` stores them. `fingerprint()` covers the fields that change
results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Unpack
from unicodedata import normalize

from levelhead.config.checks import (
    check_type,
    check_value,
    limited,
    planned_looks,
    price_texts,
)
from levelhead.config.choices import (
    AVERAGE,
    AVERAGE_WHAT,
    BOUNDARY,
    DEVICES,
    DTYPES,
    EMBEDDED_SCORER,
    EVALUATE,
    METHODS,
    NO_REPAIR,
    PAPER,
    PRUNE,
    REPAIRS,
    SCORE,
    SELECT,
    UNIT_DEFAULTS,
)
from levelhead.config.fields import CHOSEN, MACHINE, flag_of, key_of, option
from levelhead.config.keywords import RunOptions
from levelhead.config.scored import ScoreOptions
from levelhead.config.unit_checks import check_average, check_repair, check_unit
from levelhead.errors import ConfigError
from levelhead.price import LIMIT

SCORING_SAMPLES, TEST_SAMPLES = 1, 4
"""Texts are the noise of gaps, so the verdict gets more of them than the ranking, which has the
token model to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(ScoreOptions):
    """Options of score, select, evaluate and run.

    A field that is None means "the default that suits the model": see `resolved`.

    Raises:
        ConfigError: a value outside its limits, with the value and the limit.
    """

    method: str = option(
        "fasp", "Rule that names a set.", SELECT, choices=METHODS, panel=CHOSEN, common=True
    )
    gamma: float = option(
        0.3, "Share of heads protected for language modelling, of a set that is named.",
        SELECT, BOUNDARY, minimum=0, maximum=1, panel=CHOSEN, common=True,
    )  # fmt: skip
    alpha: float = option(
        0.1, "Share of heads pruned, of a set that is named.",
        SELECT, BOUNDARY, minimum=0, maximum=1, panel=CHOSEN, common=True,
    )  # fmt: skip
    budget: float | None = option(
        None, "--max-ppl-increase by another name, and always a search: an error beside --method, "
        "--gamma or --alpha, which name a set.",
        SELECT, minimum=0, panel=CHOSEN,
    )  # fmt: skip
    average_what: str = option(
        "toxicity",
        "Method average: only what the scorer reads of what heads write, or all of it.",
        SELECT, choices=AVERAGE_WHAT, panel=CHOSEN,
    )  # fmt: skip
    average_keep: str | None = option(
        None,
        "Method average: a text file, of facts say, on which heads go on writing what they wrote.",
        SELECT, panel=CHOSEN,
    )  # fmt: skip
    core: float | None = option(
        None, "Of the selected heads only those that this share of resamples select.",
        SELECT, minimum=0, maximum=1, panel=CHOSEN,
    )  # fmt: skip
    finalists: int = option(
        4, "joint, --max-ppl-increase: sets read with the model before one is taken.",
        SELECT, minimum=0, maximum=50, panel=CHOSEN,
    )  # fmt: skip
    soft: bool = option(
        False, "Scale heads by gates from 0 to 1 instead of removing them, at equal cost.",
        SELECT, panel=CHOSEN,
    )  # fmt: skip
    repair: str = option(
        "none", "least-squares: what is kept of a layer takes over what was removed, as far as it "
        "can on the validation text; less perplexity is lost, and less of the gap. group-averaged: "
        "what differs between subgroups is not taken over, as far as it can be told.",
        PRUNE, choices=REPAIRS, panel=CHOSEN, common=True,
    )  # fmt: skip
    max_ppl_increase: float = option(
        LIMIT,
        "Share by which perplexity may rise on the worst text (0.05: by 5%). Where no set is named "
        "by --method, --gamma or --alpha, the set that reduces the gap most within it is searched "
        "(FASP's grid, method joint's frontier); a set that is named is judged by it.",
        EVALUATE, minimum=0, panel=CHOSEN, common=True,
    )  # fmt: skip
    device: str = option(
        "auto", "Where to compute.", SCORE, EVALUATE, choices=DEVICES, affects_results=False,
        panel=MACHINE, common=True,
    )  # fmt: skip
    dtype: str = option(
        "auto",
        "Number format of the weights (auto on a CPU: bfloat16 where it is faster, else float32).",
        SCORE, EVALUATE, choices=DTYPES, panel=MACHINE,
    )  # fmt: skip
    threads: int | None = option(
        None, "CPU threads (default: torch's).", SCORE, EVALUATE, minimum=1, affects_results=False,
        panel=MACHINE,
    )  # fmt: skip
    batch_size: int | None = option(
        None, "Texts per batch (default: fitted to the work and to memory).", SCORE, EVALUATE,
        minimum=1, affects_results=False, panel=MACHINE,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_type("--axis", self.axis, "tuple")
        # As names of a prompt file are read: one spelling of letters with accents.
        axes = tuple(normalize("NFC", a) if isinstance(a, str) else a for a in self.axis)
        object.__setattr__(self, "axis", axes)
        if not self.axis:
            raise ConfigError("no axis given; name at least one with --axis")
        if len(set(self.axis)) != len(self.axis):
            raise ConfigError(f"an axis is named twice: {', '.join(self.axis)}")
        for spec in fields(self):
            flag = flag_of(spec.name, spec.metadata)
            check_type(flag, getattr(self, spec.name), str(spec.type))
            check_value(flag, getattr(self, spec.name), spec.metadata)
        check_unit(self)
        check_repair(self)
        check_average(self)
        _ = self.planned_looks, self.price_texts
        if self.unmasked and "masked:" in (self.toxicity or ""):
            raise ConfigError(
                f"--unmasked lets the scorer read identity words and --scorer {self.toxicity} "
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
        return replace(one, **limited(options, one.searches))

    def resolved(self) -> RunConfig:
        """Fill what depends on the model: offline defaults for the embedded one."""
        scorer, text = (
            (EMBEDDED_SCORER, "pydoc") if self.model is None else ("detoxify", "wikitext-2")
        )
        return replace(self, toxicity=self.toxicity or scorer, text=self.text or text)

    def differing(self, other: RunConfig) -> list[str]:
        """Options with other values, as a file of options calls them."""
        return [
            key_of(spec.name, spec.metadata)
            for spec in fields(self)
            if getattr(self, spec.name) != getattr(other, spec.name)
        ]

    @property
    def ppl_estimator(self) -> str:
        """The estimator of perplexity effects by name: a key of `scoring.PPL_ESTIMATORS`."""
        return "exhaustive" if self.exhaustive else self.protect

    @property
    def price_texts(self) -> tuple[str, ...]:
        """Names of the texts that the price is measured on besides `text`."""
        return price_texts(self.price_text, self.text)

    @property
    def searches(self) -> bool:
        """Whether a set of heads is searched for where none is named."""
        return self.unit == "head" and self.protocol != "paper" and not self.needs_boundary

    @property
    def two_attempts(self) -> bool:
        """Whether a run averages over groups as well as it removes heads: it names no method, nor
        anything that is for heads that go alone."""
        named = self.soft or self.core is not None or self.repair != NO_REPAIR
        return self.budget is not None and self.searches and self.method != AVERAGE and not named

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
