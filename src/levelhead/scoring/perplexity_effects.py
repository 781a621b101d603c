"""Effect of every head on perplexity: the interface, and exact ablation.

    z_ppl(h) = ppl(with h) - ppl(without h) = ppl (1 - exp dNLL(h))

Estimators return dNLL, the change of the mean negative log-likelihood per token (nats) when a
head is ablated, window by window, so that errors come from the spread over windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from levelhead.batching import map_batches
from levelhead.errors import ModelError, TextError
from levelhead.metrics.perplexity import context_length, strided_windows
from levelhead.models.architectures import head_counts
from levelhead.models.gates import HeadGates
from levelhead.models.resume import captured_layer_inputs, resumed_at
from levelhead.progress import Progress
from levelhead.records import Head
from levelhead.set_cost import SetCost

WINDOW = 512
"""Tokens per window of scoring text (fewer where the model's context is shorter)."""
_SOFTMAX_ROWS = 64  # positions at a time: their logits stay in the cache
MIN_WINDOWS = 4
"""Halves of the text have to be estimated too, with a window left to calibrate on."""

Grid = Float[np.ndarray, "layers heads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityEffects:
    """Effect of every head on the mean NLL per token, and what it rests on, per window of text.

    The effects are the means of `nll_change` over windows.
    """

    base_nll: Float[np.ndarray, " windows"]
    nll_change: Float[np.ndarray, "windows layers heads"]
    """dNLL: positive where removing the head hurts."""
    change_stderr: Grid | None = None
    """Of their mean; None: from their spread."""
    of_part: Callable[[Int[np.ndarray, " part"]], Grid] | None = None
    """dNLL as the estimator finds it from these windows alone; None: their mean."""
    fisher: Grid | None = None
    """Mean squared derivative of log p(token) by the head's gate, per token."""
    cost: SetCost | None = None
    """What sets of heads cost."""
    diagnostics: dict[str, Any] = field(default_factory=dict)

    @property
    def perplexity(self) -> float:
        """Perplexity of the scoring windows, each token with its window as context."""
        return math.exp(float(self.base_nll.mean()))

    @property
    def effect(self) -> Grid:
        """z_ppl; strongly negative: the head is critical for language modelling."""
        return self._z_ppl(self.nll_change.mean(0))

    @property
    def stderr(self) -> Grid:
        """Standard error of z_ppl over windows, base perplexity taken as known."""
        error = self.change_stderr
        if error is None:
            error = self.nll_change.std(0, ddof=1) / math.sqrt(len(self.nll_change))
        out: Grid = self.perplexity * np.exp(self.nll_change.mean(0)) * error
        return out

    def halves(
        self, rng: np.random.Generator, splits: int
    ) -> Float[np.ndarray, "splits 2 layers heads"]:
        """z_ppl from each half of the windows alone, for random halvings (an odd one is left out).

        Raises:
            ValueError: fewer than two windows.
        """
        count = len(self.base_nll)
        if count < 2:
            raise ValueError(f"{count} window of text has no halves")
        drawn = [rng.permutation(count)[: count // 2 * 2].reshape(2, -1) for _ in range(splits)]
        return np.array([[self._of_part(part) for part in two] for two in drawn])

    def resampled(
        self, rng: np.random.Generator, draws: int
    ) -> Float[np.ndarray, "draws layers heads"]:
        """z_ppl from as many windows of text drawn with replacement, estimated as the whole is."""
        count = len(self.base_nll)
        return np.array([self._of_part(rng.integers(count, size=count)) for _ in range(draws)])

    def _of_part(self, part: Int[np.ndarray, " part"]) -> Grid:
        of_part = self.of_part or (lambda part: self.nll_change[part].mean(0))
        return self._z_ppl(of_part(np.sort(part)))

    def _z_ppl(self, change: Grid) -> Grid:
        out: Grid = self.perplexity * (1 - np.exp(change))
        return out


PerplexityEstimator = Callable[
    [PreTrainedModel, Int[Tensor, "windows time"], Progress, int, float], PerplexityEffects
]
"""Model, windows of token ids, progress, seed, and gamma: the share of heads to be protected."""


def text_windows(
    token_ids: Sequence[int], model: PreTrainedModel, limit: int, size: int | None = None
) -> Int[Tensor, "windows time"]:
    """The first `limit` tokens of a text as windows of `size` that do not overlap.

    Without `size`: `WINDOW`, or less where the context is short or the text would make fewer than
    16 windows.

    Raises:
        TextError: fewer than four windows.
    """
    available = min(len(token_ids), limit)
    size = size or min(WINDOW, context_length(model.config), max(16, available // 16))
    count = available // size
    if count < MIN_WINDOWS:
        raise TextError(
            f"the perplexity text gives {len(token_ids)} tokens (--text-tokens {limit}); scoring "
            f"needs at least {MIN_WINDOWS * size}: use a longer --text or more --text-tokens"
        )
    return torch.tensor(token_ids[: count * size], dtype=torch.long).view(count, size)


def paper_windows(
    token_ids: Sequence[int], model: PreTrainedModel, limit: int
) -> Int[Tensor, "windows time"]:
    """The windows of `strided_windows` in the first `limit` tokens, for effects of heads.

    Each is read from its start: where the authors' windows overlap (contexts over 2,048 tokens),
    what they share counts twice.

    Raises:
        TextError: fewer than two windows.
    """
    ids = list(token_ids[:limit])
    found = strided_windows(len(ids), context_length(model.config))
    return torch.tensor([ids[window.start : window.stop] for window in found])


def window_nll(model: PreTrainedModel, ids: Int[Tensor, "batch time"]) -> Float[Tensor, " batch"]:
    """Mean NLL per token of each window, its first token given (differentiable)."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    parts = zip(*(torch.split(x, _SOFTMAX_ROWS, 1) for x in (logits, ids[:, 1:])), strict=True)
    nll = torch.cat([_token_nll(part.float(), targets) for part, targets in parts], 1)
    if torch.isnan(nll).any():
        raise ModelError("the model yields NaN on the perplexity text; try --dtype float32")
    return nll.mean(1)


def _token_nll(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    )
    return nll.view(targets.shape)


def ablated_nll(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    heads: Sequence[Head],
    progress: Progress,
) -> tuple[Float[np.ndarray, " windows"], Float[np.ndarray, "windows heads"]]:
    """(NLL of each window, its change when each of the heads is ablated)."""
    size = head_counts(model)
    todo = [(number, *own) for number in range(len(windows)) for own in _by_layer(heads)]
    base = np.zeros(len(windows))
    change = np.zeros((len(windows), len(heads)))
    held: dict[int, Any] = {}  # of the window at work: what enters its layers
    with (
        torch.inference_mode(),
        progress("ablating heads (perplexity)", len(windows) * len(heads)) as advance,
        HeadGates(model) as head_gates,
    ):

        def work(batch: list[tuple[int, int, list[tuple[int, int]]]]) -> list[list[float]]:
            ((number, layer, members),) = batch
            ids = windows[number][None].to(model.device)
            head_gates.gates = None
            if number not in held:
                held.clear()
                with captured_layer_inputs(model) as entering:
                    held[number] = (window_nll(model, ids).item(), entering)
            whole, entering = held[number]
            found = [whole]
            with resumed_at(model, layer, entering[layer]):
                for _, head in members:
                    gates = torch.ones(size, device=model.device)
                    gates[layer, head] = 0
                    head_gates.gates = gates
                    found.append(window_nll(model, ids).item() - whole)
                    advance(1)
            return [found]

        done = map_batches(
            todo,
            work,
            batch_size=1,
            length=lambda _: 0,
            reused=lambda units: advance(units * len(heads) // max(1, len(todo))),
            of=windows,
        )
    for (number, _, members), (whole, *changes) in zip(todo, done, strict=True):
        base[number] = whole
        change[number, [position for position, _ in members]] = changes
    return base, change


def _by_layer(heads: Sequence[Head]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """(layer, [(position in `heads`, head), ...]) for each layer that has any."""
    layers: dict[int, list[tuple[int, int]]] = {}
    for position, (layer, head) in enumerate(heads):
        layers.setdefault(layer, []).append((position, head))
    yield from sorted(layers.items())
