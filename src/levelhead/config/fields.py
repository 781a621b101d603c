"""How an option is declared: a dataclass field with its help text, stages and limits."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(
    default: Any,
    help: str,  # noqa: A002 - the name click uses
    *stages: str,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    affects_results: bool = True,
) -> Any:
    """A field of an options class: its default, its help text, the stages that it is an option of.

    Args:
        affects_results: whether results depend on it, so that it is in their fingerprint.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "stages": stages,
            "choices": choices,
            "minimum": minimum,
            "maximum": maximum,
            "affects_results": affects_results,
        },
    )
