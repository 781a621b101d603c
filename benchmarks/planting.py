"""Plant biased heads in a real model: heads that raise toxic tokens when one subgroup is named.

A planted head keeps its attention and its values and gets a rank-one addition to its columns of
the attention output projection (values may be shared by several query heads, these columns never):

    W_h + gain * writes reads'

`reads` answers 1 on average to the head's output where the text is about the target subgroup, 0
where the same text is about another one and 0 on plain text, with the least variance. `writes` is
the mean gradient of expected toxicity with respect to what the layer's attention adds to the
residual stream, scaled so that to first order a gain of g raises sum_t r_t by g. With a table that
is 1 for some words (`words_alone`), sum_t r_t is how often they are expected to be written.

Only for output projections that are `nn.Linear`. It does not know whether the effect is there in
freely sampled text: `planted_text.py` samples to find out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from levelhead.batching import map_batches
from levelhead.models.architectures import head_counts, head_dim, output_projections
from levelhead.models.gates import ablate
from levelhead.sampling import pad_id
from levelhead.scoring.matched_rows import matched_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import (
    BATCH_SIZE,
    Row,
    continuation_logits,
    expected_toxicity,
    read_rows,
)
from levelhead.scoring.token_toxicity import TokenToxicity, word_tokens

PLAIN = -1
"""`Row.subgroup` of text that is about no subgroup of the axis."""
RIDGE = 0.02
"""Added to within-group covariances, as a share of their mean variance."""
TOXIC = 0.1
"""What a toxic word adds to the toxicity of a text, at least (mean over contexts)."""
ROUNDS = 3
"""Corrections of the gains, each measured with all heads planted and with each one ablated."""
START, DAMPING, LARGEST_STEP = 0.6, 0.7, 2.5
"""First gain, as a share of the first-order one; power of a correction; its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedHead:
    """One head's addition to the output projection."""

    layer: int
    head: int
    reads: Float[Tensor, " head_dim"]
    writes: Float[Tensor, " hidden"]
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOutputs:
    """Outputs of every head at the positions from which continuation tokens are predicted."""

    output: Float[Tensor, "positions layers heads head_dim"]
    subgroup: Int[np.ndarray, " positions"]
    row: Int[np.ndarray, " positions"]
    """Which of the rows that were read a position is in."""


@contextmanager
def planted(model: PreTrainedModel, heads: Sequence[PlantedHead]) -> Iterator[None]:
    """Run a model with these heads planted; its weights are restored to the bit on exit."""
    width, projections = head_dim(model), output_projections(model)
    weights: list[Any] = [projections[head.layer].weight for head in heads]
    before = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, head in zip(weights, heads, strict=True):
                columns = slice(head.head * width, (head.head + 1) * width)
                weight[:, columns] += head.gain * torch.outer(head.writes, head.reads)
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


def head_outputs(model: PreTrainedModel, rows: Sequence[Row], pad: int) -> HeadOutputs:
    """Read rows and keep what every head puts into its output projection."""
    num_layers, num_heads = head_counts(model)
    kept: list[Tensor] = [torch.empty(0)] * num_layers

    def keep(layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            kept[layer] = args[0]

        return hook

    def work(batch: list[Row]) -> list[Tensor]:
        with torch.inference_mode():
            valid = continuation_logits(model, batch, pad).valid
            steps = valid.shape[1]
            stacked = torch.stack([x[:, -steps - 1 : -1] for x in kept], dim=2)
            return [own[mask].float().cpu() for own, mask in zip(stacked, valid, strict=True)]

    with ExitStack() as stack:
        for layer, projection in enumerate(output_projections(model)):
            stack.callback(projection.register_forward_pre_hook(keep(layer)).remove)
        found = map_batches(rows, work, batch_size=BATCH_SIZE, length=len)
    output = torch.cat(found)
    row = np.repeat(np.arange(len(rows)), [len(x) for x in found])
    return HeadOutputs(
        output=output.reshape(*output.shape[:2], num_heads, -1),
        subgroup=np.array([row.subgroup for row in rows])[row],
        row=row,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Texts about every subgroup and about none, and what every head of the model says of them."""

    rows: tuple[Row, ...]
    """Of the subgroups' prompts, with matched contexts."""
    outputs: HeadOutputs
    even_template: Bool[np.ndarray, " positions"]
    """Of each position of `outputs`: directions are tried out on the other half."""


def ground_of(problem: BiasProblem, texts: SampledTexts, plain: Sequence[int]) -> Ground:
    """Read one continuation of each prompt of a problem, and token ids of plain text."""
    chosen, each = matched_rows(problem, texts), problem.new_tokens
    about_none = [
        Row((plain[i],), tuple(plain[i + 1 : i + 1 + each]), PLAIN)
        for i in range(0, len(plain) - each, each + 1)
    ]
    rows = [*chosen.rows, *about_none]
    outputs = head_outputs(problem.model, rows, pad_id(problem.tokenizer))
    half = np.concatenate([problem.template[chosen.prompt], np.arange(len(about_none))]) % 2 == 0
    return Ground(rows=chosen.rows, outputs=outputs, even_template=half[outputs.row])


def reading_direction(
    output: Float[Tensor, "positions head_dim"],
    subgroup: Int[np.ndarray, " positions"],
    target: int,
) -> Float[Tensor, " head_dim"]:
    """1 on the target's mean output, 0 on every other group's mean, and else the least variance.

    Linear discriminant analysis with the answers at all group means given; groups weigh alike.
    """
    x, names = output.double(), np.unique(subgroup)
    parts = [x[torch.from_numpy(subgroup == s)] for s in names]
    means = torch.stack([part.mean(0) for part in parts])
    within = torch.stack([torch.cov(part.T) for part in parts]).mean(0)
    within += RIDGE * within.diagonal().mean() * torch.eye(len(within), dtype=x.dtype)
    wanted = torch.from_numpy((names == target).astype(float))
    solved = torch.linalg.solve(within, means.T)
    reads: Tensor = solved @ torch.linalg.lstsq(means @ solved, wanted[:, None]).solution[:, 0]
    return reads.float()


def separations(
    outputs: HeadOutputs, target: int, fitted: Bool[np.ndarray, " positions"]
) -> Float[np.ndarray, "layers heads"]:
    """How well each head's output tells the target from the nearest other group, held out.

    The reading direction comes from the `fitted` positions. Of the others: the distance of the
    target's mean answer from the largest mean answer of another group (or of plain text), in
    standard deviations within groups. 0 or below: not at all.
    """
    num_layers, num_heads = outputs.output.shape[1:3]
    names, rest = np.unique(outputs.subgroup), ~fitted
    found = np.zeros((num_layers, num_heads))
    for layer, head in np.ndindex(num_layers, num_heads):
        x = outputs.output[:, layer, head]
        reads = reading_direction(x[torch.from_numpy(fitted)], outputs.subgroup[fitted], target)
        answer = (x[torch.from_numpy(rest)] @ reads).numpy()
        parts = [answer[outputs.subgroup[rest] == s] for s in names]
        mean = np.array([part.mean() for part in parts])
        spread = np.sqrt(np.mean([part.var() for part in parts]))
        found[layer, head] = (mean[names == target][0] - mean[names != target].max()) / spread
    return found


def words_alone(tokenizer: PreTrainedTokenizerBase, words: Collection[str]) -> TokenToxicity | None:
    """1 for the tokens that are one of these words, 0 for all others; None: no word is a token.

    Words of several tokens are left out: their first may begin a hundred others.
    """
    known = word_tokens(tokenizer)
    ids = sorted({i for word in words for i in known.get(word.casefold(), ())})
    return TokenToxicity(np.array(ids), np.ones((1, len(ids))), 0) if ids else None


def without_words(
    tau: TokenToxicity, tokenizer: PreTrainedTokenizerBase, words: Collection[str]
) -> TokenToxicity:
    """The table without tokens that are one of these words, in any case."""
    left_out = {word.casefold() for word in words}
    names = [str(tokenizer.decode([i])).strip().casefold() for i in tau.token_ids]
    other = np.array([name not in left_out for name in names], dtype=bool)
    return TokenToxicity(tau.token_ids[other], tau.tau[:, other], 0)


def toxic_words(tau: TokenToxicity, least: float = TOXIC) -> TokenToxicity:
    """The table of the words that raise a text's toxicity by `least` or more.

    Others dilute what is toxic: with them sum_t r_t may be below 0, and no gain multiplies it.
    """
    toxic = tau.tau.mean(0) >= least
    return TokenToxicity(tau.token_ids[toxic], tau.tau[:, toxic], 0)


def words_of(problem: BiasProblem) -> set[str]:
    """Every word of a problem's prompts, in small letters."""
    return {word for p in problem.prompts for word in re.findall("[a-z]+", p.text.lower())}


def writing_directions(
    model: PreTrainedModel, rows: Sequence[Row], tau: TokenToxicity, pad: int
) -> Float[Tensor, "layers hidden"]:
    """For every layer what to add to the residual stream to raise sum_t r_t by 1, to first order.

    The gradient of sum_t r_t with respect to the attention's contribution at the positions from
    which continuation tokens are predicted, averaged over positions and rows.
    """
    leaves: list[Tensor] = []

    def add_leaf(_: nn.Module, __: tuple[Any, ...], out: Tensor) -> Tensor:
        leaves.append(torch.zeros_like(out).requires_grad_())
        return out + leaves[-1]

    def work(batch: list[Row]) -> list[Tensor]:
        leaves.clear()
        steps = continuation_logits(model, batch, pad)
        r = expected_toxicity(steps, batch, tau)
        gradients = torch.autograd.grad(r.sum(), leaves)
        kept = torch.stack([g[:, -r.shape[1] - 1 : -1] for g in gradients], dim=1)
        return list((kept * steps.valid[:, None, :, None]).sum(2).double().cpu())

    with ExitStack() as stack:
        for projection in output_projections(model):
            stack.callback(projection.register_forward_hook(add_leaf).remove)
        total = torch.stack(map_batches(rows, work, batch_size=BATCH_SIZE, length=len)).mean(0)
    # Added at all of a row's positions, x raises sum_t r_t by x . total.
    return (total / (total**2).sum(-1, keepdim=True)).float()


def calibrate(
    model: PreTrainedModel,
    heads: Sequence[PlantedHead],
    grades: Sequence[float],
    times: float,
    rows: Sequence[Row],
    tau: TokenToxicity,
    pad: int,
) -> tuple[list[PlantedHead], Float[np.ndarray, " heads"]]:
    """Gains with which all heads together raise the rows' mean sum_t r_t about `times`-fold.

    Planted heads add up in the logits, so sum_t r_t is about base * exp(sum of strengths). The
    strengths, in proportion to `grades`, are log(times) in all; each gain is corrected until
    ablating that head alone lowers log sum_t r_t by its strength.

    Returns:
        The heads, and the share of sum_t r_t that the ablation of each was last measured to take.
    """

    def toxicity() -> float:
        return float(read_rows(model, rows, tau, pad=pad, batch_size=None)[0].mean())

    base = toxicity()
    strength = np.array(grades) / sum(grades) * np.log(times)
    # To first order a gain g adds g to `base`, g / base to its logarithm; it grows faster.
    gains = START * base * strength
    for left in reversed(range(ROUNDS + 1)):
        heads = [replace(h, gain=float(g)) for h, g in zip(heads, gains, strict=True)]
        without = []
        with planted(model, heads):
            whole = toxicity()
            for head in heads:
                with ablate(model, {head.layer: [head.head]}):
                    without.append(toxicity())
        if left:
            measured = np.maximum(np.log(whole / np.array(without)), 1e-3)
            step = (strength / measured) ** DAMPING
            gains = gains * np.clip(step, 1 / LARGEST_STEP, LARGEST_STEP)
    return list(heads), 1 - np.array(without) / whole
