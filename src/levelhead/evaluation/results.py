"""What an evaluation found, as evaluation.json holds it. They compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from levelhead.metrics.differences import BiasDifference, CommonFactor
from levelhead.records import Estimate, Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBias:
    """What one model does on one axis' prompts; toxicities in [0, 1], biases at least 0."""

    bias: float
    bias_corrected: float
    """With the upward error of sum |gap| taken out; may be slightly below 0."""
    ci95: Interval
    mean_toxicity: float
    prompt_floor: float
    """bias(S) of the prompts alone: what no head can change where the classifier reads them."""
    gaps: Mapping[str, Estimate]
    """d_s = T_S - T_s by subgroup; negative: what is written about it is more toxic."""

    def to_json(self) -> dict[str, Any]:
        """The form of evaluation.json."""
        return {
            "bias": self.bias,
            "bias_corrected": self.bias_corrected,
            "ci95": [self.ci95.low, self.ci95.high],
            "mean_toxicity": self.mean_toxicity,
            "prompt_floor": self.prompt_floor,
            "gaps": {name: gap.to_json() for name, gap in self.gaps.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one scorer makes of both models' texts on one axis; differences: pruned minus base."""

    base: ModelBias
    pruned: ModelBias
    difference: Estimate
    """Of bias(S), sampled afresh with common random numbers. Negative: bias fell."""
    adjusted_difference: Estimate
    """The same expectation with less noise (a control variate): what the verdict rests on."""
    p_value: float
    """Of no difference, two-sided, of this reading on its own."""
    factor: CommonFactor | None
    """What is left of the difference once everybody's toxicity fell by one factor; None: the mean
    toxicity of the base model is not clear of what the scorer says of a harmless text."""
    expected_difference: Estimate
    """The same, teacher-forced on the base model's continuations: first-order, small error."""
    toxicity_difference: Estimate
    """Of the mean toxicity, with less noise as `adjusted_difference`. Negative: less toxic."""
    details: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The keys that every reading has in evaluation.json."""
        return {
            "base": self.base.to_json(),
            "pruned": self.pruned.to_json(),
            "difference": self.difference.to_json(),
            "adjusted_difference": self.adjusted_difference.to_json() | {"p_value": self.p_value},
            "common_factor": self.factor and factor_json(self.factor),
            "expected_difference": self.expected_difference.to_json(),
            "toxicity_difference": self.toxicity_difference.to_json(),
            **self.details,
        }


def tested_json(found: BiasDifference) -> dict[str, Any]:
    """{"value", "ci95", "p_value"}."""
    return found.estimate.to_json() | {"p_value": found.p_value}


def factor_json(found: CommonFactor) -> dict[str, Any]:
    """{"factor", "beyond": {"value", "ci95", "p_value"}, "others": {"value", "ci95"}}."""
    others = found.others and found.others.to_json()
    return {"factor": found.factor, "beyond": tested_json(found.beyond), "others": others}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A quantity of both models and its change, each with its interval."""

    base: Estimate
    pruned: Estimate
    difference: Estimate

    def to_json(self) -> dict[str, Any]:
        """{"base", "pruned", "difference"}, each {"value", "ci95"}."""
        return {
            "base": self.base.to_json(),
            "pruned": self.pruned.to_json(),
            "difference": self.difference.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Mentions:
    """The share of continuations that name the group their prompt names."""

    every: Beside
    by_subgroup: Mapping[str, Beside]
    fell: tuple[str, ...] = ()
    """Subgroups that the pruned model clearly names less often; "all" for the axis as a whole."""

    def to_json(self) -> dict[str, Any]:
        """The form of evaluation.json's `own_group_mentions`."""
        return {
            **self.every.to_json(),
            "subgroups": {name: one.to_json() for name, one in self.by_subgroup.items()},
            "fell": list(self.fell),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisEvaluation:
    """Base and pruned model on one axis: the reading that the verdict rests on, and others."""

    verdict: str
    reading: Reading
    masked: bool
    """Whether that reading is of texts without identity words."""
    plain: Reading | None = None
    """Of the texts as they are."""
    echo: Beside | None = None
    """Plain bias less masked bias: what the scorer makes of the identity words themselves."""
    mentions: Mentions | None = None
    second_name: str | None = None
    second: Reading | None = None
    """Another scorer's, of the same texts in the same way."""
    details: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The form of evaluation.json."""
        second = self.second and {"name": self.second_name, **self.second.to_json()}
        return {
            "verdict": self.verdict,
            "masked": self.masked,
            **self.reading.to_json(),
            "plain": self.plain and self.plain.to_json(),
            "echo": self.echo and self.echo.to_json(),
            "own_group_mentions": self.mentions and self.mentions.to_json(),
            "second_scorer": second,
            **self.details,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What pruning did, on test prompts and held-out text (`evaluation.json`)."""

    axes: Mapping[str, AxisEvaluation]
    perplexity: Mapping[str, Any]
    """On the run's own text."""
    price: Sequence[Mapping[str, Any]]
    """On every text, that one first."""
    parameters: Mapping[str, int]
    bytes: Mapping[str, int]
    warnings: tuple[str, ...]
    headline: str
    details: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The form of evaluation.json."""
        return {
            "headline": self.headline,
            "axes": {name: axis.to_json() for name, axis in self.axes.items()},
            "perplexity": dict(self.perplexity),
            "price": [dict(one) for one in self.price],
            "parameters": dict(self.parameters),
            "bytes": dict(self.bytes),
            "warnings": list(self.warnings),
            **self.details,
        }
