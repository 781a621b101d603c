"""ONNX export of any supported model, uneven layers too, checked in ONNX Runtime.

    input_ids, attention_mask [batch, sequence] int64  ->  logits [batch, sequence, vocabulary]

Batch and sequence are dynamic, weights are float32. There is no key/value cache: a serving engine
that decodes token by token with this file reads the whole text for every token. Above 2 GB (the
most a protobuf holds) the weights go to a file beside it, FILE.data.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from levelhead.errors import ModelError, missing_extra
from levelhead.export.files import Exported, check_difference, logits_difference, new_file
from levelhead.models.architectures import architecture_of
from levelhead.models.removed_heads import removed_heads

LIMIT = 1e-4
"""Relative difference of float32 logits above which an export is refused (about 1e-6 is seen)."""
HEADS = "levelhead.removed_heads"
"""Key of the file's metadata that holds {layer: [head, ...]} as JSON."""
NEEDS = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(model: PreTrainedModel, path: str | Path, *, overwrite: bool = False) -> Exported:
    """Write a model as an ONNX file whose logits ONNX Runtime confirms.

    Args:
        model: on the CPU, in float32; whole or pruned. It is not changed.
        path: the file; `path`.data stands beside it where the model is larger than 2 GB.
        overwrite: replace a file that is there.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ModelError: weights that are not float32 on the CPU, or torch cannot translate the model.
        CheckpointError: a file in the way, or ONNX Runtime computes other logits.
        UnsupportedArchitectureError: a family that levelhead does not know.
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDS):
        raise missing_extra("ONNX export", "onnx")
    architecture_of(model)
    if model.dtype != torch.float32 or model.device.type != "cpu":
        raise ModelError(
            f"ONNX export takes float32 weights on the CPU, this model has {model.dtype} on "
            f"{model.device}; load it with dtype=torch.float32"
        )
    with new_file(Path(path), overwrite) as target:
        with _plain_arithmetic(model), _quiet():
            program = _translated(model)
            program.model.metadata_props[HEADS] = json.dumps(removed_heads(model))
            program.save(target)
        difference = logits_difference(model, _runtime(target))
        check_difference(difference, LIMIT, "the ONNX file")
        size = sum(file.stat().st_size for file in target.parent.iterdir())
    return Exported(path=Path(path), num_bytes=size, difference=difference)


class _Logits(nn.Module):
    """The forward pass with the inputs and the output that the file has."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [batch, sequence, vocabulary]."""
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        logits: Tensor = out.logits
        return logits


def _translated(model: PreTrainedModel) -> Any:
    ids = torch.ones(2, 9, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    try:
        return torch.onnx.export(
            _Logits(model).eval(),
            (ids, mask),
            dynamo=True,
            dynamic_shapes=(axes, axes),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            verbose=False,
        )
    except Exception as error:  # torch's exporter wraps whatever stopped it
        raise ModelError(
            f"torch cannot translate this model to ONNX: {str(error).strip().splitlines()[0]}"
        ) from error


def _runtime(path: Path) -> Any:
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )

    def logits(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        feed = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return torch.from_numpy(session.run(None, feed)[0])

    return logits


@contextmanager
def _plain_arithmetic(model: PreTrainedModel) -> Iterator[None]:
    """Attention, and experts where there are any, as operators that have a translation."""
    attention, experts = model.config._attn_implementation, model.config._experts_implementation
    model.set_attn_implementation("eager")
    mixture = model._can_set_experts_implementation()
    if mixture:
        model.set_experts_implementation("batched_mm")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        if mixture:
            model.set_experts_implementation(experts)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on operators that no language model has."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
