"""A finished run, judged by another scorer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from levelhead.cli.app import cli
from levelhead.cli.help import STUDIES, flag
from levelhead.cli.options import JSON, RUN, show
from levelhead.cli.progress_options import tell

if TYPE_CHECKING:
    from levelhead.experiments.rescore import RescorePlan


@cli.command(group=STUDIES)
@RUN
@flag(
    "--scorer", required=True,
    help="The scorer to judge by, as for --scorer of `run`; without masked:, both are read.",
)  # fmt: skip
@JSON
def rescore(folder: Path, scorer: str, as_json: bool) -> None:
    """Judge what both models wrote by another scorer.

    Without sampling: every text is read with identity words replaced, and as it is. Printed are the
    bias of base and pruned model and its difference, for both readings. Writes
    RUN/rescored/NAME.json.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars
    from levelhead.console.rescore import rescore_summary

    with progress_bars() as progress:
        found = pipeline.rescore(folder, scorer=scorer, progress=progress, announce=_announce)
    show(found, as_json, rescore_summary)


def _announce(plan: RescorePlan) -> None:
    tell(
        f"plan: {plan.scorer} reads {plan.texts:,} texts of {', '.join(plan.axes)} twice, with and "
        "without identity words"
    )
