"""Whether several measures of bias agree on a run's heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from levelhead.cli.app import cli
from levelhead.cli.help import STUDIES, flag
from levelhead.cli.options import JSON, RUN, SHARE, show
from levelhead.cli.progress_options import tell

if TYPE_CHECKING:
    from levelhead.experiments.agree import AgreePlan


@cli.command(group=STUDIES)
@RUN
@flag(
    "--scorer", "measures", multiple=True, old=("--measure",),
    help="A toxicity scorer (of texts as they are), masked:SCORER (without identity words), "
    "over-0.5:SCORER, sentiment or likelihood; repeatable (default: the run's scorer, masked and "
    "plain, its share over 0.5, and the others that are installed).",
)  # fmt: skip
@flag("--alpha", type=SHARE, help="Share of heads pruned (default: the run's).")
@flag("--gamma", type=SHARE, help="Share protected (default: the run's).")
@flag("--max-prompts", type=click.IntRange(4), help="Use only so many of the run's prompts.")
@JSON
def agree(
    folder: Path,
    measures: tuple[str, ...],
    alpha: float | None,
    gamma: float | None,
    max_prompts: int | None,
    as_json: bool,
) -> None:
    """Tell whether several scorers agree on which heads to prune.

    Every measure reads RUN's own validation continuations. Printed are, for every pair, the
    correlation of head effects and the share of heads that both would prune. Writes
    RUN/agree.json; a measure that is done is not computed again.
    """
    from levelhead import pipeline
    from levelhead.console.agree import agreement_summary
    from levelhead.console.progress import progress_bars

    with progress_bars() as progress:
        found = pipeline.agree(
            folder,
            measures=measures,
            alpha=alpha,
            gamma=gamma,
            max_prompts=max_prompts,
            progress=progress,
            announce=_announce,
        )
    show(found, as_json, agreement_summary)


def _announce(plan: AgreePlan) -> None:
    done = f" ({', '.join(plan.done)} done already)" if plan.done else ""
    tell(
        f"plan: {len(plan.measures)} measures, {', '.join(plan.measures)}{done}, on {plan.texts} "
        f"continuations of {plan.prompts} prompts of {plan.axis}; about {plan.cpu_seconds:,.0f} "
        "CPU seconds"
    )
