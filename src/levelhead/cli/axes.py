"""What head scores say: correlations between axes, and heads at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from levelhead.cli.app import cli
from levelhead.cli.help import STUDIES, flag, research
from levelhead.cli.options import JSON, SHARE, show
from levelhead.cli.progress_options import tell

if TYPE_CHECKING:
    from levelhead.experiments.cross_axes import CrossPlan


@cli.command(group=STUDIES)
@click.argument(
    "paths", metavar="RUN [RUN ...]", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@flag(
    "--cross", is_flag=True,
    help="Also measure what pruning for each axis of the first RUN does to all its axes.",
)  # fmt: skip
@flag("--gamma", type=SHARE, help="Share protected, for --cross (default: the run's).")
@flag("--alpha", type=SHARE, help="Share pruned, for --cross (default: the run's).")
@JSON
def axes(
    paths: tuple[Path, ...], cross: bool, gamma: float | None, alpha: float | None, as_json: bool
) -> None:
    """Correlate head effects between axes, over one or more runs.

    A RUN is a run folder whose heads are scored on two axes or more, a score table (CSV) or a
    by-seed table. Correlations are shown with 95% intervals, as they are and corrected for
    unreliability; of several runs also where they differ. Writes axes.json into the first run
    folder. --cross reads the base model's continuations of the test prompts; the same command
    goes on where it stopped.
    """
    from levelhead.console.axes import axes_summary
    from levelhead.console.progress import progress_bars
    from levelhead.experiments.axes import axes as correlate

    options = {"gamma": gamma, "alpha": alpha}
    if not cross and any(value is not None for value in options.values()):
        raise click.UsageError("--gamma and --alpha are for --cross; add it, or leave them out")
    if cross:
        with progress_bars() as progress:
            found = correlate(*paths, cross=True, progress=progress, announce=_announce, **options)
    else:
        found = correlate(*paths)
    show(found, as_json, axes_summary)


@cli.command(group=STUDIES)
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@research(
    "--critical", type=float, default=0.01, show_default=True,
    help="Share by which perplexity rises without a critical head.",
)  # fmt: skip
@flag("--gamma", type=SHARE, help="Share protected to compare with (default: the run's).")
@flag("--alpha", type=SHARE, help="Share pruned (default: the run's).")
@JSON
def heads(
    path: Path, critical: float, gamma: float | None, alpha: float | None, as_json: bool
) -> None:
    """Show the heads of RUN at a glance, and other gammas.

    RUN is a run folder whose heads are scored, or a score table (CSV). No model is loaded.
    """
    from levelhead.console.axes import glance_summary
    from levelhead.experiments.glance import glance

    found = glance(path, critical=critical, gamma=gamma, alpha=alpha)
    show(found, as_json, glance_summary)


def _announce(plan: CrossPlan) -> None:
    tell(
        f"plan ({', '.join(plan.axes)}): {plan.sets} sets of heads (fasp and random, one each per "
        f"axis) are read on the test prompts of every axis; at most {plan.sampled_tokens:,} tokens "
        f"are sampled and {plan.read_tokens:,} read; what an earlier call has left is not done "
        "again"
    )
