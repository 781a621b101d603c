"""Whether a selection holds where it was not made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levelhead.cli.app import cli
from levelhead.cli.help import STUDIES, flag, research
from levelhead.cli.options import JSON, RUN, show
from levelhead.cli.progress_options import tell

if TYPE_CHECKING:
    from levelhead.experiments.transfer import TransferPlan


@cli.command(group=STUDIES)
@RUN
@flag(
    "--prompts", multiple=True,
    help="Other prompts: builtin, holistic-bias, holistic-bias:FOLDER, or a CSV or JSONL file; "
    "repeatable. Descriptors that RUN scored on are left out.",
)  # fmt: skip
@flag(
    "--scorer", "scorers", multiple=True,
    help="Another toxicity scorer, or sentiment; repeatable.",
)  # fmt: skip
@flag("--axis", "axes", multiple=True, help="Another axis of RUN's prompts; repeatable.")
@research(
    "--controls", type=click.IntRange(0), default=2, show_default=True,
    help="Random sets of as many unprotected units to judge, too.",
)  # fmt: skip
@flag("--sample", is_flag=True, help="Sample the models afresh, too: the proof, dearer.")
@flag("--max-prompts", type=click.IntRange(4), help="Prompts per place (default: the run's).")
@JSON
def transfer(folder: Path, as_json: bool, **options: Any) -> None:
    """Judge what RUN selects where it was not selected.

    On the scoring templates (for comparison) and the held-out ones, and on other prompts, axes and
    scorers as asked; beside random sets of as many unprotected units. Writes RUN/transfer.json.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars
    from levelhead.console.transfer import transfer_summary

    with progress_bars() as progress:
        found = pipeline.transfer(folder, progress=progress, announce=_announce, **options)
    show(found, as_json, transfer_summary)


def _announce(plan: TransferPlan) -> None:
    tell(
        f"plan: {plan.sets} sets at {len(plan.places)} places "
        f"({'; '.join(plan.places)}), {plan.prompts:,} prompts in all; the base model samples at "
        f"most {plan.sampled_tokens:,} tokens"
    )
