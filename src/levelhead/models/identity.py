"""A short hash that says whether two loaded models are the same one.

Covers the config, the names, shapes and types of all weights, and a sample of their values: fast,
and enough to tell checkpoints apart. It does not prove that every weight is equal.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from transformers import PreTrainedModel

VOLATILE = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
"""Config fields that say nothing about what the model computes, or that the weights tell."""
SAMPLED = 1024
_STRIDE = 2_654_435_761
"""A prime above any width, so that the sample walks over all rows and columns of a matrix."""


def fingerprint(model: PreTrainedModel) -> str:
    """16 hexadecimal digits, the same on every device and in every process."""
    digest = hashlib.sha256()
    config = _stable(model.config.to_dict())
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        count = parameter.numel()
        if count:
            places = torch.arange(min(SAMPLED, count)) * _STRIDE % count
            sample = parameter.detach().flatten()[places.to(parameter.device)]
            digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _stable(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _stable(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in VOLATILE
    }
