"""What `--dtype auto` comes to on a CPU: bfloat16 where the machine is faster with it, by timing.

Products of the shapes of the model's layers are timed in both formats, in turn, on this machine
with these threads. The caller keeps the answer: another timing may come out otherwise.

    found = calibrated(load_config("HuggingFaceTB/SmolLM2-135M"))
    found.dtype, found.speedup  # ("bfloat16", 4.2) on a CPU with AVX512-BF16
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

MARGIN = 1.5
"""Times faster that bfloat16 must be: it costs precision, and timings are noisy."""
LEAST_WEIGHTS = 20_000_000
"""A model with fewer has nothing to gain: its time goes elsewhere."""
ROWS = 128
"""Tokens multiplied at once: what one step of sampling does."""
MOST_SHAPES = 4
MOST_ENTRIES = 4_000_000  # of a matrix: larger ones are timed on a part of their outputs
REPEATS = 7
LEAST_REPEATS = 3
SECONDS = 0.8
"""After which no more repeats begin, beyond the least."""
_NATIVE = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16")

Shape = tuple[int, int]
"""(inputs, outputs) of a linear layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The format that was chosen and what was measured."""

    dtype: str
    """ "float32" or "bfloat16"."""
    reason: str
    speedup: float | None
    """float32 seconds / bfloat16 seconds of the same products (median); None: not timed."""
    shapes: tuple[Shape, ...]
    """(inputs, outputs) of the layers whose products were timed, each with ROWS rows."""
    threads: int
    cpu: str

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self) | {"shapes": [list(shape) for shape in self.shapes]}


def calibrated(config: PreTrainedConfig) -> Calibration:
    """The faster format for a model with this config on this machine's CPU; float32 in doubt.

    It takes well under a second, and reads no weights.
    """
    sizes = linear_shapes(config)
    weights = sum(count * inputs * outputs for (inputs, outputs), count in sizes.items())
    if weights < LEAST_WEIGHTS:
        return _float32(
            f"{weights:,} weights in linear layers; under {LEAST_WEIGHTS:,} there is little to gain"
        )
    if not multiplies_bfloat16():
        return _float32("this CPU does not multiply bfloat16 natively")
    largest = sorted(sizes, key=lambda shape: -sizes[shape] * shape[0] * shape[1])
    shapes = tuple(largest[:MOST_SHAPES])
    speedup = measured_speedup(tuple((s, sizes[s]) for s in shapes), torch.get_num_threads())
    return decided(speedup, shapes)


def decided(speedup: float, shapes: tuple[Shape, ...]) -> Calibration:
    """The choice that a measured speedup leads to."""
    chosen = "bfloat16" if speedup >= MARGIN else "float32"
    return Calibration(
        dtype=chosen,
        reason=f"products of this model's layers are {speedup:.1f} times as fast in bfloat16 "
        f"({MARGIN:g} are asked for)",
        speedup=round(speedup, 2),
        shapes=shapes,
        threads=torch.get_num_threads(),
        cpu=_cpu(),
    )


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for it, and torch is not held to older ones."""
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in _NATIVE)


def linear_shapes(config: PreTrainedConfig) -> Counter[Shape]:
    """(inputs, outputs) of every linear layer of a model with this config, with how many."""
    auto: Any = AutoModelForCausalLM  # its methods have no types
    with torch.device("meta"):
        model: nn.Module = auto.from_config(config)
    found: Counter[Shape] = Counter()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            found[module.in_features, module.out_features] += 1
        elif isinstance(module, Conv1D):
            inputs, outputs = module.weight.shape
            found[inputs, outputs] += 1
    return found


@lru_cache(maxsize=32)
def measured_speedup(shapes: tuple[tuple[Shape, int], ...], threads: int) -> float:
    """Seconds in float32 / seconds in bfloat16 of the products, weighted by their number.

    Both formats are timed in turn, so that what else the machine does slows both; the median of the
    repeats' ratios. Once per process for the same shapes and threads.
    """
    rng = torch.Generator().manual_seed(0)
    pairs: list[tuple[float, list[tuple[Tensor, Tensor]]]] = []
    for (inputs, outputs), count in shapes:
        timed = max(1, min(outputs, MOST_ENTRIES // inputs))
        x, w = torch.randn(ROWS, inputs, generator=rng), torch.randn(timed, inputs, generator=rng)
        pairs.append((count * outputs / timed, [(x, w), (x.bfloat16(), w.bfloat16())]))
    begun, ratios = time.perf_counter(), list[float]()
    with torch.inference_mode():
        for _, formats in pairs:
            for x, w in formats:
                linear(x, w)  # the first call sets kernels up
        while len(ratios) < REPEATS:
            if len(ratios) >= LEAST_REPEATS and time.perf_counter() - begun > SECONDS:
                break
            spent = [0.0, 0.0]
            for weight, formats in pairs:
                for place, (x, w) in enumerate(formats):
                    start = time.perf_counter()
                    linear(x, w)
                    spent[place] += weight * (time.perf_counter() - start)
            ratios.append(spent[0] / max(spent[1], 1e-9))
    return median(ratios)


def _float32(reason: str) -> Calibration:
    return Calibration(
        dtype="float32",
        reason=reason,
        speedup=None,
        shapes=(),
        threads=torch.get_num_threads(),
        cpu=_cpu(),
    )


def _cpu() -> str:
    """The CPU's kind and the instructions that torch uses of it."""
    known: Any = torch.cpu.get_capabilities()
    name = str(known.get("cpu_name") or platform.processor() or platform.machine())
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
