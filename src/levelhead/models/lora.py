"""An edit of output projections as a LoRA adapter: a folder that peft, vLLM and others load.

    adapter_config.json        r, lora_alpha = r, target_modules by full names, the base's name
    adapter_model.safetensors  base_model.model.<module>.lora_A.weight [r, inputs], .lora_B.weight
    levelhead.json             checksums, the edit's record, the share that was lost

An edit of rank r is held exactly; of one without factors the r largest singular values are kept,
and how much of each layer's change that loses is stated. The base may be quantised: nothing of it
is touched. Writing needs no peft.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from levelhead.errors import ConfigError
from levelhead.models.average_edit import AverageEdit, Change
from levelhead.models.calibration import projections
from levelhead.models.checksums import write_manifest
from levelhead.models.folders import new_folder

FORMAT = "lora"
"""Of `levelhead.json` beside an adapter."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
RANK = 64
"""Of a change without factors, if nobody says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFactors:
    """The change of one layer's weight as b @ a."""

    a: Float[Tensor, "rank inputs"]
    b: Float[Tensor, "outputs rank"]
    lost: float
    """Share of the change's squared size that b @ a lacks; 0: exact."""


def lora_factors(edit: AverageEdit, rank: int | None = None) -> dict[int, LoraFactors]:
    """The factors of every layer, float64, of one rank.

    Args:
        rank: of changes without factors, `RANK` by default, at most what their shape allows; for
            an edit that has factors it must be its own rank, or none.

    Raises:
        ConfigError: a rank out of range, or another than the edit's own.
    """
    own = {change.factors for change in edit.changes.values()} - {None}
    if rank is not None and own and own != {rank}:
        raise ConfigError(
            f"rank={rank!r}: the change has rank {', '.join(map(str, own))} by construction, and "
            "is held exactly at that; leave the rank out, or average with another one"
        )
    wanted = RANK if rank is None else rank
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise ConfigError(f"rank={wanted!r}: it must be a whole number, at least 1")
    return {layer: _factors(change, wanted) for layer, change in edit.changes.items()}


def write_lora(
    edit: AverageEdit,
    model: PreTrainedModel,
    path: str | Path,
    *,
    rank: int | None = None,
    base: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the adapter's folder, all or nothing.

    Args:
        model: the base; its modules' names are what the adapter addresses.
        rank: as in `lora_factors`.
        base: what the base is called, on the hub or on disk; by default as it was loaded.
        overwrite: replace `path` where it holds a model or an adapter already.

    Raises:
        ConfigError: as `lora_factors`.
        CheckpointError: a folder in the way, or a full disk.
    """
    factors = lora_factors(edit, rank)
    names = {module: name for name, module in model.named_modules()}
    sites = projections(model, edit.unit)
    modules = {layer: names[sites[layer]] for layer in factors}
    ranks = [len(one.a) for one in factors.values()]
    most = max(ranks)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or model.name_or_path or None,
        "r": most,
        "lora_alpha": most,
        "lora_dropout": 0.0,
        "target_modules": sorted(modules.values()),
        "fan_in_fan_out": any(isinstance(sites[layer], Conv1D) for layer in factors),
        "bias": "none",
        "modules_to_save": None,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }
    tensors = {}
    for layer, one in factors.items():
        key = f"base_model.model.{modules[layer]}"
        filled = most - len(one.a)  # one rank for all: rows and columns of zeros change nothing
        tensors[f"{key}.lora_A.weight"] = _stored(torch.nn.functional.pad(one.a, (0, 0, 0, filled)))
        tensors[f"{key}.lora_B.weight"] = _stored(torch.nn.functional.pad(one.b, (0, filled)))
    lost = {str(layer): round(one.lost, 6) for layer, one in factors.items()}
    record = edit.record | {"lora": {"rank": most, "lost": lost}}
    target = Path(path)
    with new_folder(target, overwrite) as folder:
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        write_manifest(folder, FORMAT, {}, average=record)
    return target


def _factors(change: Change, rank: int) -> LoraFactors:
    if change.left is not None:
        return LoraFactors(a=change.right, b=change.left, lost=0.0)
    u, s, v = torch.linalg.svd(change.right, full_matrices=False)
    kept = min(rank, len(s))
    total = float((s**2).sum())
    lost = float((s[kept:] ** 2).sum()) / total if total > 0 else 0.0
    # A share of the singular values on either side: numbers of one size for any number format.
    root = s[:kept].sqrt()
    return LoraFactors(a=root[:, None] * v[:kept], b=u[:, :kept] * root, lost=lost)


def _stored(matrix: Tensor) -> Tensor:
    return matrix.float().cpu().contiguous()
