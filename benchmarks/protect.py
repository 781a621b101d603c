"""The protected set: what it costs, and how right it is.

Truth: a full forward pass per head on the first 4,096 validation tokens, run in full
(`python -m benchmarks plain`). Against it: the race for the exact set (`--protect exact`) on the
same windows; the default, `curvature`, on 16,384 other tokens; and exact ablation of as much of
those as takes the same CPU time. On 16,384 tokens the plain way is extrapolated from 20 heads.

It takes an hour and more, so each part is kept in runs/bench/protect/ when it is done, and not
repeated; delete the folder to measure again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks import plain_perplexity
from levelhead.config import RunConfig
from levelhead.models.architectures import head_counts
from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.scoring import PPL_ESTIMATORS
from levelhead.scoring.perplexity_effects import (
    PerplexityEffects,
    ablated_nll,
    text_windows,
    window_nll,
)
from levelhead.session import Session

GAMMA = 0.3
TOKENS = 16_384
PLAIN_TOKENS = plain_perplexity.TOKENS
PLAIN_HEADS = 20
SPLITS = 20
KEPT = Path("runs/bench/protect")


def measure(quick: bool) -> dict[str, Any]:
    """CPU seconds and protected heads in common, of every way."""
    if quick:
        raise SystemExit("protect has no quick form: its truth takes three quarters of an hour")
    session = Session(RunConfig(text_tokens=PLAIN_TOKENS + TOKENS))
    ids = session.text_ids("validation")
    parts = {
        "exact_4k": lambda: _exact(session, ids[:PLAIN_TOKENS], plain_heads=0),
        "curvature": lambda: _estimated("curvature", session, ids[:TOKENS]),
        "curvature_held_out": lambda: _estimated("curvature", session, ids[PLAIN_TOKENS:]),
        "exact_short": lambda: _exact_for(session, ids[PLAIN_TOKENS:], _kept("curvature_held_out")),
        "exact_16k": lambda: _exact(session, ids[:TOKENS], plain_heads=PLAIN_HEADS),
    }
    for name, part in parts.items():
        _keep(name, part)
    return _compared({name: _kept(name) for name in parts})


def _compared(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The rows of the table, from what was kept."""
    if not plain_perplexity.KEPT.exists():
        raise SystemExit("the truth is missing: first run python -m benchmarks plain")
    plain = json.loads(plain_perplexity.KEPT.with_suffix(".json").read_text())
    truth = -np.load(plain_perplexity.KEPT)["change"].mean(0)
    exact, raced = parts["exact_4k"], parts.get("exact_16k")
    full, held_out, short = (parts[n] for n in ("curvature", "curvature_held_out", "exact_short"))
    each = plain["cpu_seconds_per_head_and_token"]
    plain_16k = (raced["plain_seconds_per_head_and_token"] if raced else each) * TOKENS * truth.size
    return {
        "heads": truth.size,
        "protected": int(GAMMA * truth.size),
        "protected_by_chance": GAMMA * int(GAMMA * truth.size),
        "exact_4k": {
            "plain_cpu_seconds": plain["cpu_seconds"],
            "cpu_seconds": exact["cpu_seconds"],
            "times_less": plain["cpu_seconds"] / exact["cpu_seconds"],
            "heads_different": int(GAMMA * truth.size) - _in_common(exact["effect"], truth),
            "diagnostics": exact["diagnostics"],
        },
        "plain_16k": {
            "cpu_seconds_extrapolated": plain_16k,
            "heads_measured": raced["plain_heads"] if raced else plain["heads"],
        },
        "exact_16k": raced
        and {
            "cpu_seconds": raced["cpu_seconds"],
            "times_less": plain_16k / raced["cpu_seconds"],
            "diagnostics": raced["diagnostics"],
        },
        "curvature": {
            "cpu_seconds": full["cpu_seconds"],
            "times_less": plain_16k / full["cpu_seconds"],
            "split_half_overlap": full["split_half_overlap"],
            "in_common_with_exact_16k_same_text": raced
            and _in_common(full["effect"], raced["effect"]),
            "diagnostics": full["diagnostics"],
        },
        "held_out": {
            name: {
                "cpu_seconds": part["cpu_seconds"],
                "tokens": part["tokens"],
                "in_common_with_truth": _in_common(part["effect"], truth),
                "spearman_with_truth": float(
                    stats.spearmanr(part["effect"].ravel(), truth).statistic
                ),
            }
            for name, part in (("curvature", held_out), ("exact, same CPU time", short))
        },
    }


def _estimated(name: str, session: Session, ids: list[int]) -> dict[str, Any]:
    model = session.base.model
    windows = text_windows(ids, model, TOKENS)
    start = time.process_time()
    effects = PPL_ESTIMATORS[name](model, windows, silent, 0, GAMMA)
    seconds = time.process_time() - start
    halves = effects.halves(np.random.default_rng(0), SPLITS)
    count = int(GAMMA * effects.effect.size)
    overlap = np.mean([_in_common(one, other) / count for one, other in halves])
    return _record(effects, seconds, windows, split_half_overlap=float(overlap))


def _exact(session: Session, ids: list[int], plain_heads: int) -> dict[str, Any]:
    """The race; after each of its windows a plain forward pass of another head, on that text."""
    model = session.base.model
    windows = text_windows(ids, model, len(ids))
    order = np.random.default_rng(0).permutation(int(np.prod(head_counts(model))))
    todo = [divmod(int(i), head_counts(model)[1]) for i in order[:plain_heads]]
    plain: list[float] = []

    def pass_of_next_head(_: int) -> None:
        if todo:
            layer, head = todo.pop()
            start = time.process_time()
            with torch.inference_mode(), ablate(model, {layer: [head]}):
                window_nll(model, windows[len(plain) : len(plain) + 1])
            plain.append(time.process_time() - start)

    @contextmanager
    def interleaved(description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield pass_of_next_head if description.startswith("ablating") else lambda _: None

    start = time.process_time()
    effects = PPL_ESTIMATORS["exact"](model, windows, interleaved, 0, GAMMA)
    seconds = time.process_time() - start - sum(plain)
    each = float(np.mean(plain)) / windows.shape[1] if plain else None
    return _record(
        effects, seconds, windows, plain_seconds_per_head_and_token=each, plain_heads=len(plain)
    )


def _exact_for(session: Session, ids: list[int], like: dict[str, Any]) -> dict[str, Any]:
    """Exact ablation of every head, on windows spread over the text, in the time `like` took."""
    model = session.base.model
    windows = text_windows(ids, model, TOKENS, plain_perplexity.WINDOW)
    num_layers, num_heads = head_counts(model)
    heads = [(layer, head) for layer in range(num_layers) for head in range(num_heads)]
    start = time.process_time()
    values: list[PerplexityEffects] = []
    for window in np.random.default_rng(0).permutation(len(windows)):
        one = windows[window : window + 1]
        base, change = ablated_nll(model, one, heads, silent)
        values.append(
            PerplexityEffects(base_nll=base, nll_change=change.reshape(1, num_layers, num_heads))
        )
        spent = time.process_time() - start
        if spent * (len(values) + 0.5) / len(values) > like["cpu_seconds"]:
            break
    effects = PerplexityEffects(
        base_nll=np.concatenate([v.base_nll for v in values]),
        nll_change=np.concatenate([v.nll_change for v in values]),
    )
    return _record(effects, spent, windows[: len(values)])


def _record(
    effects: PerplexityEffects, seconds: float, windows: torch.Tensor, **more: Any
) -> dict[str, Any]:
    return {
        "cpu_seconds": seconds,
        "tokens": windows.numel(),
        "diagnostics": effects.diagnostics,
        "effect": effects.effect.tolist(),
        **more,
    }


def _keep(name: str, part: Callable[[], dict[str, Any]]) -> None:
    path = KEPT / f"{name}.json"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(part()) + "\n")


def _kept(name: str) -> dict[str, Any]:
    found = json.loads((KEPT / f"{name}.json").read_text())
    return found | {"effect": np.array(found["effect"])}


def _in_common(a: np.ndarray, b: np.ndarray) -> int:
    """Heads protected by both."""
    count = int(GAMMA * a.size)
    sets = [set(np.argsort(x, axis=None, kind="stable")[:count].tolist()) for x in (a, b)]
    return len(sets[0] & sets[1])
