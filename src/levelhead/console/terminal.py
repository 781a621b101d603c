"""Where the command line prints: words wrap at a terminal's width, and nowhere else.

Piped or written to a file, every message is one line and every table as wide as it needs.
"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from levelhead.reporting.escape import visible

UNBROKEN = 100_000
"""Columns where there is no terminal: no line is that long."""


def output(*, stderr: bool = False) -> Console:
    """Standard output or standard error, as wide as it is."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=UNBROKEN)


def say(text: str, *, stderr: bool = True, lead: str = "", style: str = "") -> None:
    """Print a message of ours, whatever is in it made visible.

    Args:
        lead: what stands before it, in `style`.
    """
    said = Text(visible(lead), style) if lead else Text()
    said = Text.assemble(said, visible(text, multiline=True))
    output(stderr=stderr).print(said)
