"""Every option of a run: its default, limits and help, and the names of what may be chosen."""

from levelhead.config.choices import (
    BIAS_ESTIMATORS,
    BOUNDARY,
    DEVICES,
    DTYPES,
    EMBEDDED_SCORER,
    EVALUATE,
    EXPORTS,
    FORMATS,
    METHODS,
    OBJECTIVES,
    PAPER,
    PROTECT,
    PROTOCOLS,
    SCORE,
    SELECT,
    TEXT_WINDOWS,
    TOXICITY_INPUTS,
    UNITS,
)
from levelhead.config.keywords import RunOptions
from levelhead.config.options import RunConfig

__all__ = [
    "BIAS_ESTIMATORS",
    "BOUNDARY",
    "DEVICES",
    "DTYPES",
    "EMBEDDED_SCORER",
    "EVALUATE",
    "EXPORTS",
    "FORMATS",
    "METHODS",
    "OBJECTIVES",
    "PAPER",
    "PROTECT",
    "PROTOCOLS",
    "SCORE",
    "SELECT",
    "TEXT_WINDOWS",
    "TOXICITY_INPUTS",
    "UNITS",
    "RunConfig",
    "RunOptions",
]
