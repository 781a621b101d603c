"""Baselines that take a concept out of what attention layers write: LEACE, and a steering span.

Both are fitted to outputs y of the output projections at the positions of matched contexts, each
labelled with the subgroup whose prompt it follows; a hook then changes outputs at every position:

    y - strength * left right (y - mean)

    LEACE      left right = least-squares concept erasure (Belrose et al. 2023, arXiv 2306.03819),
               of the package concept-erasure (MIT); at strength 1 no linear classifier finds the
               subgroup in y. mean: that of y.
    steering   left right = Q Q', Q an orthonormal basis of the subgroups' mean outputs less the
               grand mean. mean: that of y, so that it stays, or 0.

All layers are fitted to the unchanged model, in one pass. It knows no scorer and no text.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from levelhead.batching import map_batches
from levelhead.errors import MissingExtraError, PromptError
from levelhead.evaluation.base import Variant
from levelhead.models.calibration import projections
from levelhead.models.short_texts import short_texts
from levelhead.sampling import pad_id
from levelhead.scoring.matched_rows import grouped_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import BATCH_SIZE, Row, padded

INSTALL = "pip install --no-deps concept-erasure==0.2.4"
_ALIKE = 1e-6
"""Directions along which means differ by less than this share of the most count as none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What is taken out of one layer's output y: left @ right @ (y - mean). float64."""

    left: Float[Tensor, "outputs directions"]
    right: Float[Tensor, "directions outputs"]
    mean: Float[Tensor, " outputs"]

    def of(self, y: Float[Tensor, "*more outputs"]) -> Float[Tensor, "*more outputs"]:
        """What is taken out of some outputs, in float32 at least."""
        wide = torch.promote_types(y.dtype, torch.float32)
        left, right, mean = (
            one.to(device=y.device, dtype=wide) for one in (self.left, self.right, self.mean)
        )
        return (y.to(wide) - mean) @ right.T @ left.T


@dataclass
class SubgroupMeans:
    """Sums of one layer's outputs by subgroup."""

    width: int
    count: int
    sums: Float[Tensor, "subgroups outputs"] = field(init=False)
    seen: Float[Tensor, " subgroups"] = field(init=False)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(self.count, self.width, dtype=torch.float64)
        self.seen = torch.zeros(self.count, dtype=torch.float64)

    def add(self, y: Float[Tensor, "n outputs"], label: Int[Tensor, " n"]) -> None:
        """Outputs, and the subgroup of each."""
        self.sums.index_add_(0, label, y.double())
        self.seen += torch.bincount(label, minlength=self.count)

    def removal(self, *, keep_mean: bool) -> Removal:
        """Of the span of the means less the grand mean, at most one direction a subgroup less 1."""
        grand = self.sums.sum(0) / self.seen.sum()
        present = self.seen > 0
        centred = self.sums[present] / self.seen[present, None] - grand
        _, size, rows = torch.linalg.svd(centred, full_matrices=False)
        found = rows[size > max(float(size[0]) * _ALIKE, 0.0)]
        mean = grand if keep_mean else torch.zeros_like(grand)
        return Removal(left=found.T, right=found, mean=mean)


def leace_fitter(width: int, subgroups: int) -> Any:
    """An empty fitter of one layer.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        with warnings.catch_warnings():  # of torch.jit, which it uses as it is imported
            warnings.simplefilter("ignore", DeprecationWarning)
            from concept_erasure import LeaceFitter
    except ImportError:
        raise MissingExtraError(
            f"The baseline LEACE needs the package concept-erasure (MIT): {INSTALL}"
        ) from None
    return LeaceFitter(width, subgroups, dtype=torch.float64)


def leace_removal(fitter: Any) -> Removal:
    """What the eraser of a fitter takes out."""
    eraser = fitter.eraser
    return Removal(left=eraser.proj_left, right=eraser.proj_right, mean=eraser.bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removals:
    """By layer, of one axis."""

    leace: Mapping[int, Removal]
    steering: Mapping[int, Removal]
    """The grand mean goes too."""
    centred_steering: Mapping[int, Removal]
    """It stays."""


def fit_removals(problem: BiasProblem, texts: SampledTexts) -> Removals:
    """Fit LEACE and the steering span of every layer to the same outputs.

    Args:
        texts: continuations of the problem's prompts, by its model.

    Raises:
        MissingExtraError: concept-erasure is not installed; before any work.
        PromptError: no matched groups.
    """
    names, count = problem.subgroups, len(problem.subgroups)
    fitters: dict[int, Any] = {}
    means: dict[int, SubgroupMeans] = {}
    leace_fitter(1, count)  # or say at once that it is missing

    def add(layer: int, y: Tensor, label: Tensor) -> None:
        if layer not in means:
            fitters[layer] = leace_fitter(y.shape[1], len(names))
            means[layer] = SubgroupMeans(y.shape[1], len(names))
        fitters[layer].update(y.double(), nn.functional.one_hot(label, len(names)))
        means[layer].add(y, label)

    read_outputs(problem, texts, add)
    return Removals(
        leace={layer: leace_removal(one) for layer, one in fitters.items()},
        steering={layer: one.removal(keep_mean=False) for layer, one in means.items()},
        centred_steering={layer: one.removal(keep_mean=True) for layer, one in means.items()},
    )


def read_outputs(
    problem: BiasProblem, texts: SampledTexts, see: Callable[[int, Tensor, Tensor], None]
) -> None:
    """Call `see` with (layer, outputs, subgroups), batch by batch.

    The positions are those of `matched_contexts`: the last one of the prompt and those of the
    continuation, which is the same after every subgroup's prompt.

    Raises:
        PromptError: no matched groups.
    """
    groups = grouped_rows(problem, texts)
    rows = [row for group in groups if group[0].continuation for row in group]
    if not rows:
        raise PromptError(f"axis {problem.axis!r} has no matched groups: nothing to fit to")
    model = problem.model
    sites = dict(enumerate(projections(model, "head")))

    def work(batch: list[Row]) -> list[None]:
        given = padded(batch, pad_id(problem.tokenizer), model.device)
        valid = nn.functional.pad(given.valid, (1, 0), value=True).cpu()
        label = torch.tensor([[row.subgroup] for row in batch]).expand_as(valid)[valid]

        def hook_of(layer: int) -> Any:
            def hook(_: nn.Module, __: Any, y: Tensor) -> None:
                see(layer, y[:, -valid.shape[1] :].float().cpu()[valid], label)

            return hook

        with ExitStack() as hooks, torch.inference_mode(), short_texts(model, given.ids.shape[1]):
            for layer, site in sites.items():
                hooks.callback(site.register_forward_hook(hook_of(layer)).remove)
            model.base_model(
                input_ids=given.ids,
                attention_mask=given.mask,
                position_ids=given.positions,
                use_cache=False,
            )
        return [None] * len(batch)

    map_batches(rows, work, batch_size=problem.batch_size or BATCH_SIZE, length=len)


def without(model: PreTrainedModel, removals: Mapping[int, Removal], strength: float) -> Variant:
    """The model as it is when that share of what is to go is taken out of each layer's output."""

    def hook_of(removal: Removal) -> Any:
        def hook(_: nn.Module, __: Any, y: Tensor) -> Tensor:
            return (y - strength * removal.of(y)).to(y.dtype)

        return hook

    @contextmanager
    def hooked() -> Iterator[PreTrainedModel]:
        sites = projections(model, "head")
        with ExitStack() as hooks:
            for layer, removal in removals.items():
                hooks.callback(sites[layer].register_forward_hook(hook_of(removal)).remove)
            yield model

    return hooked
