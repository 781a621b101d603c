"""Other selections from the scores of a run, and all of them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from levelhead.cli.app import cli
from levelhead.cli.help import START
from levelhead.cli.options import JSON, RUN, given, options_of, show
from levelhead.cli.permissions import ALLOW_UNRELIABLE
from levelhead.config import EVALUATE, PRUNE, SCORE, SELECT


@cli.command(group=START, place=3)
@RUN
@options_of(SELECT, PRUNE, EVALUATE, without=(SCORE,), of_run=True)
@ALLOW_UNRELIABLE
@JSON
def retry(folder: Path, as_json: bool, **options: Any) -> None:
    """Try another set of heads, without scoring again.

    \b
    levelhead retry runs/first --max-ppl-increase 0.03
    levelhead retry runs/first --gamma 0.7 --alpha 0.05
    levelhead results runs/first

    Selects, prunes, evaluates and reports. The result is kept beside the first one, in
    RUN/attempts/2 and so on; each is a run folder of its own. Options that are not given are the
    run's.
    """
    from levelhead import pipeline
    from levelhead.console.progress import run_progress
    from levelhead.console.summaries import evaluation_summary, next_steps_summary

    with run_progress(kept=("score",)) as shown:
        found = pipeline.retry(
            folder, progress=shown.progress, stages=shown.stages,
            announce=shown.announce, **given(options),
        )  # fmt: skip
    show(found, as_json, evaluation_summary)
    at = Path(found["folder"])
    click.echo(
        f"attempt {found['attempt']}\nreport: {at / 'report.html'}\nmodel:  {at / 'model'}\n"
        f"beside the others: levelhead results {folder}",
        err=True,
    )
    if not as_json:
        next_steps_summary(at, found)


@cli.command(group=START, place=4)
@RUN
@JSON
def results(folder: Path, as_json: bool) -> None:
    """Show what all attempts at a run did and cost."""
    from levelhead import pipeline
    from levelhead.console.attempts import results_table

    show(pipeline.results(folder), as_json, results_table)
