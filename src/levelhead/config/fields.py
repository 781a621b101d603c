"""How an option is declared: a dataclass field with its help text, stages and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

CHOSEN, MEASURED, MACHINE = "What is pruned", "What is measured", "How it runs"
PANELS = (CHOSEN, MEASURED, MACHINE)
"""Headings of `--help`, in their order."""


def option(
    default: Any,
    help: str,  # noqa: A002 - the name click uses
    *stages: str,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    affects_results: bool = True,
    panel: str = MEASURED,
    common: bool = False,
    flag: str = "",
    old: tuple[str, ...] = (),
) -> Any:
    """A field of an options class: its default, its help text, the stages that it is an option of.

    Args:
        affects_results: whether results depend on it, so that it is in their fingerprint.
        panel: the heading of `--help` that it stands under.
        common: whether `--help` shows it; the others are for research, and under `--help-all`.
        flag: its flag, such as "--scorer"; empty: the name of the field.
        old: earlier flags, which work for one version and say what they are called now.
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
            "panel": panel,
            "common": common,
            "flag": flag,
            "old": old,
        },
    )


def flag_of(name: str, metadata: Mapping[str, Any]) -> str:
    """What an option is called on the command line, and in errors."""
    return metadata["flag"] or "--" + name.replace("_", "-")


def key_of(name: str, metadata: Mapping[str, Any]) -> str:
    """What an option is called in a file of options."""
    return flag_of(name, metadata).removeprefix("--").replace("-", "_")
