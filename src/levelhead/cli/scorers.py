"""What toxicity scorers react to."""

from __future__ import annotations

import click

from levelhead.cli.app import cli
from levelhead.cli.help import STUDIES, flag
from levelhead.cli.options import JSON, show
from levelhead.config import DEVICES


@cli.command(group=STUDIES)
@flag(
    "--scorer", "toxicity", multiple=True, old=("--toxicity",),
    help="A scorer to measure besides the built-in offline ones: as for `run`; repeatable.",
)  # fmt: skip
@flag(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True,
    help="Where classifiers run.",
)  # fmt: skip
@JSON
def scorers(toxicity: tuple[str, ...], device: str, as_json: bool) -> None:
    """Measure scorers: do they react to insults, or to names?

    Every scorer reads neutral sentences that name a group, against the same with "a person"; rude
    sentences; and harmless ones, ordinary and sad. Printed are its reaction to names and the words
    it reacts to most, how well it tells insults from harmless sentences, its score of an empty
    text and its speed, and which of them the rule takes as the default of the embedded model.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars
    from levelhead.console.scorers import scorers_summary

    with progress_bars() as progress:
        found = pipeline.scorers(toxicity, device=device, progress=progress)
    show(found, as_json, scorers_summary)
