"""Effects of heads on bias and perplexity: one file per estimator, one interface for each kind."""

from levelhead.scoring.ablate import ablate
from levelhead.scoring.curvature import curvature
from levelhead.scoring.exact import exact, exhaustive
from levelhead.scoring.finite import finite
from levelhead.scoring.hybrid import hybrid
from levelhead.scoring.perplexity_effects import PerplexityEstimator
from levelhead.scoring.problem import Estimator
from levelhead.scoring.token_gradient import token_gradient

BIAS_ESTIMATORS: dict[str, Estimator] = {
    "token-gradient": token_gradient,
    "finite": finite,
    "hybrid": hybrid,
    "ablate": ablate,
}
PPL_ESTIMATORS: dict[str, PerplexityEstimator] = {
    "curvature": curvature,
    "exact": exact,
    "exhaustive": exhaustive,
}

__all__ = ["BIAS_ESTIMATORS", "PPL_ESTIMATORS", "Estimator", "PerplexityEstimator"]
