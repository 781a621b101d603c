"""Flags that several commands share, and those built from the fields of `RunConfig`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from levelhead.cli.config_file import with_file
from levelhead.cli.help import Flag, flag
from levelhead.cli.progress_options import tell
from levelhead.config import RunConfig
from levelhead.config.fields import flag_of

if TYPE_CHECKING:
    from levelhead.plan import Plan

F = TypeVar("F", bound=Callable[..., Any])
OUT = flag("--out", required=True, type=click.Path(path_type=Path), help="The run folder.")
JSON = flag("--json", "as_json", is_flag=True, help="Print JSON for machines.")
SHARE = click.FloatRange(0, 1)
RISE = click.FloatRange(0)
"""A share by which perplexity may rise: 0.05 is 5%."""
RUN = click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))


class CountOrAuto(click.ParamType[int | None]):
    """A whole number, or "auto" for None."""

    name = "integer|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Read the flag's value."""
        if value in (None, "auto"):
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor auto", param, ctx)


def options_of(*stages: str, without: Sequence[str] = (), of_run: bool = False) -> Callable[[F], F]:
    """The flags of these stages and not of those, from the fields of `RunConfig`.

    Args:
        of_run: whether those that are not given are a run's, so that help names no default.
    """

    def decorate(command: F) -> F:
        for spec in reversed(fields(RunConfig)):
            of = set(spec.metadata["stages"])
            if set(stages) & of and not set(without) & of:
                about = spec.metadata | {"of_run": of_run}
                command = _flag(spec.name, str(spec.type), spec.default, about)(command)
        return command

    return decorate


def _flag(name: str, kind: str, default: Any, metadata: Any) -> Callable[[F], F]:
    said = flag_of(name, metadata)
    about: dict[str, Any] = {
        "cls": Flag,
        "help": metadata["help"],
        "default": default,
        "show_default": default is not None and kind != "bool" and not metadata["of_run"],
        "panel": metadata["panel"],
        "research": not metadata["common"],
        "old": metadata["old"],
    }
    if kind == "bool":
        no = f"--no-{said.removeprefix('--')}"  # for a file of options that says yes
        return click.option(f"{said}/{no}", name, **about)
    if metadata["choices"]:
        return click.option(said, name, type=click.Choice(metadata["choices"]), **about)
    if kind.startswith("tuple"):
        return click.option(said, name, multiple=True, **about)
    types = {"int": int, "float": float, "float | None": float, "str": str, "str | None": str}
    return click.option(said, name, type=types.get(kind, CountOrAuto()), **about)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Of a command's options, those that the user wrote, in a file (`--config`) or as flags."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return with_file(
        {
            name: value
            for name, value in options.items()
            if context.get_parameter_source(name) is not default
        }
    )


def flag_named(name: str) -> str:
    """The flag of the running command that an option is given by."""
    params = click.get_current_context().command.params
    return next(param.opts[0] for param in params if param.name == name)


def announce(plan: Plan) -> None:
    tell(
        f"plan: {plan.heads:,} {plan.unit}s; at most {plan.scoring_tokens:,} tokens are sampled to "
        f"score ({', '.join(plan.axes)}) and {plan.evaluation_tokens:,} to evaluate "
        f"({', '.join(plan.evaluated_axes)}); {plan.text_tokens:,} tokens of perplexity text"
        + (f" and {plan.price_tokens:,} of further ones" if plan.price_tokens else "")
        + (
            f"; up to {plan.more_tokens:,} more to score while the ranking of heads has a "
            f"split-half reliability below {plan.reliability:g}"
            if plan.more_tokens
            else ""
        )
    )
    if plan.dropped_tokens:
        tell(
            f"the tokenizer ends every text in {' '.join(plan.dropped_tokens)}; prompts are "
            "without, since a model goes on where they end"
        )
    told = ", ".join(f"{axis} {least:.3f}" for axis, least in plan.detectable.items())
    tell(f"evaluation tells a fall of the measured gap in 4 of 5 runs where it is at least: {told}")


def show(found: Any, as_json: bool, table: Callable[[Any], None]) -> None:
    """Print a result: JSON for machines, or the table that people look at."""
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
    else:
        table(found)
