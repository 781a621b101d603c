"""Scale heads for good: gates folded into the output projection, all shapes and code stay stock.

A head's gate multiplies its slice of the output projection's input; multiplying the projection's
columns instead gives the same function, so that any engine serves the result. A gate of 1 changes
no bit, a gate of 0 is `zero_heads`. Knows nothing of how gates were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from levelhead.errors import CheckpointError, SelectionError
from levelhead.models.architectures import head_counts, head_dim, output_projections
from levelhead.models.checksums import read_manifest
from levelhead.models.quantised import refuse_quantised
from levelhead.models.stock import save_stock
from levelhead.models.surgery import refuse_pruned

FORMAT = "scaled"
"""Of `levelhead.json` beside such a model."""
Grid = Float[np.ndarray, "layers heads"]


def check_gates(gates: Any, num_layers: int, num_heads: int) -> Grid:
    """Gates as an array.

    Raises:
        SelectionError: not a number from 0 to 1 for every head of the model.
    """
    try:
        grid = np.array(gates, dtype=float)
    except (TypeError, ValueError) as error:
        raise SelectionError(f"gates are not a list of numbers per layer: {error}") from error
    if grid.shape != (num_layers, num_heads):
        raise SelectionError(
            f"gates of shape {list(grid.shape)}: the model has {num_layers} layers of {num_heads} "
            "heads, and every head needs a gate"
        )
    if not ((grid >= 0) & (grid <= 1)).all():
        raise SelectionError(
            f"a gate of {grid[~((grid >= 0) & (grid <= 1))][0]:g}: gates are from 0 to 1"
        )
    return grid


def scale_heads(model: PreTrainedModel, gates: Any) -> None:
    """Multiply the output projection's columns of every head by its gate, in place.

    Args:
        gates: [layers][heads], from 0 (the head is silenced) to 1 (it stays as it is).

    Raises:
        SelectionError: as `check_gates`.
        ModelError: the model is pruned already, or quantised.
    """
    grid = check_gates(gates, *head_counts(model))
    refuse_pruned(model)
    refuse_quantised(model)
    width = head_dim(model)
    with torch.no_grad():
        for row, projection in zip(grid, output_projections(model), strict=True):
            if (row == 1).all():
                continue
            weight = projection.get_parameter("weight")
            columns = torch.tensor(np.repeat(row, width)).to(weight.device)
            # Products in float64, rounded once: a gate of 1 leaves every bit as it was.
            shaped = columns[:, None] if isinstance(projection, Conv1D) else columns[None]
            weight.copy_((weight.double() * shaped).to(weight.dtype))


def save_scaled(
    model: PreTrainedModel,
    path: str | Path,
    gates: Any,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    overwrite: bool = False,
    objective: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Save a model that `scale_heads` has scaled: a stock checkpoint, its gates in levelhead.json.

    Args:
        overwrite: replace `path` where it holds a model already.
        objective: by which rule gates were chosen, for the record.
        options: of transformers' `save_pretrained`.

    Raises:
        CheckpointError: a folder in the way, or a full disk.
        SelectionError: as `check_gates`.
    """
    grid = check_gates(gates, *head_counts(model))
    about = {"objective": objective, "gates": grid.tolist()}
    return save_stock(model, path, FORMAT, tokenizer, about, overwrite=overwrite, **options)


def saved_gates(folder: Path) -> Grid | None:
    """The gates that `levelhead.json` says were folded into a folder's model; None: not scaled.

    Raises:
        CheckpointError: the file is damaged.
    """
    stored = (read_manifest(folder) or {}).get("gates")
    if stored is None:
        return None
    try:
        return np.array(stored, dtype=float)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} has damaged gates; save the model again") from error
