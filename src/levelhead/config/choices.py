"""What options may be set to, and the settings of presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCORE, SELECT, PRUNE, EVALUATE = "score", "select", "prune", "evaluate"
BOUNDARY = "boundary"
"""Not a stage: what scoring needs where it works hardest on heads near the selection's edge."""
BIAS_ESTIMATORS = ("token-gradient", "finite", "hybrid", "ablate")
PROTECT = ("curvature", "exact")
UNITS = ("head", "neuron", "layer")
UNIT_ESTIMATORS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "neuron": (("token-gradient",), ("curvature",)),
    "layer": (("finite", "token-gradient"), ("exhaustive",)),
}
"""For units that not every estimator can score: those of bias, and those of perplexity."""
UNIT_METHODS = ("fasp", "bias_only", "ppl_only", "random")
"""Methods for units that are no heads: they ask effects alone, and no more of the table."""
UNIT_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "layer": {"estimator": "finite", "exhaustive": True}
}
"""What `unit` sets: layers are few, so that each is ablated."""
EMBEDDED_SCORER = "toxicityclassifier"
"""The scorer of the embedded model: of those that need no network and tell insults from harmless
sentences, the one that reacts least to names. `levelhead scorers` measures it; a test compares."""
PRICE_TEXTS = ("literature", "everyday")
"""Texts that the price is measured on besides `text`; they are part of levelhead."""
NO_TEXT = "none"
TOXICITY_INPUTS = ("continuation", "full")
TEXT_WINDOWS = ("every-token", "paper")
PROTOCOLS = ("default", "paper")
PAPER: Mapping[str, Any] = {
    "prompt_tokens": 22,
    "new_tokens": 40,
    "toxicity_input": "full",
    "unmasked": True,
    "samples": 3,
    "max_samples": 3,
    "estimator": "ablate",
    "exhaustive": True,
    "text_windows": "paper",
}
"""What `protocol="paper"` sets (arXiv 2312.15398, section 4, and the authors' code)."""
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
FORMATS = ("compact", "zeroed", "uniform", "remote-code", "adapter", "lora")
EXPORTS = ("onnx", "gguf")
NO_REPAIR = "none"
GROUP_AVERAGED = "group-averaged"
REPAIRS = (NO_REPAIR, "least-squares", GROUP_AVERAGED)
OBJECTIVES = ("weighted", "worst")
AVERAGE = "average"
"""The method that removes no head: what differs between groups is averaged out of its output."""
AVERAGE_WHAT = ("toxicity", "all")
HEAD_METHODS = (
    "fasp", "joint", "bias_only", "ppl_only", "fisher_only", "magnitude", "mask_gradient", "random",
)  # fmt: skip
"""Methods that say which heads go."""
METHODS = (*HEAD_METHODS, AVERAGE)
