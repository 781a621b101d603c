"""Perplexity effects without ablating: gradient and Fisher value of every head's gate.

    dNLL(h) ~ - dNLL/dg_h + c * 1/2 F_h    at gates 1

F_h is the Fisher value per token with labels SAMPLED from the model on the text: labels drawn
independently given the text before them have uncorrelated scores, so the square of a window's
summed score is an unbiased estimate of the sum of its tokens' Fisher values. c is calibrated by
exact ablation of a few heads on windows that are not scored. The heads of the first layers have
rare windows with enormous Fisher values, which a quadratic form cannot follow: they are clipped.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from levelhead.batching import map_batches
from levelhead.models.architectures import head_counts
from levelhead.models.gates import gated
from levelhead.progress import Progress, silent
from levelhead.sampling import derived_seed
from levelhead.scoring.perplexity_effects import PerplexityEffects, ablated_nll

LABEL_DRAWS = 1
"""Sampled label sets per window: each costs one backward pass."""
CLIP_QUANTILE = 0.9
CALIBRATION_HEADS = 12
CALIBRATION_WINDOWS = 2
BATCH_SIZE = 2

Grid = Float[np.ndarray, "layers heads"]


def curvature(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    progress: Progress,
    seed: int,
    gamma: float,
) -> PerplexityEffects:
    """dNLL of every head from one forward and a few backward passes per window.

    The last windows (two, or one where there are fewer than six) calibrate c and are not scored.
    """
    held = CALIBRATION_WINDOWS if len(windows) >= 3 * CALIBRATION_WINDOWS else 1
    scored, other = windows[:-held], windows[-held:]
    base, gradient, fisher = _derivatives(model, scored, progress, seed)
    clipped = np.minimum(fisher, np.quantile(fisher, CLIP_QUANTILE, axis=0))
    c = _calibrate(model, other, gradient.mean(0), clipped.mean(0), progress)
    return PerplexityEffects(
        base_nll=base,
        nll_change=-gradient + c / 2 * clipped,
        fisher=clipped.mean(0),
        diagnostics={
            "estimator": "curvature",
            "tokens": scored.numel(),
            "calibration": c,
            "calibration_heads": CALIBRATION_HEADS,
            "calibration_tokens": other.numel(),
        },
    )


def _derivatives(
    model: PreTrainedModel, windows: Int[Tensor, "windows time"], progress: Progress, seed: int
) -> tuple[
    Float[np.ndarray, " windows"],
    Float[np.ndarray, "windows layers heads"],
    Float[np.ndarray, "windows layers heads"],
]:
    """(NLL, dNLL/dg, Fisher value per token) of each window."""
    size = head_counts(model)

    def work(batch: list[int]) -> list[tuple[float, np.ndarray, np.ndarray]]:
        ids = windows[batch].to(model.device)
        tokens = ids.shape[1] - 1
        gates = torch.ones(len(ids), *size, device=model.device, requires_grad=True)
        with gated(model, gates):
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            log_p = logits.log_softmax(-1)
            nll = -log_p.gather(-1, ids[:, 1:, None])[..., 0].mean(1)
            (gradient,) = torch.autograd.grad(nll.sum(), gates, retain_graph=True)
            fisher = torch.zeros_like(gradient)
            for draw in range(LABEL_DRAWS):
                labels = _sampled_labels(log_p.detach(), batch, seed, draw)
                score = log_p.gather(-1, labels[..., None]).sum((1, 2))
                last = draw == LABEL_DRAWS - 1
                (s,) = torch.autograd.grad(score.sum(), gates, retain_graph=not last)
                fisher += s**2 / tokens / LABEL_DRAWS
        return [
            (nll[i].item(), gradient[i].double().cpu().numpy(), fisher[i].double().cpu().numpy())
            for i in range(len(ids))
        ]

    with progress("gradients (perplexity)", len(windows)) as advance:
        done = map_batches(
            list(range(len(windows))),
            work,
            batch_size=BATCH_SIZE,
            length=lambda _: windows.shape[1],
            advance=advance,
        )
    return (
        np.array([nll for nll, _, _ in done]),
        np.stack([gradient for _, gradient, _ in done]),
        np.stack([fisher for _, _, fisher in done]),
    )


def _sampled_labels(
    log_p: Float[Tensor, "batch time vocab"], batch: list[int], seed: int, draw: int
) -> Int[Tensor, "batch time"]:
    """One label per position from the model's own distribution, by inverting its CDF."""
    labels = []
    for row, window in zip(log_p, batch, strict=True):
        rng = np.random.default_rng(derived_seed(seed, "labels", window, draw))
        u = torch.from_numpy(rng.random((len(row), 1))).to(row.device, torch.float32)
        cdf = row.exp().cumsum(-1)
        labels.append(torch.searchsorted(cdf, u * cdf[:, -1:]).clamp(max=row.shape[-1] - 1)[:, 0])
    return torch.stack(labels)


def _calibrate(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    gradient: Grid,
    fisher: Grid,
    progress: Progress,
) -> float:
    """c: the median over a few heads of (true dNLL + gradient) / (F / 2), at least 0.

    The heads are spread over the upper half of Fisher values, where the quadratic term counts.
    """
    order = np.argsort(fisher, axis=None)
    ranks = np.linspace(0.5, 0.97, CALIBRATION_HEADS) * (len(order) - 1)
    chosen = [int(i) for i in np.unique(order[np.round(ranks).astype(int)])]
    heads = [(i // fisher.shape[1], i % fisher.shape[1]) for i in chosen]
    _, change = ablated_nll(model, windows, heads, silent)
    half = fisher.ravel()[chosen] / 2
    ratio = (change.mean(0) + gradient.ravel()[chosen]) / np.maximum(half, 1e-12)
    return max(0.0, float(np.median(ratio)))
