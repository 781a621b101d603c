"""The command that shows a run to people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from levelhead.cli.app import cli
from levelhead.cli.help import STAGES, flag
from levelhead.cli.options import RUN

FORMATS, KINDS = ("html", "md", "json"), ("png", "svg", "html")


def _kinds(context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str]:
    kinds = [kind.strip() for value in values for kind in value.split(",") if kind.strip()]
    for kind in kinds:
        if kind not in KINDS:
            raise click.BadParameter(f"{kind!r} is none of {', '.join(KINDS)}")
    return list(dict.fromkeys(kinds))


@cli.command(group=STAGES, place=5)
@RUN
@flag(
    "--format",
    "report_format",
    type=click.Choice(FORMATS),
    default="html",
    show_default=True,
    help="A page, Markdown, or all facts as JSON.",
)
@flag(
    "--plots",
    metavar="KIND,...",
    multiple=True,
    callback=_kinds,
    help="Also write every plot to RUN/plots as png, svg (both need the extra plots, and Chrome "
    "or Chromium) or html.",
)
@flag("--open", "show", is_flag=True, help="Open the page in your browser.")
def report(folder: Path, report_format: Any, plots: list[str], show: bool) -> None:
    """Write the page that shows a run, RUN/report.html.

    It is made of what the other stages and experiments left there.
    """
    if show and report_format != "html":
        raise click.UsageError(f"--open shows the page; leave out --format {report_format}")
    from levelhead import pipeline

    target = pipeline.report(folder, report_format, plots=plots)
    click.echo(target)
    if plots:
        click.echo(folder / "plots")
    if show:
        import webbrowser

        if not webbrowser.open(target.resolve().as_uri()):
            click.echo(f"levelhead: found no browser to open; the page is {target}", err=True)
