"""The plain way to z_ppl: one full forward pass per head over all of the text.

On 4,096 tokens it is run in full, and is the truth that `protect` is held against; it takes the
better part of an hour on one core. Its windows and arrays are kept in runs/bench/plain.npz.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from levelhead.config import RunConfig
from levelhead.models.architectures import head_counts
from levelhead.models.gates import HeadGates
from levelhead.scoring.perplexity_effects import text_windows, window_nll
from levelhead.session import Session

TOKENS = 4096
QUICK_TOKENS = 256
WINDOW = 256
KEPT = Path("runs/bench/plain.npz")


def measure(quick: bool) -> dict[str, Any]:
    """CPU seconds of a full forward per head, and the NLL change of every head and window."""
    session = Session(RunConfig())
    model = session.base.model
    tokens = QUICK_TOKENS * 2 if quick else TOKENS
    windows = text_windows(session.text_ids("validation"), model, tokens, WINDOW)
    heads = [divmod(i, head_counts(model)[1]) for i in range(int(np.prod(head_counts(model))))]
    change, seconds = plain_changes(session, windows, heads[:9] if quick else heads)
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    np.savez(KEPT, change=change, tokens=windows.numel())
    return {
        "tokens": windows.numel(),
        "heads": change.shape[1],
        "cpu_seconds": seconds,
        "cpu_seconds_per_head_and_token": seconds / change.shape[1] / windows.numel(),
    }


def plain_changes(
    session: Session, windows: torch.Tensor, heads: list[tuple[int, int]]
) -> tuple[np.ndarray, float]:
    """(NLL change [windows, heads], CPU seconds of the heads' forward passes)."""
    model = session.base.model
    change = np.zeros((len(windows), len(heads)))
    with torch.inference_mode(), HeadGates(model) as head_gates:
        base = [window_nll(model, window[None]).item() for window in windows]
        start = time.process_time()
        for position, (layer, head) in enumerate(heads):
            gates = torch.ones(head_counts(model))
            gates[layer, head] = 0
            head_gates.gates = gates
            for number, window in enumerate(windows):
                nll = window_nll(model, window[None]).item()
                change[number, position] = nll - base[number]
    return change, time.process_time() - start
