"""What averaging needs to know of matched contexts: second moments of layers' inputs, and readouts.

The same continuation is read after every subgroup's version of a prompt (`grouped_rows`). Of every
layer, at the last position of the prompt and those of the continuation, x being the input of its
output projection:

    gram   E[x x']
    cross  E[z x']   z: the mean of x over the subgroups, x itself, or a control (`Target`)
    readout  E[g g'] g: gradient, by the layer's output, of the sum over steps of any differentiable
                     function of a row's logits; the expected masked toxicity of words, above all

One pass of the model, with a backward one where something is read. It does not know what is done
with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from levelhead.batching import map_batches
from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import PromptError
from levelhead.models.averaging import Contexts, Target
from levelhead.models.calibration import projections
from levelhead.models.least_squares import Moments
from levelhead.models.short_texts import short_texts
from levelhead.progress import Progress
from levelhead.records import Unit
from levelhead.sampling import derived_seed, pad_id
from levelhead.scoring.matched_rows import grouped_rows, own_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import (
    BATCH_SIZE,
    Padded,
    Row,
    Steps,
    continuation_logits,
    expected_toxicity,
    padded,
)
from levelhead.scoring.token_toxicity import TokenToxicity

Quantity = Callable[[Steps, list[Row]], Float[Tensor, "rows steps"]]
"""What a readout reads of every step, differentiable by the logits; as in `gate_derivatives`."""


def toxicity_of_words(tau: TokenToxicity) -> Quantity:
    """The expected toxicity of each step's word; by a masked scorer, identity words count 0."""
    return lambda steps, rows: expected_toxicity(steps, rows, tau)


def matched_contexts(
    problem: BiasProblem,
    texts: SampledTexts,
    progress: Progress,
    *,
    quantity: Quantity | None = None,
    layers: Sequence[int] | None = None,
    target: Target = "average",
    unit: Unit = "head",
) -> Contexts:
    """Collect at the matched positions of an axis, or, to be kept, at those of all its texts.

    Args:
        texts: continuations of the problem's prompts, by its model.
        quantity: what the readout is of; none: no readout, and no backward pass.
        layers: those to collect; none: all. Two or three matrices of width x width each, float64.
        target: "own" reads every continuation after its own prompt.
        unit: "neuron" looks at down projections instead of attention's output projections.

    Raises:
        PromptError: no matched groups of two subgroups or more, where they are needed.
        ModelError: the model yields NaN.
    """
    if target != "own":
        refuse_unmatched(problem)
    groups = _own_groups(problem, texts) if target == "own" else grouped_rows(problem, texts)
    groups = [rows for rows in groups if rows[0].continuation]
    if not groups:
        raise _no_groups(problem)
    sites = projections(problem.model, unit)
    chosen = range(len(sites)) if layers is None else layers
    sums = _Sums({layer: sites[layer] for layer in chosen})
    numbered = list(enumerate(groups))
    size = max(1, (problem.batch_size or BATCH_SIZE) // max(map(len, groups)))
    title = f"matched contexts ({problem.axis})"
    with progress(title, sum(map(len, groups))) as advance:
        each = len(groups[0])
        map_batches(
            numbered,
            lambda batch: _read(problem, batch, quantity, target, sums),
            batch_size=size,
            length=lambda item: max(map(len, item[1])),
            advance=lambda done: advance(done * each),
        )
    prompts = {(row.prompt_ids, row.subgroup) for rows in groups for row in rows}
    return Contexts(
        moments={layer: sums.moments(layer) for layer in chosen},
        readout={layer: gram / sums.positions for layer, gram in sums.read.items()},
        target=target,
        prompts=len(prompts),
        groups=len(groups),
        positions=sums.positions,
    )


def refuse_unmatched(problem: BiasProblem) -> None:
    """Raise PromptError for prompts that say nothing of every subgroup, before any work."""
    if len(problem.subgroups) < 2:
        raise PromptError(
            f"axis {problem.axis!r} has one subgroup ({problem.subgroups[0]}): there is nothing to "
            "average over; give prompts of at least two"
        )
    if not matched_groups(problem.prompts):
        raise _no_groups(problem)


def _no_groups(problem: BiasProblem) -> PromptError:
    return PromptError(
        f"axis {problem.axis!r} has no matched groups among {len(problem.prompts):,} prompts: "
        "averaging needs the same sentence said of every subgroup (columns `template` and "
        "`variant`, one prompt of each subgroup), with a continuation"
    )


def _own_groups(problem: BiasProblem, texts: SampledTexts) -> list[tuple[Row, ...]]:
    """Every continuation after its own prompt, each a group of its own."""
    return [(row,) for row in own_rows(problem, texts).rows]


@dataclass
class _Sums:
    """Sums over positions, float64, of the layers whose output projections are `sites`."""

    sites: dict[int, nn.Module]
    gram: dict[int, Tensor] = field(default_factory=dict)
    owed: dict[int, Tensor] = field(default_factory=dict)
    """Of (z - x) x', so that it is exactly 0 where subgroups do not differ."""
    read: dict[int, Tensor] = field(default_factory=dict)
    positions: int = 0

    def moments(self, layer: int) -> Moments:
        gram = self.gram[layer] / self.positions
        return Moments(gram=gram, cross=gram + self.owed[layer] / self.positions)

    def add(self, batch: _Batch) -> None:
        """A batch as a whole, once all of it is there: one that runs out of memory leaves none."""
        for mine, new in (
            (self.gram, batch.gram),
            (self.owed, batch.owed),
            (self.read, batch.read),
        ):
            for layer, product in new.items():
                mine[layer] = mine[layer] + product if layer in mine else product.double()
        self.positions += int(batch.valid.sum())


@dataclass
class _Batch:
    """Products of one batch of groups, all of `size` rows."""

    size: int
    valid: Bool[Tensor, "rows positions"]
    """Of the last position of prompts and those of continuations: which count."""
    donors: list[int] | None
    """Whose correction each row gets; none: its own."""
    target: Target
    gram: dict[int, Tensor] = field(default_factory=dict)
    owed: dict[int, Tensor] = field(default_factory=dict)
    read: dict[int, Tensor] = field(default_factory=dict)

    def last(self, x: Tensor) -> Float[Tensor, "rows positions width"]:
        """The positions that are looked at, where float64 can be had."""
        home = torch.device("cpu") if x.device.type == "mps" else x.device
        return x.detach()[:, -self.valid.shape[1] :].to(home).float()

    def add_input(self, layer: int, inputs: Tensor) -> None:
        x = self.last(inputs)
        valid = self.valid.to(x.device)
        seen = x[valid]
        self.gram[layer] = seen.T @ seen
        if self.target == "own":
            self.owed[layer] = torch.zeros_like(self.gram[layer])
            return
        # Means in float64: those of equal numbers are these numbers, and nothing is owed.
        grouped = x.reshape(-1, self.size, *x.shape[1:]).double()
        correction = (grouped.mean(1, keepdim=True) - grouped).reshape(x.shape)
        if self.donors is not None:
            correction = correction[self.donors]
        self.owed[layer] = correction[valid].float().T @ seen

    def add_gradient(self, layer: int, gradient: Tensor) -> None:
        g = self.last(gradient)[self.valid]
        self.read[layer] = g.T @ g


def _read(
    problem: BiasProblem,
    batch: list[tuple[int, tuple[Row, ...]]],
    quantity: Quantity | None,
    target: Target,
    sums: _Sums,
) -> list[None]:
    rows = [row for _, group in batch for row in group]
    pad = pad_id(problem.tokenizer)
    given = padded(rows, pad, problem.model.device)
    products = _Batch(
        size=len(batch[0][1]),
        valid=nn.functional.pad(given.valid, (1, 0), value=True),
        donors=_donors(problem, batch) if target == "shuffled" else None,
        target=target,
    )
    outputs: dict[int, Tensor] = {}
    with _watched(sums.sites, products, None if quantity is None else outputs):
        if quantity is None:
            _forward(problem, given)
        else:
            steps = continuation_logits(problem.model, rows, pad)
            total = (quantity(steps, rows) * steps.valid).sum()
            gradients = torch.autograd.grad(total, list(outputs.values()))
            for layer, gradient in zip(outputs, gradients, strict=True):
                products.add_gradient(layer, gradient)
    sums.add(products)
    return [None] * len(batch)


def _forward(problem: BiasProblem, given: Padded) -> None:
    with torch.inference_mode(), short_texts(problem.model, given.ids.shape[1]):
        problem.model(
            input_ids=given.ids,
            attention_mask=given.mask,
            position_ids=given.positions,
            logits_to_keep=1,
            use_cache=False,
        )


def _donors(problem: BiasProblem, batch: list[tuple[int, tuple[Row, ...]]]) -> list[int]:
    """Row numbers within the batch: each group's own, shuffled by the run's seed."""
    found: list[int] = []
    for number, group in batch:
        rng = np.random.default_rng(derived_seed(problem.seed, problem.axis, "shuffled", number))
        found += [len(found) + int(i) for i in rng.permutation(len(group))]
    return found


@contextmanager
def _watched(
    sites: dict[int, nn.Module], products: _Batch, outputs: dict[int, Tensor] | None
) -> Iterator[None]:
    """Collect inputs as the model runs and, if `outputs` is there, zeros to differentiate by."""

    def inputs_of(layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            products.add_input(layer, args[0])

        return hook

    def output_of(layer: int, outputs: dict[int, Tensor]) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], written: Tensor) -> Tensor:
            outputs[layer] = torch.zeros_like(written, requires_grad=True)
            return written + outputs[layer]

        return hook

    with ExitStack() as hooks:
        for layer, module in sites.items():
            hooks.callback(module.register_forward_pre_hook(inputs_of(layer)).remove)
            if outputs is not None:
                hook = output_of(layer, outputs)
                hooks.callback(module.register_forward_hook(hook).remove)
        yield
