"""Which estimators there are for heads, MLP neurons and whole attention layers, by name."""

from __future__ import annotations

from collections.abc import Mapping

from levelhead.records import Unit
from levelhead.scoring import BIAS_ESTIMATORS, PPL_ESTIMATORS, Estimator, PerplexityEstimator
from levelhead.scoring.layers import layer_ablation, layer_finite, layer_gradient
from levelhead.scoring.neurons import neuron_curvature, neuron_gradient

UNIT_BIAS_ESTIMATORS: Mapping[Unit, Mapping[str, Estimator]] = {
    "head": BIAS_ESTIMATORS,
    "neuron": {"token-gradient": neuron_gradient},
    "layer": {"finite": layer_finite, "token-gradient": layer_gradient},
}
UNIT_PPL_ESTIMATORS: Mapping[Unit, Mapping[str, PerplexityEstimator]] = {
    "head": PPL_ESTIMATORS,
    "neuron": {"curvature": neuron_curvature},
    "layer": {"exhaustive": layer_ablation},
}
"""Perplexity of layers is always measured; `config.choices.UNIT_ESTIMATORS` has the same names."""
