"""Exact ablation: of every head (`--exhaustive`), or as far as the protected set needs it.

`--protect exact` is the set of exhaustive ablation, by racing.

A curvature screen of the same windows predicts every head's effect in every window. Then heads are
ablated window by window, resuming at their layer, and leave once they are clearly protected or
clearly not: see `levelhead.scoring.racing` for the statistics and their error probability.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from levelhead.models.architectures import head_counts
from levelhead.progress import Progress, silent
from levelhead.sampling import derived_seed
from levelhead.scores import head_count
from levelhead.scoring.curvature import Derivatives, derivatives
from levelhead.scoring.fisher import PerWindow
from levelhead.scoring.perplexity_effects import PerplexityEffects, ablated_nll
from levelhead.scoring.racing import ERROR, race_top
from levelhead.scoring.set_calibration import calibrated
from levelhead.set_cost import SetCost


def exact(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    progress: Progress,
    seed: int,
    gamma: float,
) -> PerplexityEffects:
    """dNLL of every head, measured as far as the choice of the floor(gamma N) largest needs it.

    Exactly the heads of the decided set have the smallest z_ppl. The effects of heads that left
    early are estimates: measured windows, and predictions for the others, which enter their
    standard errors. Halves of the windows are halves of these values.
    """
    num_layers, num_heads = head_counts(model)
    screen = derivatives(model, windows, progress, seed)
    count = head_count(gamma, num_layers * num_heads)
    with progress("ablating heads (perplexity)", len(windows) * num_layers * num_heads) as advance:

        def ablated(heads: Int[np.ndarray, " some"], window: int) -> Float[np.ndarray, " some"]:
            pairs = [divmod(int(head), num_heads) for head in heads]
            _, change = ablated_nll(model, windows[window : window + 1], pairs, silent)
            # The bar counts heads that left as done in this window.
            advance(num_layers * num_heads)
            out: Float[np.ndarray, " some"] = change[0]
            return out

        found = race_top(
            ablated,
            -screen.gradient.reshape(len(windows), -1),
            screen.fisher.reshape(len(windows), -1),
            count,
            np.random.default_rng(derived_seed(seed, "order of windows")),
        )
    change = found.values.reshape(-1, num_layers, num_heads)
    cost, about_sets = _cost(model, windows, screen, change, progress, gamma, seed)
    return PerplexityEffects(
        base_nll=screen.nll,
        nll_change=change,
        change_stderr=found.stderr.reshape(num_layers, num_heads),
        fisher=screen.clipped_fisher.mean(0),
        cost=cost,
        diagnostics={
            "estimator": "exact",
            "tokens": windows.numel(),
            "share_of_exhaustive": float(found.seen.mean()),
            "error_probability": ERROR,
            "expected_errors": found.expected_errors,
            "heads_measured_everywhere": int(found.seen.all(0).sum()),
            **about_sets,
        },
    )


def exhaustive(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    progress: Progress,
    seed: int,
    gamma: float,
) -> PerplexityEffects:
    """dNLL of every head by ablating it, resuming from the hidden state that enters its layer.

    A gradient pass, a small part of the work, adds the Fisher values.
    """
    num_layers, num_heads = head_counts(model)
    heads = [(layer, head) for layer in range(num_layers) for head in range(num_heads)]
    screen = derivatives(model, windows, progress, seed)
    base, found = ablated_nll(model, windows, heads, progress)
    change = found.reshape(len(windows), num_layers, num_heads)
    cost, about_sets = _cost(model, windows, screen, change, progress, gamma, seed)
    return PerplexityEffects(
        base_nll=base,
        nll_change=change,
        fisher=screen.clipped_fisher.mean(0),
        cost=cost,
        diagnostics={"estimator": "exhaustive", "tokens": windows.numel(), **about_sets},
    )


def _cost(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    screen: Derivatives,
    change: PerWindow,
    progress: Progress,
    gamma: float,
    seed: int,
) -> tuple[SetCost, dict[str, Any]]:
    """The cost of sets, from what single heads were measured to cost and a few sets."""
    slope = screen.clipped_fisher.mean(0) / 2 - change.mean(0)
    return calibrated(
        model,
        windows,
        screen.gradient,
        screen.clipped_fisher,
        screen.cost(1.0, slope),
        change.mean(0),
        progress,
        gamma=gamma,
        seed=seed,
    )
