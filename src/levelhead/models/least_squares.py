"""Weights of a layer that come closest to what the layer ought to write.

x are the inputs of a layer's output projection W (for neurons: of its down projection), K those
whose weights may change, t what the layer ought to write, less what inputs whose weights are held
as they are write of it. The weights of K become

    W' = argmin  E |t - W' x_K|^2  +  ridge * sum_i E[x_i^2] |W'_i - W_i|^2

over the positions of a calibration text. Only second moments of x are needed: a forward pass, and a
linear system per layer. No bias is added, so that stock formats hold the result. With t = W x, what
the layer wrote before, S the removed inputs and M = E[x x']:

    W' = W_K + W_S M_SK (M_KK + ridge diag(M_KK))^-1

A fit on the calibration text is never worse there than no repair at all; elsewhere it may be. It
knows nothing of files, nor of why units were removed or what a target is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from levelhead.errors import ModelError

_DEAD = 1e-6
"""Inputs whose mean square is less than this share of the mean over all count as that large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """What a fit of one layer needs to know of its inputs, and its target.

    `gram` is E[x x']. The target is W z, the layer's own output for another input z of the same
    width, and `cross` is E[z x']: where the layer is to write what it wrote, z is x. Moments of
    several texts or targets add up, each times its weight.
    """

    gram: Float[Tensor, "inputs inputs"]
    cross: Float[Tensor, "inputs inputs"]

    @classmethod
    def keeping(cls, gram: Float[Tensor, "inputs inputs"]) -> Moments:
        """The target is what the layer wrote before."""
        return cls(gram=gram, cross=gram)

    def times(self, factor: float) -> Moments:
        """What a text or target that counts `factor` times has."""
        return Moments(gram=factor * self.gram, cross=factor * self.cross)

    def plus(self, other: Moments) -> Moments:
        """Those of both texts or targets."""
        return Moments(gram=self.gram + other.gram, cross=self.cross + other.cross)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """New weights of one layer's kept inputs."""

    weight: Float[Tensor, "outputs kept"]
    change: Float[Tensor, "outputs kept"]
    """What was added to the old ones; exactly 0 where they do what they ought to."""


def fit(
    weight: Float[Tensor, "outputs inputs"],
    moments: Moments,
    kept: Sequence[int],
    ridge: float,
    held: Sequence[int] = (),
) -> Fit:
    """The weights of the kept inputs that come closest to the target.

    Args:
        weight: of the whole projection, float64. Where only a part U' of what it writes matters,
            U' W: what is found is then the change of that part.
        moments: of its inputs, float64.
        kept: inputs whose weights may change, ascending, at least one.
        ridge: share of every input's mean square, above 0.
        held: inputs that stay with the weights they have. All others are removed.

    Raises:
        ModelError: moments that are not finite, or a system that cannot be solved.
    """
    check_ridge(ridge)
    index = torch.as_tensor(list(kept), device=weight.device)
    gram = moments.gram[index][:, index]
    if not bool(torch.isfinite(gram).all()):
        raise ModelError(
            "the model's activations on the calibration text are NaN or infinite, so no weights "
            "can be fitted to them; try --dtype float32"
        )
    # What inputs that stay leave undone with their old weights: 0 where nothing is removed and the
    # target is the layer's own output.
    stay = torch.as_tensor([*kept, *held], device=weight.device)
    undone = moments.cross[:, index].clone()
    undone[stay] -= moments.gram[stay][:, index]
    owed = weight @ undone
    old = weight[:, index]
    square = gram.diagonal()
    if not float(square.sum()) > 0:
        return Fit(weight=old, change=torch.zeros_like(old))
    scale = square.clamp(min=_DEAD * float(square.mean()))
    factor, failed = torch.linalg.cholesky_ex(gram + torch.diag(ridge * scale))
    if int(failed):
        raise ModelError(
            f"the least squares of a layer cannot be solved with a ridge of {ridge:g}; use more "
            "calibration text"
        )
    change = torch.cholesky_solve(owed.T, factor).T
    return Fit(weight=old + change, change=change)


def rebuilt(
    weight: Float[Tensor, "outputs inputs"],
    found: Fit,
    gram: Float[Tensor, "inputs inputs"],
    kept: Sequence[int],
) -> float:
    """Share of the mean square of what removed inputs wrote that kept ones write again.

    Args:
        weight: before anything was removed.
        gram: E[x x'] over the text that it is asked of.
        kept: as `fit` was given them, with nothing held.
    """
    lost = weight.clone()
    lost[:, list(kept)] = 0
    left = lost.clone()
    left[:, list(kept)] = -found.change
    before, after = (float(((part @ gram) * part).sum()) for part in (lost, left))
    return 1 - after / before if before > 0 else 0.0


def check_ridge(ridge: float) -> None:
    """Raise ValueError for a ridge that is no finite number above 0."""
    if not (ridge > 0 and math.isfinite(ridge)):
        raise ValueError(f"ridge={ridge!r}: it must be a finite number above 0")


def second_moments(
    model: PreTrainedModel,
    modules: Mapping[int, nn.Module],
    windows: Iterable[Sequence[int]],
    advance: Callable[[int], None] | None = None,
) -> dict[int, Float[Tensor, "inputs inputs"]]:
    """E[x x'] of the inputs of some modules over all positions of windows of tokens, float64.

    Args:
        modules: by any number; parts of the model.
        windows: token ids, read one window at a time.
        advance: called with the number of tokens read.
    """
    device = model.device
    home = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    sums: dict[int, Tensor] = {}
    count = 0

    def collect(place: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            # Activations are float32 at best: so are products of a window, not their sum.
            x = args[0].detach().reshape(-1, args[0].shape[-1]).to(home).float()
            product = x.T @ x
            if place in sums:
                sums[place] += product
            else:
                sums[place] = product.double()

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for place, module in modules.items():
            hooks.callback(module.register_forward_pre_hook(collect(place)).remove)
        for window in windows:
            ids = torch.tensor([list(window)], dtype=torch.long, device=device)
            model.base_model(input_ids=ids, use_cache=False)  # no logits are needed
            count += len(window)
            if advance:
                advance(len(window))
    return {place: total / count for place, total in sums.items()}


def read_weight(projection: nn.Module) -> Float[Tensor, "outputs inputs"]:
    """The weight of a Linear or Conv1D as float64."""
    weight = projection.get_parameter("weight").detach().double()
    return weight.T if isinstance(projection, Conv1D) else weight


def write_weight(projection: nn.Module, weight: Float[Tensor, "outputs inputs"]) -> None:
    """Set the weight of a Linear or Conv1D, in its own number format and in place.

    Raises:
        ModelError: it does not fit that format.
    """
    own = projection.get_parameter("weight")
    found = (weight.T if isinstance(projection, Conv1D) else weight).to(own)
    if not bool(torch.isfinite(found).all()):
        name = str(own.dtype).removeprefix("torch.")
        raise ModelError(f"the new weights do not fit {name}; save the model in another format")
    with torch.no_grad():
        own.copy_(found)
