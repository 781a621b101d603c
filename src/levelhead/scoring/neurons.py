"""Effects of MLP neurons on bias and perplexity: all of them from a few backward passes.

    d quantity / d gate  =  sum over positions of  x dx        x: the down projection's input

A gate multiplies what a neuron writes, so its derivative is that times the quantity's gradient
there: no gates are needed, and the cost does not grow with the number of neurons. Bias is the
token-level gradient (token_gradient.py), perplexity the gradient and the Fisher value
(curvature.py). There is no estimator by ablation: tens of thousands of forward passes.

Memory: shifts are summed by template and subgroup, templates x subgroups x neurons numbers of four
bytes per sample: 37 MB for 40 templates and the 46,080 neurons of a model of 135M parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from levelhead.batching import map_batches
from levelhead.models.neuron_gates import ablate_neurons, captured
from levelhead.models.neuron_layouts import down_projections, neuron_counts
from levelhead.models.neurons import refuse_unprunable_neurons
from levelhead.progress import Progress
from levelhead.sampling import derived_seed, pad_id
from levelhead.scoring.curvature import shrunk
from levelhead.scoring.matched_rows import rows_to_read
from levelhead.scoring.perplexity_effects import PerplexityEffects, window_nll
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
)
from levelhead.scoring.teacher_forcing import BATCH_SIZE, continuation_logits, expected_toxicity
from levelhead.scoring.token_model import token_model

LABEL_DRAWS = 2
"""Sampled label sets per window: each costs one backward pass."""
STRETCH = 16
"""Positions whose derivatives by a gate are summed before they are squared (curvature.py)."""
CLIP_QUANTILE = 0.9
CALIBRATION_NEURONS = 12
CALIBRATION_WINDOWS = 2
CALIBRATION_RANKS = (0.9, 0.9998)
"""Quantiles of the Fisher value between which the calibration neurons are spread: what most neurons
do to the likelihood drowns in the rounding of float32."""


def neuron_gradient(
    problem: BiasProblem,
    base: SampledTexts,
    progress: Progress,
    options: EstimatorOptions = DEFAULTS,
) -> HeadShifts:
    """Shifts of every neuron by the token-level gradient, a replicate per template.

    Raises:
        ScorerError: token toxicity is all zero, or cannot be fitted to the scorer's answers.
        ModelError, UnsupportedArchitectureError: neurons that are gone, or not known.
    """
    refuse_unprunable_neurons(problem.model)
    model = token_model(problem, base, progress)
    chosen = rows_to_read(problem, base, matched=options.matched)
    rows, subgroup = chosen.rows, problem.subgroup[chosen.prompt]
    templates, place = np.unique(problem.template[chosen.prompt], return_inverse=True)
    shape = (len(templates), len(problem.subgroups))
    total = torch.zeros(*shape, *neuron_counts(problem.model), dtype=torch.float64)
    count = np.zeros(shape)
    np.add.at(count, (place, subgroup), 1.0)
    pad, sites = pad_id(problem.tokenizer), down_projections(problem.model)

    def work(batch: list[int]) -> list[None]:
        own = [rows[i] for i in batch]
        with captured(sites) as inputs:
            steps = continuation_logits(problem.model, own, pad)
            toxicity = expected_toxicity(steps, own, model.tau).sum()
            found = _by_row(toxicity, inputs, len(own))
        for layer, values in enumerate(found):
            for i, value in zip(batch, values, strict=True):
                total[place[i], subgroup[i], layer] += value.cpu()
        return [None] * len(batch)

    with progress(f"gradients of neurons ({problem.axis})", len(rows)) as advance:
        map_batches(
            list(range(len(rows))),
            work,
            batch_size=problem.batch_size or BATCH_SIZE,
            length=lambda i: len(rows[i]),
            advance=advance,
        )
    share = -model.beta / np.maximum(count, 1)[:, :, None, None]
    return HeadShifts(
        shift=total.mul_(torch.from_numpy(share)).float().numpy(),
        count=count,
        template=templates,
        sample=np.full(len(templates), problem.first_sample),
        descriptor=np.zeros(len(templates), dtype=int),
        toxicity=model.expected,
        unbiased=model.adjusted,
        diagnostics={
            "estimator": "token-gradient",
            "unit": "neuron",
            "matched_contexts": options.matched,
            "beta": model.beta,
            "token_toxicity_r2": model.r_squared,
            "token_toxicity_tokens": len(model.tau.token_ids),
            "classifier_calls": model.tau.classifier_calls,
            "rows": len(rows),
        },
    )


def neuron_curvature(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    progress: Progress,
    seed: int,
    gamma: float,
) -> PerplexityEffects:
    """dNLL of every neuron from one forward and a few backward passes per window.

    As `curvature.curvature`: gradients shrunk, Fisher values clipped, both by part of the text, and
    the quadratic term scaled by c, which exact ablation of a few neurons on the last windows finds.
    """
    refuse_unprunable_neurons(model)
    held = CALIBRATION_WINDOWS if len(windows) >= 3 * CALIBRATION_WINDOWS else 1
    nll, gradient, fisher = _derivatives(model, windows, progress, seed)
    scored = np.arange(len(windows) - held)

    def changes(part: Int[np.ndarray, " part"], c: float) -> Float[np.ndarray, "part layers units"]:
        clipped = np.minimum(fisher[part], np.quantile(fisher[part], CLIP_QUANTILE, axis=0))
        out: Float[np.ndarray, "part layers units"] = (
            -shrunk(gradient[part], clipped.mean(0)) + c / 2 * clipped
        )
        return out

    values = np.minimum(fisher[:-held], np.quantile(fisher[:-held], CLIP_QUANTILE, axis=0)).mean(0)
    c = _calibrate(model, windows[-held:], nll[-held:], gradient[-held:].mean(0), values)
    return PerplexityEffects(
        base_nll=nll[:-held],
        nll_change=changes(scored, c),
        of_part=lambda part: changes(part, c).mean(0),
        fisher=values,
        diagnostics={
            "estimator": "curvature",
            "unit": "neuron",
            "tokens": windows[:-held].numel(),
            "calibration": c,
            "calibration_neurons": CALIBRATION_NEURONS,
            "calibration_tokens": windows[-held:].numel(),
        },
    )


def ablated_nll_neurons(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    neurons: Sequence[tuple[int, int]],
) -> Float[np.ndarray, "windows neurons"]:
    """Mean NLL per token of each window when each of the neurons is ablated."""
    found = np.zeros((len(windows), len(neurons)))
    with torch.inference_mode():
        for place, (layer, neuron) in enumerate(neurons):
            with ablate_neurons(model, {layer: [neuron]}):
                for number, window in enumerate(windows):
                    found[number, place] = window_nll(model, window[None].to(model.device)).item()
    return found


def _by_row(
    scalar: Float[Tensor, ""], inputs: dict[int, Tensor], rows: int
) -> list[Float[Tensor, "rows neurons"]]:
    """d scalar / d gate of every neuron by row of the batch, a tensor per layer."""
    gradients = torch.autograd.grad(scalar, list(inputs.values()))
    pairs = zip(inputs.values(), gradients, strict=True)
    # OPT flattens rows and positions before its MLP.
    return [(x.detach().float() * dx.float()).view(rows, -1, x.shape[-1]).sum(1) for x, dx in pairs]


def _derivatives(
    model: PreTrainedModel, windows: Int[Tensor, "windows time"], progress: Progress, seed: int
) -> tuple[
    Float[np.ndarray, " windows"],
    Float[np.ndarray, "windows layers neurons"],
    Float[np.ndarray, "windows layers neurons"],
]:
    """(NLL, gradient of the mean NLL per token, Fisher value per token) by window."""
    sites, size = down_projections(model), neuron_counts(model)
    nll = np.zeros(len(windows))
    gradient, fisher = (np.zeros((len(windows), *size), np.float32) for _ in range(2))
    with progress("gradients of neurons (perplexity)", len(windows)) as advance:
        for number, window in enumerate(windows):
            ids = window[None].to(model.device)
            tokens = ids.shape[1] - 1
            with captured(sites) as inputs:
                logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
                log_p = logits.log_softmax(-1)
                loss = -log_p.gather(-1, ids[:, 1:, None]).mean()
                scalars = [loss]
                for draw in range(LABEL_DRAWS):
                    labels = _labels(log_p.detach()[0], seed, number, draw)
                    scalars.append(log_p[0].gather(-1, labels[:, None]).sum())
                xs = list(inputs.values())
                for scalar in scalars:
                    dxs = torch.autograd.grad(scalar, xs, retain_graph=True)
                    for layer, (x, dx) in enumerate(zip(xs, dxs, strict=True)):
                        by_position = (x.detach().float() * dx.float()).view(-1, x.shape[-1])
                        if scalar is loss:
                            gradient[number, layer] = by_position.sum(0).cpu().numpy()
                            continue
                        sums = [part.sum(0) ** 2 for part in torch.split(by_position, STRETCH)]
                        fisher[number, layer] += torch.stack(sums).sum(0).cpu().numpy()
            fisher[number] /= tokens * LABEL_DRAWS
            nll[number] = loss.item()
            advance(1)
    return nll, gradient, fisher


def _labels(
    log_p: Float[Tensor, "time vocab"], seed: int, window: int, draw: int
) -> Int[Tensor, " time"]:
    """One label per position from the model's own distribution, by inverting its CDF."""
    rng = np.random.default_rng(derived_seed(seed, "labels", window, draw))
    u = torch.from_numpy(rng.random((len(log_p), 1))).to(log_p.device, torch.float32)
    cdf = log_p.exp().cumsum(-1)
    last = log_p.shape[-1] - 1
    return torch.searchsorted(cdf, u * cdf[:, -1:]).clamp(max=last)[:, 0]


def _calibrate(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    nll: Float[np.ndarray, " windows"],
    gradient: Float[np.ndarray, "layers neurons"],
    fisher: Float[np.ndarray, "layers neurons"],
) -> float:
    """c: the median over a few neurons of (true dNLL + gradient) / (F / 2), at least 0."""
    order = np.argsort(fisher, axis=None)
    ranks = np.linspace(*CALIBRATION_RANKS, CALIBRATION_NEURONS) * (len(order) - 1)
    chosen = [int(i) for i in np.unique(order[np.round(ranks).astype(int)])]
    pairs = [(i // fisher.shape[1], i % fisher.shape[1]) for i in chosen]
    change = (ablated_nll_neurons(model, windows, pairs) - nll[:, None]).mean(0)
    half = fisher.ravel()[chosen] / 2
    ratio = (change + gradient.ravel()[chosen]) / np.maximum(half, 1e-12)
    return max(0.0, float(np.median(ratio)))
