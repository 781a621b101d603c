"""What is promised of numbers: bits of the same computation, else a difference small to its scale.

The same computation is the same operations on the same shapes, on one machine with one number of
threads. All else (a head pruned or gated, a cache or none, a batch of one or of ten, weights in
memory or mapped from a file, another CPU) may differ in the last bits of float32, and a choice made
by a margin below that may fall the other way. `make test-machines` runs the tests where it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from levelhead import sampling

SAME = 1e-5
"""Two ways to compute the same in float32 differ by less, relative to the largest value. Measured
on logits: 6e-7 at most on tiny models (resumed and in full, by MKL), 2e-6 on the embedded one."""
FAR = 1e-2
"""A wrong head, gate or position differs by more. Measured: 0.13 at least on the tiny models, 0.07
on the embedded one."""
CLEAR = 1e-4
"""A choice with a larger margin, relative to the largest logit, is the same on every machine."""


def difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def margin(scores: Float[Tensor, "... vocabulary"]) -> float:
    """By how much the best token leads, at least, relative to the largest score.

    Tokens that are ruled out have a score of minus infinity.
    """
    best = scores.topk(2, -1).values
    return float((best[..., 0] - best[..., 1]).min() / scores[scores.isfinite()].abs().max())


def greedy_choices(model: Any, inputs: dict[str, Tensor], **options: Any) -> tuple[Tensor, float]:
    """What `generate` writes after the prompts, and the `margin` of its choices."""
    written = model.generate(
        **inputs, do_sample=False, output_scores=True, return_dict_in_generate=True, **options
    )
    return written.sequences[:, inputs["input_ids"].shape[1] :], margin(torch.stack(written.scores))


def same_weights(a: Any, b: Any) -> bool:
    """Whether two models have the same parameters and buffers, to the bit."""
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@contextmanager
def clear_draws() -> Iterator[None]:
    """For tests that compare sampled tokens of two computations: every draw must be a clear one.

    Where the noise puts two tokens closer than rounding, either may be drawn, and a test that
    compares them would prove nothing about another machine. It fails then, and wants another seed.
    """
    margins: list[float] = []
    draw = sampling._GumbelNoise.__call__

    def watched(self: Any, input_ids: Any, scores: Any) -> Any:
        noisy = draw(self, input_ids, scores)
        margins.append(margin(noisy))
        return noisy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling._GumbelNoise, "__call__", watched)
        yield
    assert margins, "nothing was drawn"
    assert min(margins) > SAME, "a draw that rounding can decide; take another seed"
