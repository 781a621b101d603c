"""Export a run's pruned model, or any model, by name: `levelhead export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from levelhead import runs
from levelhead.config import RunConfig
from levelhead.errors import ConfigError, ModelError
from levelhead.export.files import Exported
from levelhead.export.gguf import export_gguf
from levelhead.export.onnx import export_onnx
from levelhead.models.loading import LoadedModel, load_base
from levelhead.runs import RunFolder
from levelhead.session import Session

Target = Literal["onnx", "gguf"]
TARGETS: tuple[Target, ...] = get_args(Target)


def export_model(
    model: str | Path | None,
    *,
    to: Target,
    out: str | Path,
    dtype: str = "float32",
    zero_fill: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a model as one file for another engine, checked against torch before it appears.

    Args:
        model: a run folder (its pruned model), or a hub id, folder or GGUF file; none: the embedded
            model.
        to: "onnx" (any family, uneven layers too, float32) or "gguf" (Llama, Qwen2, Qwen3).
        out: the file.
        dtype: of a GGUF file's matrices: float32, float16, bfloat16 or q8_0.
        zero_fill: GGUF of a compact model: stock shapes, zeros where heads were, no smaller.
        overwrite: replace a file that is there.

    Returns:
        Path, size and the largest relative difference of logits.

    Raises:
        ConfigError: an unknown target, or options that it does not have.
        MissingExtraError: the extra `onnx` or `gguf` is not installed.
        CheckpointError: what the format cannot say, a file in the way, or other logits.
        ModelError, RunFolderError: as elsewhere.
    """
    if to not in TARGETS:
        raise ConfigError(f"--to {to!r} is unknown; there are {', '.join(TARGETS)}")
    if to == "onnx" and (dtype != "float32" or zero_fill):
        raise ConfigError("--dtype and --zero-fill are for --to gguf; ONNX files are float32")
    if model is not None and runs.is_run(Path(model)):
        source = str(RunFolder.open(model, old=True).require(runs.MODEL, f"prune {model}"))
    else:
        source = Session(RunConfig(model=None if model is None else str(model))).base_path
    loaded = load_base(source, dtype="float32", device="cpu", need_tokenizer=to == "gguf")
    return write_export(loaded, to, out, dtype=dtype, zero_fill=zero_fill, overwrite=overwrite)


def write_export(
    loaded: LoadedModel,
    to: Target,
    out: str | Path,
    *,
    dtype: str = "float32",
    zero_fill: bool = True,
    overwrite: bool = False,
) -> Exported:
    """`export_model` for a model in memory (float32, on the CPU), whole or pruned.

    Raises:
        ModelError: a GGUF file needs a tokenizer and the model has none.
    """
    if to == "onnx":
        return export_onnx(loaded.model, out, overwrite=overwrite)
    if loaded.tokenizer is None:
        raise ModelError(f"{loaded.name} has no tokenizer, which a GGUF file needs")
    return export_gguf(
        loaded.model,
        loaded.tokenizer,
        out,
        dtype=dtype,
        zero_fill=zero_fill,
        overwrite=overwrite,
    )
