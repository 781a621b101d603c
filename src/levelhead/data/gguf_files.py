"""Convert a GGUF file into a transformers checkpoint folder, once, in the cache.

GGUF weights arrive as float32 whatever they were quantised to, so the folder holds float32: it
loads in a fraction of a second, where reading the GGUF takes half a minute. Knows nothing of which
model a file should be, beyond a check of its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from levelhead.data.cache import cache_dir
from levelhead.errors import ModelError, missing_extra

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedTokenizerBase

Progress = Callable[[str], None]
"""Called with a line for people at the start of each step."""

MANIFEST = "levelhead-source.json"
MANIFEST_FORMAT = 1


def is_gguf(name: str) -> bool:
    """Whether a model's name is that of a GGUF file."""
    return name.lower().endswith(".gguf")


def gguf_model_path(gguf: str | Path, progress: Progress | None = None) -> Path:
    """The checkpoint folder of a local GGUF file, converted into the cache on the first call.

    Raises:
        ModelError: no such file, or transformers cannot read its architecture.
        MissingExtraError: the `gguf` package is not installed.
    """
    gguf = Path(gguf)
    sha256 = file_sha256(gguf)
    # Not "gguf-...": folders called so were converted without scaled RoPE and biases.
    folder = cache_dir() / "models" / f"gguf2-{sha256[:16]}"
    return convert_gguf(gguf, folder, sha256=sha256, licence="of the GGUF file", progress=progress)


def check_gguf(gguf: str | Path) -> None:
    """Whether a GGUF file is there, and can be converted; its weights are not read.

    Raises:
        ModelError, MissingExtraError: as `gguf_model_path`.
    """
    if not Path(gguf).is_file():
        raise ModelError(f"no such file: {gguf}; MODEL is a GGUF file, a folder or a name")
    _need_gguf()


def _need_gguf() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise missing_extra("Reading GGUF files", "gguf")


def convert_gguf(
    gguf: Path, folder: Path, *, sha256: str, licence: str, progress: Progress | None = None
) -> Path:
    """Convert `gguf` (whose hash is `sha256`) into `folder` unless that holds it already.

    The folder appears whole or not at all: it is written beside its place and renamed. Its
    MANIFEST records the source's hash, the licence, the versions that converted it, and the size
    of every file.

    Raises:
        ModelError: transformers cannot read the file, or the folder cannot be written.
        MissingExtraError: the `gguf` package is not installed.
    """
    if is_converted(folder, sha256):
        return folder
    _need_gguf()
    _say(progress, f"converting {gguf.name} to safetensors (once, about half a minute)")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write_checkpoint(gguf, partial)
            _write_manifest(partial, source=gguf.name, sha256=sha256, licence=licence)
            _put_in_place(partial, folder, sha256)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ModelError(f"cannot convert {gguf} into {folder}: {error}") from error
    return folder


def is_converted(folder: Path, sha256: str) -> bool:
    """Whether `folder` holds the whole checkpoint converted from the file with this hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return (
            manifest["format"] == MANIFEST_FORMAT
            and manifest["sha256"] == sha256
            and all((folder / f).stat().st_size == size for f, size in manifest["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def _write_checkpoint(gguf: Path, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from levelhead.data.gguf_contents import check_all_read, completed_config

    # Files beside a GGUF file may name code; it is not run, and nobody is asked whether to.
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(gguf.parent),
        "gguf_file": gguf.name,
        "trust_remote_code": False,
    }
    try:
        reader = GGUFReader(gguf)
        _check_blocks(reader, gguf)
        with _quiet():
            config = completed_config(AutoConfig.from_pretrained(**source), reader, gguf)
            tokenizer = AutoTokenizer.from_pretrained(**source)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                **source, config=config, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ModelError):
        raise
    except Exception as error:  # the reader raises many kinds on a file it does not understand
        raise ModelError(
            f"transformers cannot read {gguf} ({type(error).__name__}: {error})"
        ) from error
    model, about = loaded
    if missing := sorted(about["missing_keys"]):
        raise ModelError(
            f"{gguf} lacks {len(missing)} of the model's weights (the first: {missing[0]})"
        )
    check_all_read(model, reader, gguf)
    # The weights are plain float32 by now, but the model still claims to be quantised; saved like
    # that, it would look for a dequantiser on every load.
    quantizer: Any = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    if hasattr(model.config, "_is_quantized"):
        model.config._is_quantized = False
    _complete_tokenizer(tokenizer, gguf, int(getattr(model.config, "max_position_embeddings", 0)))
    model.config.name_or_path = gguf.name
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.bos_token_id = model.generation_config.bos_token_id = tokenizer.bos_token_id
    with _quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _check_blocks(reader: GGUFReader, gguf: Path) -> None:
    """Raise ModelError for other layers than there are tensors of.

    transformers would build as many as the file says, or a default, with random weights.
    """
    family = reader.get_field("general.architecture")
    field = family and reader.get_field(f"{family.contents()}.block_count")
    names = [tensor.name.split(".") for tensor in reader.tensors]
    held = len({name[1] for name in names if name[0] == "blk" and len(name) > 2})
    if not field or field.contents() != held:
        told = f"that it has {field.contents():,} blocks" if field else "nothing of its blocks"
        raise ModelError(
            f"{gguf} says {told} and holds tensors of {held:,}: it is damaged, or a part of a "
            "file that was split"
        )


def _complete_tokenizer(tokenizer: PreTrainedTokenizerBase, gguf: Path, context: int) -> None:
    """Add what the conversion of the tokenizer leaves out."""
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import Digits, Sequence

    if context:
        tokenizer.model_max_length = context
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        # SmolLM splits numbers into digits before anything else; transformers drops that, which
        # shows after several spaces ("x  2").
        backend: Any = tokenizer.backend_tokenizer
        backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])


def _write_manifest(folder: Path, *, source: str, sha256: str, licence: str) -> None:
    manifest = {
        "format": MANIFEST_FORMAT,
        "source": source,
        "sha256": sha256,
        "licence": licence,
        "converted_with": {name: version(name) for name in ("transformers", "torch", "gguf")},
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _put_in_place(partial: Path, folder: Path, sha256: str) -> None:
    """Rename; whoever comes second to a race finds the folder whole and keeps it."""
    if folder.exists() and not is_converted(folder, sha256):
        shutil.rmtree(folder)
    try:
        partial.chmod(0o755)  # mkdtemp makes it private, and safetensors its file
        for path in partial.iterdir():
            path.chmod(0o644)
        partial.rename(folder)
    except OSError:
        if not is_converted(folder, sha256):
            raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or warnings of the library during the conversion."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # The GGUF reader's own bar heeds no setting.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _say(progress: Progress | None, line: str) -> None:
    if progress is not None:
        progress(line)
