"""Commands about the selected set: interactions of its heads, and what the models write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from levelhead.cli.app import cli
from levelhead.cli.help import STUDIES, flag
from levelhead.cli.options import JSON, RUN, show
from levelhead.cli.progress_options import tell

if TYPE_CHECKING:
    from levelhead.experiments.interactions import InteractionPlan


@cli.command(group=STUDIES)
@RUN
@flag(
    "--pairs", type=click.IntRange(0), default=5, show_default=True,
    help="Of how many heads, those with the largest effect on bias, to read every pair.",
)  # fmt: skip
@JSON
def interactions(folder: Path, pairs: int, as_json: bool) -> None:
    """Compare removing heads together with one by one.

    Selection adds up effects of single heads. This measures, by true ablation on test prompts and
    text, what that misses: for the selected set, and for pairs of its first heads.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars
    from levelhead.console.sets import interactions_summary

    with progress_bars() as progress:
        found = pipeline.interactions(folder, pairs=pairs, progress=progress, announce=_announce)
    show(found, as_json, interactions_summary)


def _announce(plan: InteractionPlan) -> None:
    tell(
        f"plan ({plan.axis}): {plan.heads} heads are ablated one by one, then together, and "
        f"{plan.pairs} pairs of them, on test prompts and text"
    )


@cli.command(group=STUDIES)
@RUN
@flag("--template", "templates", multiple=True, help="Name of a template to show; repeatable.")
@flag(
    "--groups", type=click.IntRange(1), default=2, show_default=True,
    help="How many templates to show where none is named.",
)  # fmt: skip
@flag(
    "--samples", type=click.IntRange(1), default=2, show_default=True,
    help="Continuations per prompt and model.",
)  # fmt: skip
@flag("--seed", type=click.IntRange(0), default=None, help="Default: the run's.")
@JSON
def examples(
    folder: Path, templates: tuple[str, ...], groups: int, samples: int, seed: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Show what both models write after the same prompts.

    One prompt per subgroup, the same random numbers for both models, toxicity in front. Generated
    text can be offensive. RUN's report shows these examples once it is made anew.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars
    from levelhead.console.sets import examples_summary

    with progress_bars() as progress:
        found = pipeline.examples(
            folder,
            templates=templates,
            groups=groups,
            samples=samples,
            seed=seed,
            progress=progress,
        )
    show(found, as_json, examples_summary)
