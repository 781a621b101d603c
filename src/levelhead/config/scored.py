"""Options of how heads are scored."""

from __future__ import annotations

from dataclasses import dataclass

from levelhead.config.choices import BIAS_ESTIMATORS, EVALUATE, PROTECT, SCORE, UNITS
from levelhead.config.fields import option
from levelhead.config.measured import MeasureOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions(MeasureOptions):
    """How effects of heads are estimated, and until when; a part of `RunConfig`."""

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
        0.5,
        "Split-half reliability of every scored axis to reach: samples are added until then.",
        SCORE,
        minimum=0,
        maximum=0.99,
    )
    max_samples: int | None = option(
        None, "Most continuations per prompt (default: four times --samples).", SCORE, minimum=1
    )
    time_budget: float | None = option(
        None, "Minutes after which no more samples are added.", SCORE, minimum=0
    )
    two_way: bool = option(
        False,
        "Standard errors and intervals of effects and gaps over descriptors too, not over "
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
