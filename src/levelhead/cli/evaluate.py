"""levelhead evaluate: what pruning did, on held-out prompts or on standard tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levelhead.cli.app import cli
from levelhead.cli.help import STAGES, flag, research
from levelhead.cli.options import JSON, flag_named, given, options_of, show
from levelhead.cli.progress_options import tell
from levelhead.config import EVALUATE

if TYPE_CHECKING:
    from levelhead.experiments.tasks import TasksPlan

TASK_OPTIONS = {"base", "include_path", "limit", "num_fewshot"}
"""Flags that have a meaning with --tasks only."""
SHARED = {"device", "dtype", "batch_size"}
"""Flags that have a meaning with --tasks, too."""


@cli.command(group=STAGES, place=4)
@click.argument("path", type=click.Path(path_type=Path))
@flag(
    "--tasks",
    help="Standard tasks of lm-eval instead, separated by commas: "
    "hellaswag,arc_easy,crows_pairs_english",
)
@flag("--base", help="With --tasks: model to compare with, where PATH is no run folder.")
@research(
    "--include-path",
    type=click.Path(path_type=Path),
    help="With --tasks: a folder of task files (YAML).",
)
@flag("--limit", type=click.IntRange(2), help="With --tasks: only the first items of every task.")
@research(
    "--num-fewshot",
    type=click.IntRange(0),
    help="With --tasks: examples before every item (default: the task's).",
)
@options_of(EVALUATE, of_run=True)
@JSON
def evaluate(path: Path, tasks: str | None, as_json: bool, **options: Any) -> None:
    """Compare the pruned model with its base on held-out prompts.

    PATH is a run folder; options that are not given are those the run was started with. With
    --tasks both answer standard tasks through lm-eval, and PATH may be any model: a run folder gets
    tasks.json. Data of lm-eval's own tasks come from the hub; a task file may name local data.
    """
    from levelhead import pipeline
    from levelhead.console.deploy import tasks_summary
    from levelhead.console.progress import progress_bars
    from levelhead.console.summaries import evaluation_summary

    chosen = given(options)
    lost = set(chosen) & TASK_OPTIONS if tasks is None else set(chosen) - TASK_OPTIONS - SHARED
    if lost:
        raise click.UsageError(
            f"{flag_named(min(lost))} has no meaning with{'out' * (tasks is None)} --tasks"
        )
    with progress_bars() as progress:
        if tasks is None:
            found = pipeline.evaluate(path, progress=progress, **chosen)
        else:
            names = [name.strip() for name in tasks.split(",") if name.strip()]
            found = pipeline.tasks(
                path, names, progress=progress, announce=_announce_tasks, **chosen
            )
    show(found, as_json, evaluation_summary if tasks is None else tasks_summary)


def _announce_tasks(plan: TasksPlan) -> None:
    limit = "" if plan.limit is None else f", the first {plan.limit} items of each"
    tell(
        f"plan: {', '.join(plan.tasks)}{limit}, with {len(plan.models)} "
        f"model{'s' * (len(plan.models) != 1)}"
    )
