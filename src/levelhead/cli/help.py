"""How commands show themselves: in groups, common flags first, research flags on request.

    @cli.command(group=START, place=2)      where `levelhead --help` lists it
    @flag("--open", is_flag=True, ...)      a flag that `--help` shows
    @research("--parquet", ...)             one that only `--help-all` shows
    @flag("--scorer", old=("--measure",))   an earlier name, which works for one version

Whether a flag is common is said where it is declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import click

from levelhead.config.fields import PANELS

START, STAGES, STUDIES, DEPLOY = "Start", "Stages", "Studies", "Deploy"
GROUPS = (START, STAGES, STUDIES, DEPLOY)
"""Headings of `levelhead --help`, in their order."""
OPTIONS = "Options"
EVERYTHING = "levelhead.everything"
"""Where the context of a command keeps that all of its flags are to be shown."""


class Flag(click.Option):
    """A flag that knows where `--help` shows it, and what it was called before.

    Args:
        panel: the heading that it stands under.
        research: whether only `--help-all` shows it.
        old: earlier names.
    """

    def __init__(
        self,
        *names: Any,
        panel: str = OPTIONS,
        research: bool = False,
        old: tuple[str, ...] = (),
        **about: Any,
    ) -> None:
        super().__init__(*names, **about)
        self.panel, self.research, self.old = panel, research, old

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As click has it, without `/ --no-...`, which is there for files that say yes."""
        record = super().get_help_record(ctx)
        if record is None or not self.secondary_opts:
            return record
        return record[0].partition(" / ")[0], record[1]


flag = partial(click.option, cls=Flag)
research = partial(click.option, cls=Flag, research=True)


class Command(click.Command):
    """A command with a place in the list of commands, and with `--help-all`.

    Args:
        group: of `GROUPS`.
        place: its order there; equal places are sorted by name.
    """

    def __init__(self, *args: Any, group: str = "", place: int = 99, **about: Any) -> None:
        super().__init__(*args, **about)
        self.group, self.place = group, place
        self.params.append(
            Flag(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                hidden=True,  # the last line of --help names it, where it shows more
                callback=_show_everything,
                help="Show all flags, those for research too.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read flags by their old names too, and say on standard error what they are called."""
        return super().parse_args(ctx, list(self._renamed(ctx, args)))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The flags by panel, those for research last, or not at all."""
        panels: dict[str, list[tuple[str, str]]] = {title: [] for title in (OPTIONS, *PANELS)}
        for param in sorted(self.get_params(ctx), key=_is_research):
            if _is_research(param) and EVERYTHING not in ctx.meta:
                continue
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                panels[param.panel if isinstance(param, Flag) else OPTIONS].append(record)
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click has it; the last line names `--help-all` where it shows more."""
        super().format_help(ctx, formatter)
        if any(map(_is_research, self.params)) and EVERYTHING not in ctx.meta:
            formatter.write_paragraph()
            formatter.write_text(
                f"All flags, those for research too: {ctx.command_path} --help-all"
            )

    def _renamed(self, ctx: click.Context, args: Sequence[str]) -> Iterator[str]:
        new = {old: one.opts[0] for one in self.params if isinstance(one, Flag) for old in one.old}
        for place, arg in enumerate(args):
            if arg == "--":
                yield from args[place:]
                return
            name, equals, value = arg.partition("=")
            if name in new and not ctx.resilient_parsing:
                click.echo(
                    f"levelhead: {name} is called {new[name]} now; the old name works in this "
                    "version only",
                    err=True,
                )
            yield f"{new.get(name, name)}{equals}{value}"


class Commands(click.Group):
    """The commands, listed in groups."""

    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every group with its commands, a line each."""
        found = [one for one in self.commands.values() if isinstance(one, Command)]
        wide = max(len(one.name or "") for one in found)
        for group in GROUPS:
            mine = sorted((one.place, one.name or "", one) for one in found if one.group == group)
            with formatter.section(group):
                formatter.write_dl(
                    [
                        (name.ljust(wide), one.get_short_help_str(formatter.width - 6 - wide))
                        for _, name, one in mine
                    ]
                )


def _is_research(param: click.Parameter) -> bool:
    return isinstance(param, Flag) and param.research


def _show_everything(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given and not context.resilient_parsing:
        context.meta[EVERYTHING] = True
        click.echo(context.get_help(), color=context.color)
        context.exit()
