"""The run folder: where each stage writes, atomically, and what a rerun may reuse.

    config.json  run.toml  scores.csv  continuations.jsonl  selection.json  model/  work/
    evaluation.json  report.html  details.json  frontier.json
    halves.safetensors  stability.safetensors  fisher.safetensors

One command at a time writes to it (`working`), and every file has a checksum in work/, so that one
that was damaged is found when it is read. It knows names and fingerprints, and nothing of what the
files mean.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from levelhead import journal, json_files
from levelhead.config import EVALUATE, SCORE, SELECT, RunConfig
from levelhead.config.run_file import run_file
from levelhead.damage import outdated_run, unknown_run
from levelhead.errors import RunFolderError
from levelhead.journal import sums, watch
from levelhead.journal.lock import locked
from levelhead.journal.store import disk_errors, unwritable
from levelhead.links import refuse_links
from levelhead.records import Continuation, Split

if TYPE_CHECKING:
    import numpy as np

MARK = "levelhead_run"
FORMAT = 2
OLD_FORMAT = 1
"""Of folders before texts were masked: they can be read, and nothing be computed in them."""
_AS_BEFORE: Mapping[str, Any] = {"unmasked": True, "second_toxicity": "none"}
"""What a folder of the old format does not say of itself."""
CALIBRATION = "calibration"
"""Key of config.json beside the options: what `--dtype auto` was decided by."""
CONFIG, RUN_FILE = "config.json", "run.toml"
SCORES, SELECTION = "scores.csv", "selection.json"
CONTINUATIONS, DETAILS = "continuations.jsonl", "details.json"
MODEL, EVALUATION, REPORT = "model", "evaluation.json", "report.html"
HALVES, STABILITY = "halves.safetensors", "stability.safetensors"
CHANGE = "average.safetensors"
"""Of a selection of method average: the change of weights that its `average` describes."""
FISHER, FRONTIER = "fisher.safetensors", "frontier.json"
WORK = journal.FOLDER
P = ParamSpec("P")
R = TypeVar("R")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new content, never a part of it."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes, *, recorded: bool = True) -> None:
    """As `write_text`; the checksum of a file in a run folder is kept, if `recorded`.

    Raises:
        RunFolderError: the disk is full, or the folder cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            if recorded:
                sums.record(path, content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_run_file(path: Path, config: RunConfig) -> None:
    """Write run.toml, which people may edit: no checksum is kept."""
    write_bytes(path / RUN_FILE, run_file(config).encode("utf-8"), recorded=False)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunFolderError: the file is missing, is not JSON within the limits of
            `levelhead.json_files`, or is not what was written.
    """
    sums.verify(path)
    return json_files.read_json(path, RunFolderError, unique=True)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as safetensors, float32, atomically.

    Row by row in memory first: safetensors writes others as they lie there, in silence.
    """
    import numpy as np
    from safetensors.numpy import save

    rows = {name: np.ascontiguousarray(values, np.float32) for name, values in arrays.items()}
    write_bytes(path, save(rows))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote; nothing where the file is missing.

    Raises:
        RunFolderError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not path.exists():
        return {}
    sums.verify(path)
    try:
        return dict(load(path.read_bytes()))
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"cannot read {path}: {error}") from error


def write_continuations(
    path: Path, continuations: Sequence[Continuation], *, keep: Split | None = None
) -> None:
    """Write continuations as JSON Lines; those of split `keep` that the file holds stay."""
    if keep:
        sums.verify(path)
    # Not splitlines(): models write U+2028 and other characters it would split at.
    kept = path.read_text(encoding="utf-8").split("\n") if keep and path.exists() else []
    rows = [(line, json_files.parse_json(line, str(path), RunFolderError)) for line in kept if line]
    lines = [line for line, row in rows if isinstance(row, dict) and row.get("split") == keep]
    lines += [json.dumps(asdict(row), ensure_ascii=False) for row in continuations]
    write_text(path, "".join(line + "\n" for line in lines))


_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_TEMPORARY = re.compile(r"\.(.+\.[a-z0-9_]{8}|model-[a-z0-9_]{8})")
"""What `tempfile` calls the files and folders that are renamed when they are complete."""
_held: ContextVar[tuple[Path, ...]] = ContextVar("levelhead_runs_held", default=())


@contextmanager
def working(path: str | Path, command: str) -> Iterator[None]:
    """Work in a run folder: no other process may meanwhile, and what is done can be watched.

    What is no run folder is left alone: the command inside says what is wrong with it.

    Raises:
        RunFolderError: another process works there, or the folder cannot be written.
    """
    path = Path(path)
    if path.resolve() in _held.get() or not is_run(path):
        yield
        return
    refuse_links(path)  # before anything is written: work/ could lead elsewhere, too
    work = path / WORK
    with locked(work):
        _tidy(path)
        if not sums.has_entry(path / CONFIG):
            with disk_errors(path / CONFIG):
                sums.record_files([path / CONFIG])
        token = _held.set((*_held.get(), path.resolve()))
        try:
            with watch.watching(work, command):
                yield
        except OSError as error:
            if error.errno not in _OF_THE_DISK:
                raise
            raise unwritable(Path(error.filename or path / CONFIG), error) from error
        finally:
            _held.reset(token)


def writes(command: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A command that works in the run folder that is its first argument, if it is one.

    Its keyword `progress`, if it has one, is watched.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        first = next(iter(signature(function).parameters))

        @wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            run = args[0] if args else kwargs.get(first)
            if not isinstance(run, str | Path):
                return function(*args, **kwargs)
            if "progress" in kwargs:
                kwargs["progress"] = watch.watched(cast(watch.Progress, kwargs["progress"]))
            with working(run, command):
                return function(*args, **kwargs)

        return wrapped

    return decorate


def _tidy(path: Path) -> None:
    """Remove what a killed process left half-written; nobody else writes here now."""
    for left in list(path.rglob(".*")):
        if not _TEMPORARY.fullmatch(left.name):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def is_run(path: Path) -> bool:
    """Whether a folder is a run of levelhead's (a model folder has a config.json too)."""
    try:
        data = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and MARK in data


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk and the options it was started with."""

    path: Path
    config: RunConfig
    calibration: Mapping[str, Any] | None = None
    """How `--dtype auto` was decided when the run began; None where there was nothing to decide."""
    old: bool = False
    """Whether it is of the old format: read, and not computed in."""

    @classmethod
    def check(cls, path: str | Path, config: RunConfig) -> bool:
        """Whether `create` would go on with a run that is there (else it would start one).

        Raises:
            RunFolderError: as `create`, but nothing is written.
        """
        path, config = Path(path), config.resolved()
        if is_run(path):
            there = cls.open(path).config
            stages = (SCORE, SELECT, EVALUATE)  # how to prune may change
            if there.fingerprint(*stages) != config.fingerprint(*stages):
                differing = ", ".join(there.differing(config))
                raise RunFolderError(
                    f"{path} holds another run (it differs in: {differing}); "
                    "choose another --out, or delete that folder"
                )
            return True
        if (path / WORK).is_dir():
            raise RunFolderError(unknown_run(path / CONFIG))
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunFolderError(
                f"{path} exists and is not a run of levelhead's; choose another --out"
            )
        return False

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: RunConfig,
        calibration: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """Start a run in a folder, or go on with the same run, which keeps its own calibration.

        Raises:
            RunFolderError: the folder holds another run or other files, or cannot be written.
        """
        path = Path(path)
        config = config.resolved()
        if cls.check(path, config):
            calibration = cls.open(path).calibration
        else:
            found = {} if calibration is None else {CALIBRATION: dict(calibration)}
            write_json(path / CONFIG, {MARK: FORMAT, **config.to_json(), **found})
        if not (path / RUN_FILE).exists():
            write_run_file(path, config)
        return cls(path, config, calibration)

    @classmethod
    def open(cls, path: str | Path, *, old: bool = False) -> RunFolder:
        """Open an existing run.

        Args:
            old: also one of the old format, whose scores rest on texts that were not masked: to
                read what is there, not to compute more, which would be another measure.

        Raises:
            RunFolderError: not a run folder, one of another format, or one with a link that leads
                out of it.
        """
        path = Path(path)
        sums.verify(path / CONFIG)
        if not is_run(path):
            if (path / WORK).is_dir():
                raise RunFolderError(unknown_run(path / CONFIG))
            raise RunFolderError(
                f"{path} is not a run folder (no {CONFIG} of levelhead's); "
                f"make one with: levelhead score --out {path}"
            )
        refuse_links(path)
        data = read_json(path / CONFIG)
        version = data.pop(MARK)
        if version == OLD_FORMAT:
            if not old:
                raise RunFolderError(outdated_run(path, OLD_FORMAT))
            data = {**_AS_BEFORE, **data}
        elif version != FORMAT:
            raise RunFolderError(
                f"{path} has run format {version!r}; this levelhead reads {FORMAT}: upgrade it"
            )
        calibration = data.pop(CALIBRATION, None)
        if not isinstance(calibration, dict | None):
            raise RunFolderError(f"{path / CONFIG}: {CALIBRATION} is not an object")
        return cls(path, RunConfig.from_json(data), calibration, version == OLD_FORMAT)

    def require(self, name: str, command: str) -> Path:
        """The path of a stage's output.

        Raises:
            RunFolderError: the stage has not run (the message names the command that does it), or
                its output is not what was written.
        """
        path = self.path / name
        if not path.exists():
            raise RunFolderError(f"{self.path} has no {name}; first run: levelhead {command}")
        sums.verify(path)
        return path
