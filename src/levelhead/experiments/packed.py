"""Large arrays inside JSON, as base64 of their float32 bytes: a sixth of the size of digits."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np


def packed(values: np.ndarray) -> dict[str, Any]:
    """{"shape", "float32"}, to be read back with `unpacked`."""
    content = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return {"shape": list(values.shape), "float32": base64.b64encode(content).decode("ascii")}


def unpacked(data: Mapping[str, Any]) -> np.ndarray:
    """The array of `packed`, in double precision."""
    content = base64.b64decode(data["float32"], validate=True)
    return np.frombuffer(content, dtype="<f4").reshape(data["shape"]).astype(np.float64)
