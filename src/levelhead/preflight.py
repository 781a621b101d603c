"""Everything that keeps a run from starting, found at once and told in one message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from levelhead.errors import MissingExtraError, PreflightError, UserError

Check = tuple[str, Callable[[], object]]
"""(what is looked at, a function that raises UserError where it cannot be used)."""


def check_all(checks: Iterable[Check]) -> None:
    """Make every check, in order, whatever the others say.

    Raises:
        UserError: the one thing that is wrong.
        PreflightError: several are.
    """
    found: list[tuple[str, UserError]] = []
    for name, check in checks:
        try:
            check()
        except UserError as error:
            found.append((name, error))
    if len(found) == 1:
        raise found[0][1]
    if found:
        raise PreflightError(_message(found), tuple(error for _, error in found))


def _message(found: list[tuple[str, UserError]]) -> str:
    lines = [f"{len(found)} things keep this run from starting; nothing was done:"]
    lines += [f"  {number}. {name}: {error}" for number, (name, error) in enumerate(found, start=1)]
    missing = [error.extra for _, error in found if isinstance(error, MissingExtraError)]
    extras = list(dict.fromkeys(extra for extra in missing if extra))
    if len(extras) > 1:
        lines.append(f"All extras at once: pip install 'levelhead[{','.join(extras)}]'")
    return "\n".join(lines)


def after(needed: Callable[[], object], check: Callable[[], object]) -> Callable[[], object]:
    """A check that says nothing where what it needs is wrong: that is told by itself."""

    def run() -> object:
        fine = False
        with suppress(UserError):
            needed()
            fine = True
        return check() if fine else None

    return run
