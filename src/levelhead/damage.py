"""Files of a run that are JSON but not as levelhead writes them, reported instead of a traceback.

Whoever reads results takes fields of many forms out of them; a folder that was edited, cut short
or sent by somebody may lack any. Knows nothing of the forms. And the messages about folders that
cannot be gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from levelhead.errors import RunFolderError


class _Run(Protocol):
    @property
    def path(self) -> Path: ...


Run = TypeVar("Run", bound=_Run)
P = ParamSpec("P")
R = TypeVar("R")

_OF_FORM = (
    LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError,
    AssertionError,
)  # fmt: skip


def unknown_run(config: Path) -> str:
    """The message about a folder with work of a run and without its options."""
    return (
        f"{config} is missing or damaged, so it is not known what run this was; put it back from a "
        "copy, or delete the folder and start again"
    )


def outdated_run(path: Path, version: int) -> str:
    """The message about a folder whose scores are of another measure."""
    return (
        f"{path} has run format {version}: an older levelhead scored it on texts with identity "
        "words, and on built-in prompts that have changed since. What this one would compute there "
        "is another measure, so it computes nothing; start a new run with another --out. report, "
        "select, prune, heads, export, push and status still read this folder"
    )


@contextmanager
def damage_reported(folder: Path, doing: str) -> Iterator[None]:
    """Turn what a file of an unexpected form raises into an error that says what to do.

    Args:
        folder: the run folder.
        doing: what is being done with its files, as in "make the report".

    Raises:
        RunFolderError: a field is missing or of another form; the cause is kept.
    """
    try:
        yield
    except _OF_FORM as error:
        raise RunFolderError(
            f"cannot {doing} of {folder}: a file in it is not as levelhead writes it "
            f"({type(error).__name__}: {str(error)[:200]}); make the folder anew, or, if nothing "
            "was changed in it, report this as a bug"
        ) from error


def reads_run(
    doing: str,
) -> Callable[[Callable[Concatenate[Run, P], R]], Callable[Concatenate[Run, P], R]]:
    """`damage_reported` around a function whose first argument is a run folder."""

    def decorate(function: Callable[Concatenate[Run, P], R]) -> Callable[Concatenate[Run, P], R]:
        @wraps(function)
        def reporting(folder: Run, /, *args: P.args, **kwargs: P.kwargs) -> R:
            with damage_reported(folder.path, doing):
                return function(folder, *args, **kwargs)

        return reporting

    return decorate
