"""How much the weights of a saved model hold, read from the heads of its files."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import safe_open


def stored_parameters(folder: Path) -> int | None:
    """How many numbers the weights in a model's folder hold, zeros among them; shared ones once.

    A format with stock shapes (zeroed) holds as many as the base, whatever was removed. None where
    the folder has no safetensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    total = 0
    for path in files:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    return total if files else None
