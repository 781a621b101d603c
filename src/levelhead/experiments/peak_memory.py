"""Peak memory of one model: loaded and run in a process of its own, which reports and ends.

    python -m levelhead.experiments.peak_memory PATH DTYPE DEVICE BATCH PROMPT NEW -> JSON

Resident memory of the whole process, its libraries included: the high-water mark of Linux
(`VmHWM`; `getrusage` would start from the parent's), elsewhere `getrusage`, on CUDA also what torch
allocated there. Python's tracemalloc does not see torch's memory. None where there is no counter.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from levelhead.errors import LevelheadError

STATUS = Path("/proc/self/status")
SECONDS = 3600


def peak_memory(
    path: str, dtype: str, device: str, batch_size: int, prompt_tokens: int, new_tokens: int
) -> dict[str, int | None]:
    """`before` (libraries loaded, no model), `peak`, `cuda`: bytes, or None where unknown.

    Raises:
        LevelheadError: the process failed; the message holds its last line.
    """
    numbers = map(str, (batch_size, prompt_tokens, new_tokens))
    command = [sys.executable, "-m", __name__, path, dtype, device, *numbers]
    done = subprocess.run(  # noqa: S603 (our own module)
        command, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LevelheadError(f"the memory of {path} could not be measured: {reason}")
    found: dict[str, int | None] = json.loads(lines[-1])
    return found


def resident_peak() -> int | None:
    """The most memory that this process had resident so far, in bytes."""
    if STATUS.exists():
        for line in STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _main(arguments: list[str]) -> None:
    import torch

    from levelhead.experiments.greedy_decoding import decode, prefill, random_prompt
    from levelhead.models.loading import load_base

    path, dtype, device = arguments[:3]
    batch_size, prompt_tokens, new_tokens = map(int, arguments[3:])
    before = resident_peak()
    model: Any = load_base(path, dtype=dtype, device=device, need_tokenizer=False).model
    with torch.inference_mode():
        cache, last = prefill(model, random_prompt([model], batch_size, prompt_tokens, 0))
        decode(model, cache, last, new_tokens)
    cuda = int(torch.cuda.max_memory_allocated()) if model.device.type == "cuda" else None
    sys.stdout.write(json.dumps({"before": before, "peak": resident_peak(), "cuda": cuda}) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1:])
