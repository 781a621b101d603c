"""Size and speed of a pruned model against its base, with the base against itself as control.

Every round times the base, the pruned model and the base again, in random order, on the same
random tokens: prefill (the prompt in one pass) and decode (one token at a time, from the cache).
Ratios are within rounds, so that a slow minute of the machine hits all three. Their median has a
distribution-free interval (order statistics), which a few disturbed rounds do not move. Where the
base against itself is told from 1, the machine is too busy for these ratios: they are not trusted.

It measures this machine, batch and length with plain PyTorch; other engines gain more or less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel

from levelhead import runs
from levelhead.config import RunConfig
from levelhead.errors import ConfigError
from levelhead.experiments.greedy_decoding import decode, prefill, random_prompt
from levelhead.experiments.peak_memory import peak_memory
from levelhead.models.architectures import text_config
from levelhead.models.loading import load_base
from levelhead.progress import Progress, silent
from levelhead.runs import RunFolder
from levelhead.session import Session

PHASES = ("prefill", "decode")
CACHE_TOKENS = 4
"""Few enough that no sliding window is full."""
WIDE = 0.1
"""Half-width of the control's interval (relative) above which the machine counts as noisy."""
LEAST_ROUNDS = 6
"""With fewer, no interval of a median has a level of 95%."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What is going to be timed."""

    base: str
    pruned: str
    rounds: int
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    threads: int
    memory: bool


def bench_model(
    base: str | Path | PreTrainedModel,
    pruned: str | Path | PreTrainedModel | None = None,
    *,
    rounds: int = 20,
    batch_size: int = 1,
    prompt_tokens: int = 128,
    new_tokens: int = 32,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    memory: bool = True,
    progress: Progress = silent,
    announce: Callable[[BenchPlan], None] | None = None,
) -> Json:
    """Throughput ratios with intervals, parameters, bytes, cache and peak memory of two models.

    Args:
        base: the whole model (hub id, folder, GGUF file or loaded), or a run folder, whose base and
            pruned model are taken.
        pruned: the other model; only a run folder goes without.
        rounds: timed rounds, at least 6; as many again where the control is told from 1.
        memory: measure peak memory, each model in a process of its own (not of loaded models).
        announce: called with the plan before long work.

    Returns:
        `ratios` (throughput of pruned over base by phase; above 1: faster), `control` (base over
        base), `base` and `pruned` (sizes), `trusted`, `warnings` (docs/experiments.md).

    Raises:
        ConfigError: one model only, or numbers out of range.
        ModelError, CheckpointError: a model that cannot be loaded.
    """
    _check(rounds, batch_size, prompt_tokens, new_tokens)
    if threads is not None:
        torch.set_num_threads(threads)
    paths = _both(base, pruned)
    names = [path if isinstance(path, str) else "a loaded model" for path in paths]
    memory = memory and all(isinstance(path, str) for path in paths)
    whole, smaller = (_loaded(path, dtype, device) for path in paths)
    _check_context((whole, smaller), prompt_tokens + new_tokens)
    if announce:
        announce(
            BenchPlan(
                base=names[0],
                pruned=names[1],
                rounds=rounds,
                batch_size=batch_size,
                prompt_tokens=prompt_tokens,
                new_tokens=new_tokens,
                threads=torch.get_num_threads(),
                memory=memory,
            )
        )
    prompt = random_prompt([whole, smaller], batch_size, prompt_tokens, seed)
    generator = np.random.default_rng(seed)
    contestants = (whole, smaller, whole)
    seconds = _timed(contestants, prompt, new_tokens, rounds, generator, progress)
    if any(_excludes_one(entry) for entry in _ratios(seconds, 2).values()):
        more = _timed(contestants, prompt, new_tokens, rounds, generator, progress)
        seconds = np.concatenate([seconds, more])
    ratios, control = _ratios(seconds, 1), _ratios(seconds, 2)
    work = {"prefill": batch_size * prompt_tokens, "decode": batch_size * new_tokens}
    found: Json = {
        "ratios": ratios,
        "control": control,
        "rounds": len(seconds),
        "batch_size": batch_size,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "threads": torch.get_num_threads(),
        "device": whole.device.type,
        "dtype": str(whole.dtype).removeprefix("torch."),
    }
    for column, key in enumerate(("base", "pruned")):
        model = (whole, smaller)[column]
        middle = np.median(seconds[:, column], axis=0)
        found[key] = {
            "name": names[column],
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
            "kv_cache_bytes_per_token": cache_bytes_per_token(model),
            "tokens_per_second": {p: work[p] / middle[i] for i, p in enumerate(PHASES)},
            "peak_memory": None,
        }
    del whole, smaller, contestants
    if memory:
        with progress("measuring memory", 2) as advance:
            for key, path in zip(("base", "pruned"), paths, strict=True):
                found[key]["peak_memory"] = peak_memory(
                    str(path), dtype, device, batch_size, prompt_tokens, new_tokens
                )
                advance(1)
    found["warnings"] = _warnings(control)
    found["trusted"] = not any(_excludes_one(entry) for entry in control.values())
    return found


def cache_bytes_per_token(model: PreTrainedModel) -> float:
    """Bytes of keys and values that one more token of one sequence takes, over all layers."""
    with torch.inference_mode():
        cache, _ = prefill(model, random_prompt([model], 1, CACHE_TOKENS, 0))
    tensors = [t for layer in cache.layers for t in (layer.keys, layer.values)]
    return float(sum(t.numel() * t.element_size() for t in tensors)) / CACHE_TOKENS


def _timed(
    models: Sequence[PreTrainedModel],
    prompt: Tensor,
    new_tokens: int,
    rounds: int,
    generator: np.random.Generator,
    progress: Progress,
) -> Float[np.ndarray, "rounds models phases"]:
    """Seconds of every model in every round; a first round is not counted."""
    seconds = np.zeros((rounds + 1, len(models), len(PHASES)))
    with torch.inference_mode(), progress("timing", rounds + 1) as advance:
        for row in seconds:
            for which in generator.permutation(len(models)):
                model = models[which]
                start = _now(model)
                cache, last = prefill(model, prompt)
                middle = _now(model)
                decode(model, cache, last, new_tokens)
                row[which] = middle - start, _now(model) - middle
            advance(1)
    return seconds[1:]


def _now(model: PreTrainedModel) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def _ratios(seconds: Float[np.ndarray, "rounds models phases"], other: int) -> dict[str, Json]:
    """Throughput of a model over the first one's, by phase: median over rounds, 95% interval.

    The interval's ends are the k-th smallest and largest ratio, k from the sign test: it covers the
    median with at least 95% whatever the distribution.
    """
    ratios = np.sort(seconds[:, 0] / seconds[:, other], axis=0)
    skip = int(stats.binom.ppf(0.025, len(ratios), 0.5)) - 1
    low, high = ratios[max(skip, 0)], ratios[len(ratios) - 1 - max(skip, 0)]
    middle = np.median(ratios, axis=0)
    return {
        phase: {"value": float(middle[i]), "ci95": [float(low[i]), float(high[i])]}
        for i, phase in enumerate(PHASES)
    }


def _excludes_one(ratio: Json) -> bool:
    low, high = ratio["ci95"]
    return bool(low > 1 or high < 1)


def _warnings(control: dict[str, Json]) -> list[str]:
    found = []
    for phase, ratio in control.items():
        low, high = ratio["ci95"]
        if _excludes_one(ratio):
            found.append(
                f"{phase}: the base model against itself is {ratio['value']:.3f} [{low:.3f}, "
                f"{high:.3f}], which is not 1: do not trust these ratios; try again on a quieter "
                "machine or with more --rounds"
            )
        elif np.log(high / low) / 2 > WIDE:
            found.append(
                f"{phase}: the machine is noisy: the base model against itself is known to "
                f"[{low:.3f}, {high:.3f}] only; use more --rounds"
            )
    return found


def _both(
    base: str | Path | PreTrainedModel, pruned: str | Path | PreTrainedModel | None
) -> list[str | PreTrainedModel]:
    """What to load: names and folders, or models that are loaded already."""
    if pruned is None:
        if isinstance(base, PreTrainedModel) or not runs.is_run(Path(base)):
            raise ConfigError(
                "one model only; name BASE and PRUNED, or a run folder that holds both"
            )
        folder = RunFolder.open(base, old=True)
        model = folder.require(runs.MODEL, f"prune {base}")
        return [Session(folder.config).base_path, str(model)]
    found: list[str | PreTrainedModel] = []
    for given in (base, pruned):
        if isinstance(given, PreTrainedModel):
            found.append(given)
        elif runs.is_run(Path(given)):
            found.append(str(RunFolder.open(given, old=True).require(runs.MODEL, f"prune {given}")))
        else:
            found.append(Session(RunConfig(model=str(given))).base_path)
    return found


def _loaded(given: str | PreTrainedModel, dtype: str, device: str) -> PreTrainedModel:
    if isinstance(given, PreTrainedModel):
        given.train(False)
        return given
    return load_base(given, dtype=dtype, device=device, need_tokenizer=False).model


def _check(rounds: int, batch_size: int, prompt_tokens: int, new_tokens: int) -> None:
    for flag, value, least in (
        ("rounds", rounds, LEAST_ROUNDS),
        ("batch-size", batch_size, 1),
        ("prompt-tokens", prompt_tokens, 2),
        ("new-tokens", new_tokens, 1),
    ):
        if value < least:
            raise ConfigError(f"--{flag} {value} is out of range; it must be at least {least}")


def _check_context(models: Sequence[PreTrainedModel], tokens: int) -> None:
    for model in models:
        most = getattr(text_config(model), "max_position_embeddings", None)
        if most is not None and tokens > most:
            raise ConfigError(
                f"--prompt-tokens and --new-tokens are {tokens} together, the model reads at most "
                f"{most}; lower one of them"
            )
