"""`--config run.toml`: options from a file, over which flags win."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from levelhead.cli.help import flag
from levelhead.config.checks import POINT
from levelhead.config.run_file import EMBEDDED, read_run_file

FILE = "levelhead.config"
"""Where the context of a command keeps the options of the file."""
LIMIT = "max_ppl_increase"


def _read(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    options = read_run_file(path)
    if (model := options.pop("model", None)) is not None:
        context.default_map = {"model": model}
    context.meta[FILE] = options


CONFIG = flag(
    "--config", type=click.Path(path_type=Path), is_eager=True, expose_value=False, callback=_read,
    help="A file of options, such as the run.toml that every run leaves; flags win over it.",
)  # fmt: skip


def with_file(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `--config`, if it was given, and these flags over them.

    A budget among the flags takes the place of the file's set and limit; a set, that of the file's
    search, and the limit stays.
    """
    options = dict(click.get_current_context().meta.get(FILE, {}))
    if set(POINT) & set(flags) and "budget" in options:
        options.setdefault(LIMIT, options.pop("budget"))
    if LIMIT in flags:
        options |= {"budget": flags[LIMIT]} if "budget" in options else {}
    if "budget" in flags:
        options = {name: options[name] for name in options if name not in (LIMIT, *POINT)}
    return options | dict(flags)


def model_of(model: str | None) -> str | None:
    """The MODEL of a command, or None where `--config` says that it is the embedded one."""
    context = click.get_current_context()
    of_file = context.get_parameter_source("model") is click.core.ParameterSource.DEFAULT_MAP
    return None if of_file and model == EMBEDDED else model


def refuse_other_model() -> None:
    """End where `--config` names a model and the command works on the embedded one.

    Raises:
        UsageError: it names another.
    """
    model = (click.get_current_context().default_map or {}).get("model", EMBEDDED)
    if model != EMBEDDED:
        raise click.UsageError(
            f"the file of --config is of the model {model!r}, and demo has the embedded one: "
            "levelhead run --config FILE"
        )
