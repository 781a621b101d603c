"""The command that shows a run to people."""

from __future__ import annotations

from pathlib import Path

import click

from levelhead.cli.app import cli
from levelhead.cli.options import RUN


@cli.command()
@RUN
def report(folder: Path) -> None:
    """Write RUN/report.html from what the other stages left."""
    from levelhead import pipeline

    click.echo(pipeline.report(folder))
