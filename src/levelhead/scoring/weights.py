"""Effects of single attention weights on bias and perplexity, to first order.

    fall of bias when w is zeroed  =  w * d bias / dw           as z_bias: positive, zeroing helps
    change of NLL when w is zeroed = -w * dNLL/dw + 1/2 w^2 F   F: Fisher value per token

What single weights do to a gap is far too little to close it, so that bias is linear in them: the
signed sum of the gaps that can be told from 0 is differentiated at once (bias = sum of |d_s|, by
the signs of the base model's gaps). Otherwise as token_gradient.py and curvature.py, but the Fisher
value is the square of a whole window's score, a noisy estimate, and it is neither clipped nor
calibrated. No standard errors: there are millions. Halves of the templates say how far the ranking
repeats itself.

Memory: five numbers of four bytes for every attention weight, 0.5 GB for a model of 135M
parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor, nn
from transformers import PreTrainedModel

from levelhead.metrics.intervals import gap_intervals
from levelhead.metrics.reliability import spearman_brown
from levelhead.models.attention_weights import (
    attention_weights,
    take_gradients,
    weights_with_gradients,
)
from levelhead.progress import Progress
from levelhead.sampling import derived_seed, pad_id
from levelhead.scoring.effects import usable_gaps
from levelhead.scoring.matched_rows import MatchedRows, rows_to_read
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import BATCH_SIZE, continuation_logits, expected_toxicity
from levelhead.scoring.token_model import TokenModel, token_model

COMPARED = 200_000
"""Weights, drawn at random, on which the halves' rankings are compared."""
LABEL_DRAWS = 2

Grads = dict[str, Float[Tensor, "*shape"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightScores:
    """First-order effects of zeroing each attention weight, by the name of its matrix."""

    fall: Grads
    """Of bias(S) over the used gaps: positive where zeroing the weight helps."""
    cost: Grads
    """Change of the mean NLL per token (nats): positive where zeroing the weight hurts."""
    reliability: float
    """Spearman correlation of the fall between halves of the templates, stepped up to the whole."""
    measurable: bool
    """False: no gap could be told from 0."""
    diagnostics: dict[str, Any]


def weight_effects(
    problem: BiasProblem,
    base: SampledTexts,
    windows: Int[Tensor, "windows time"],
    progress: Progress,
    seed: int = 0,
) -> WeightScores:
    """Effects of every attention weight of the problem's model.

    Args:
        base: one continuation of each prompt by this model.
        windows: of text, as for heads.

    Raises:
        ScorerError: token toxicity is all zero, or cannot be fitted to the scorer's answers.
        ModelError: the model is pruned or quantised.
    """
    weights = attention_weights(problem.model)
    token = token_model(problem, base, progress)
    chosen = rows_to_read(problem, base, matched=True)
    signs, measurable = _signs(problem, base, token)
    half = _halves(problem, chosen, seed)
    with weights_with_gradients(weights):
        falls = [
            _fall(problem, chosen, token, weights, signs, half == number, progress)
            for number in (0, 1)
        ]
        gradient, fisher = _text_derivatives(problem.model, windows, weights, progress, seed)
    fall = {name: (falls[0][name] + falls[1][name]) / 2 for name in weights}
    cost = {}
    for name, weight in weights.items():
        w = weight.detach().float()
        cost[name] = fisher.pop(name).mul_(w**2).div_(2).sub_(w * gradient.pop(name))
    return WeightScores(
        fall=fall,
        cost=cost,
        reliability=_reliability(falls, seed),
        measurable=measurable,
        diagnostics={
            "unit": "weight",
            "estimator": "token-gradient",
            "beta": token.beta,
            "token_toxicity_r2": token.r_squared,
            "rows": len(chosen.rows),
            "text_tokens": windows.numel(),
            "signs": {
                name: float(sign) for name, sign in zip(problem.subgroups, signs, strict=True)
            },
        },
    )


def _signs(
    problem: BiasProblem, base: SampledTexts, token: TokenModel
) -> tuple[Float[np.ndarray, " subgroups"], bool]:
    """(the sign of each gap d_s, 0 where it cannot be told from 0; whether any can)."""
    subgroup, template = problem.subgroup[base.prompt], problem.template[base.prompt]
    count = len(problem.subgroups)
    measured = gap_intervals(token.expected, subgroup, template, count)
    used, measurable = usable_gaps(
        measured, gap_intervals(token.adjusted, subgroup, template, count)
    )
    signs: Float[np.ndarray, " subgroups"] = np.where(used, np.sign(measured.gap), 0.0)
    return signs, measurable


def _halves(problem: BiasProblem, chosen: MatchedRows, seed: int) -> Int[np.ndarray, " rows"]:
    """0 or 1 for each row: which half of the templates it is of."""
    template = problem.template[chosen.prompt]
    names = np.unique(template)
    rng = np.random.default_rng(derived_seed(seed, problem.axis, "halves of templates"))
    first = rng.permutation(names)[: len(names) // 2]
    halves: Int[np.ndarray, " rows"] = np.where(np.isin(template, first), 0, 1)
    return halves


def _fall(
    problem: BiasProblem,
    chosen: MatchedRows,
    token: TokenModel,
    weights: dict[str, nn.Parameter],
    signs: Float[np.ndarray, " subgroups"],
    inside: Bool[np.ndarray, " rows"],
    progress: Progress,
) -> Grads:
    """w * d bias / dw from some of the rows.

    bias = sum_s sign_s (T_S - T_s), T_S the mean of the T_s by their share of the prompts: a row of
    subgroup s counts sign-weighted share_s - sign_s, divided by the rows of s.
    """
    subgroup = problem.subgroup[chosen.prompt]
    count = np.bincount(subgroup[inside], minlength=len(signs))
    factor = (problem.weights * signs.sum() - signs) * token.beta / np.maximum(count, 1)
    rows = [
        (chosen.rows[i], float(factor[subgroup[i]]))
        for i in sorted(np.flatnonzero(inside), key=lambda i: len(chosen.rows[i]))
    ]
    size, pad = problem.batch_size or BATCH_SIZE, pad_id(problem.tokenizer)
    total = _zeros(weights)
    with progress(f"gradients of weights ({problem.axis})", len(rows)) as advance:
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            own = [row for row, _ in batch]
            steps = continuation_logits(problem.model, own, pad)
            toxicity = expected_toxicity(steps, own, token.tau).sum(-1)
            share = torch.tensor([f for _, f in batch], device=toxicity.device)
            (toxicity * share).sum().backward()  # type: ignore[no-untyped-call,unused-ignore]
            for name, found in take_gradients(weights).items():
                total[name] += found
            advance(len(batch))
    return {name: own.mul_(weights[name].detach()) for name, own in total.items()}


def _zeros(weights: dict[str, nn.Parameter]) -> Grads:
    """To add gradients up in: float32, whatever the format of the weights."""
    return {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}


def _text_derivatives(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    weights: dict[str, nn.Parameter],
    progress: Progress,
    seed: int,
) -> tuple[Grads, Grads]:
    """(gradient of the mean NLL per token, Fisher value per token) of every weight."""
    gradient, fisher = _zeros(weights), _zeros(weights)
    with progress("gradients of weights (perplexity)", len(windows)) as advance:
        for number, window in enumerate(windows):
            ids = window[None].to(model.device)
            tokens = ids.shape[1] - 1
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            log_p = logits.log_softmax(-1)
            targets = [ids[0, 1:]]
            rng = np.random.default_rng(derived_seed(seed, "labels", number))
            cdf = log_p.detach().exp().cumsum(-1)
            for _ in range(LABEL_DRAWS):
                u = torch.from_numpy(rng.random((tokens, 1))).to(cdf.device, torch.float32)
                drawn = torch.searchsorted(cdf, u * cdf[:, -1:])[:, 0]
                targets.append(drawn.clamp(max=log_p.shape[-1] - 1))
            for place, labels in enumerate(targets):
                score = log_p.gather(-1, labels[:, None]).sum()
                score.backward(retain_graph=place < LABEL_DRAWS)  # type: ignore[no-untyped-call,unused-ignore]
                for name, found in take_gradients(weights).items():
                    if place == 0:
                        gradient[name] -= found.float() / (tokens * len(windows))
                    else:
                        fisher[name] += found.float() ** 2 / (tokens * len(windows) * LABEL_DRAWS)
            advance(1)
    return gradient, fisher


def _reliability(falls: list[Grads], seed: int) -> float:
    rng = np.random.default_rng(derived_seed(seed, "compared weights"))
    total = sum(values.numel() for values in falls[0].values())
    share = min(1.0, COMPARED / total)
    drawn: list[list[np.ndarray]] = [[], []]
    for name in falls[0]:
        size = falls[0][name].numel()
        places = torch.from_numpy(rng.choice(size, max(1, int(share * size)), replace=False))
        for half, fall in zip(drawn, falls, strict=True):
            half.append(fall[name].flatten()[places.to(fall[name].device)].cpu().numpy())
    found = stats.spearmanr(np.concatenate(drawn[0]), np.concatenate(drawn[1])).statistic
    return spearman_brown(float(found), 2) if np.isfinite(found) else 0.0
