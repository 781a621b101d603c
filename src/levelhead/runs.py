"""The run folder: where each stage writes, atomically, and what a rerun may reuse.

    config.json  scores.csv  continuations.jsonl  selection.json  model/  evaluation.json
    report.html  details.json  halves.safetensors

It knows names and fingerprints, and nothing of what the files mean.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from levelhead.config import RunConfig
from levelhead.errors import RunFolderError
from levelhead.records import Continuation, Split

if TYPE_CHECKING:
    import numpy as np

MARK = "levelhead_run"
FORMAT = 1
CONFIG, SCORES, SELECTION = "config.json", "scores.csv", "selection.json"
CONTINUATIONS, DETAILS = "continuations.jsonl", "details.json"
MODEL, EVALUATION, REPORT = "model", "evaluation.json", "report.html"
HALVES = "halves.safetensors"


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new content, never a part of it."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunFolderError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"cannot read {path}: {error}") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as safetensors, float32, atomically."""
    import numpy as np
    from safetensors.numpy import save

    write_bytes(
        path, save({name: np.asarray(values, np.float32) for name, values in arrays.items()})
    )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote; nothing where the file is missing.

    Raises:
        RunFolderError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not path.exists():
        return {}
    try:
        return dict(load(path.read_bytes()))
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"cannot read {path}: {error}") from error


def write_continuations(
    path: Path, continuations: Sequence[Continuation], *, keep: Split | None = None
) -> None:
    """Write continuations as JSON Lines; those of split `keep` that the file holds stay."""
    kept = path.read_text(encoding="utf-8").splitlines() if keep and path.exists() else []
    lines = [line for line in kept if json.loads(line)["split"] == keep]
    lines += [json.dumps(asdict(row), ensure_ascii=False) for row in continuations]
    write_text(path, "".join(line + "\n" for line in lines))


def is_run(path: Path) -> bool:
    """Whether a folder is a run of levelhead's (a model folder has a config.json too)."""
    try:
        data = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and MARK in data


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk and the options it was started with."""

    path: Path
    config: RunConfig

    @classmethod
    def check(cls, path: str | Path, config: RunConfig) -> bool:
        """Whether `create` would go on with a run that is there (else it would start one).

        Raises:
            RunFolderError: as `create`, but nothing is written.
        """
        path, config = Path(path), config.resolved()
        if is_run(path):
            there = cls.open(path).config
            if there.fingerprint() != config.fingerprint():
                held, given = there.to_json(), config.to_json()
                differing = ", ".join(name for name in given if held[name] != given[name])
                raise RunFolderError(
                    f"{path} holds another run (it differs in: {differing}); "
                    "choose another --out, or delete that folder"
                )
            return True
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunFolderError(
                f"{path} exists and is not a run of levelhead's; choose another --out"
            )
        return False

    @classmethod
    def create(cls, path: str | Path, config: RunConfig) -> RunFolder:
        """Start a run in a folder, or go on with the same run.

        Raises:
            RunFolderError: the folder holds another run or other files, or cannot be written.
        """
        path = Path(path)
        config = config.resolved()
        if cls.check(path, config):
            return cls(path, config)
        try:
            write_json(path / CONFIG, {MARK: FORMAT, **config.to_json()})
        except OSError as error:
            raise RunFolderError(f"cannot write to {path}: {error}") from error
        return cls(path, config)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run.

        Raises:
            RunFolderError: not a run folder, or one of a newer format.
        """
        path = Path(path)
        if not is_run(path):
            raise RunFolderError(
                f"{path} is not a run folder (no {CONFIG} of levelhead's); "
                f"make one with: levelhead score --out {path}"
            )
        data = read_json(path / CONFIG)
        version = data.pop(MARK)
        if version != FORMAT:
            raise RunFolderError(
                f"{path} has run format {version!r}; this levelhead reads {FORMAT}: upgrade it"
            )
        return cls(path, RunConfig.from_json(data))

    def require(self, name: str, command: str) -> Path:
        """The path of a stage's output.

        Raises:
            RunFolderError: the stage has not run; the message names the command that does it.
        """
        path = self.path / name
        if not path.exists():
            raise RunFolderError(f"{self.path} has no {name}; first run: levelhead {command}")
        return path
