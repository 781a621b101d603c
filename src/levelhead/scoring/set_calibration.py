"""How much more sets of heads cost than the quadratic form says, measured on a few sets.

1/2 x'Fx orders sets well and has the size of single heads' KL; for sets it is too low, by nearly
one factor for all of them (1.2 to 1.7 over 20 sets of a tenth of the heads of SmolLM2-135M, chosen
or random). So a few random sets of unprotected heads are removed, each on a window of the text, and

    level = geometric mean over sets of   measured KL / (1/2 x'Fx s_w)      F becomes level F
    c     = sum of (dNLL + g_w'x)  /  sum of level 1/2 x'Fx s_w,  at least 0

s_w is the window's share: what its Fisher values of those heads are to the mean window's. It
takes most of what tells windows from each other out of the factor. g_w is the window's gradient:
the noise of the text is in dNLL alike, and cancels. It does not know which sets will be asked
about; those of very few heads cost less than is then predicted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from levelhead.batching import map_batches
from levelhead.metrics.divergence import last_logits, nll_and_kl
from levelhead.models.gates import gated
from levelhead.progress import Progress
from levelhead.sampling import derived_seed
from levelhead.scores import head_count
from levelhead.scoring.fisher import PerWindow
from levelhead.set_cost import SetCost

SHARES = (0.05, 0.1, 0.2, 0.1, 0.05, 0.1, 0.2, 0.1)
"""Of all heads: the sizes of the sets. Each is read on a window of its own, evenly spaced."""
_LEAST = 1e-9
"""Nats per token: a set that costs less says nothing about the factor."""

Grid = Float[np.ndarray, "layers heads"]


def calibrated(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows time"],
    gradient: PerWindow,
    fisher: PerWindow,
    cost: SetCost,
    change: Grid,
    progress: Progress,
    *,
    gamma: float,
    seed: int,
) -> tuple[SetCost, dict[str, Any]]:
    """The cost model with the level that sets have, and how that was found.

    Args:
        windows: of the text that F is made of.
        gradient: dNLL/dg of these windows, NLL as the mean per token.
        fisher: Fisher values per token, without rare enormous ones.
        cost: of single heads.
        change: dNLL of every head; the floor(gamma N) largest are in no set.
        progress: where to report progress.
    """
    unprotected = np.argsort(-change, axis=None, kind="stable")[head_count(gamma, change.size) :]
    sets = _random_sets(unprotected, change.size, seed)
    places = np.linspace(0, len(windows) - 1, len(sets)).round().astype(int)
    used = sorted(set(places.tolist()))

    def work(batch: list[int]) -> list[list[tuple[float, float]]]:
        (window,) = batch
        ids, scored = windows[window][None], windows.shape[1] - 1
        base, found = last_logits(model, ids, scored), []
        for number in np.flatnonzero(places == window):
            gates = torch.tensor(1 - sets[number], dtype=torch.float32, device=model.device)
            with gated(model, gates.view(change.shape)):
                other = last_logits(model, ids, scored)
            before, after, kl = nll_and_kl(base, other, ids[0, 1:])
            found.append(((after - before) / scored, kl / scored))
        return [found]

    with progress("removing sets of heads (perplexity)", len(used)) as advance:
        done = map_batches(
            used, work, batch_size=1, length=lambda _: 0, advance=advance, of=(windows, sets)
        )
    rise, kl = np.zeros((2, len(sets)))
    for window, rows in zip(used, done, strict=True):
        rise[places == window], kl[places == window] = np.array(rows).T
    of_window = fisher.reshape(len(fisher), -1)[:, unprotected].sum(1)
    form = cost.kl(sets) * (of_window / max(of_window.mean(), np.finfo(float).tiny))[places]
    use = (form > _LEAST) & (kl > _LEAST)
    if not use.any():
        return cost, {"set_level": 1.0, "set_level_stderr": None, "calibration_sets": 0}
    ratio = np.log(kl[use] / form[use])
    level = math.exp(float(ratio.mean()))
    spread = float(ratio.std(ddof=1)) / math.sqrt(len(ratio)) if len(ratio) > 1 else None
    second = rise + (gradient.reshape(len(gradient), -1)[places] * sets).sum(-1)
    c = max(0.0, float(second[use].sum() / (level * form[use].sum())))
    about = {
        "set_level": level,
        "set_level_stderr": None if spread is None else level * spread,
        "set_calibration": c,
        "calibration_sets": int(use.sum()),
    }
    return SetCost(fisher=level * cost.fisher, slope=cost.slope, calibration=c), about


def _random_sets(
    unprotected: Int[np.ndarray, " some"], n: int, seed: int
) -> Float[np.ndarray, "sets n"]:
    """x of each set."""
    rng = np.random.default_rng(derived_seed(seed, "sets of heads"))
    out = np.zeros((len(SHARES), n))
    for row, share in zip(out, SHARES, strict=True):
        size = min(len(unprotected), max(2, round(share * n)))
        row[rng.choice(unprotected, size, replace=False)] = 1
    return out
