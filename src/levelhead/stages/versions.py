"""What the numbers of a run were computed with."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch

from levelhead import __version__


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    names = ("torch", "transformers", "numpy", "scipy")
    return {"levelhead": __version__} | {name: version(name) for name in names}


def arithmetic() -> dict[str, str]:
    """What decides the last bits of float32 on a CPU: `processor` and `instructions`.

    Libraries of matrix products choose their code by the make of the processor, torch's own kernels
    by its vector instructions, which ATEN_CPU_CAPABILITY can lower.
    """
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    try:  # Linux, where platform.processor() says nothing
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
